"""How far off mini_r1/preflight/memory.py is: its estimate against the peak of real GRPO steps on this CPU.

    python benchmarks/memory_model.py    # 3 minutes; rewrites benchmarks/results/memory_model.md

Each case is its own process. It trains a model with random weights for two steps (the second has Adam's moments), with
the trainer of a real run. What is measured is the growth of its resident memory beyond what the imports take.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))  # shared/, also where a test runs this file

from mini_r1.program.failures import in_words

with in_words():
    from shared.phases import forget_peak, resident
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    from mini_r1.machine.hardware import hardware
    from mini_r1.machine.launch import Launch
    from mini_r1.policy.shape import load_config, measure_shape
    from mini_r1.preflight.memory import peak, step_of, training_items
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import parse_recipe
    from mini_r1.train.samples import SampleRecorder
    from mini_r1.train.trainer import build_trainer

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "receipes" / "grpo-tiny-countdown.yaml"
BASE = ROOT / "assets" / "tiny-countdown-base"
RESULT = ROOT / "benchmarks" / "results" / "memory_model.md"


@dataclass(frozen=True)
class Case:
    """One model and batch: sizes of a Qwen2, completions, tokens per completion, gradient checkpointing."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    completions: int
    tokens: int
    checkpointing: bool


CASES = [
    Case(512, 2048, 6, 8192, 16, 96, checkpointing=False),
    Case(512, 2048, 6, 8192, 16, 96, checkpointing=True),
    Case(768, 3072, 8, 32768, 8, 64, checkpointing=False),
    Case(768, 3072, 8, 32768, 8, 64, checkpointing=True),
]


def make_model(case: Case, folder: Path) -> None:
    """Save a model of random weights with the tiny base's tokenizer."""
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)


def measure(case: Case) -> dict[str, float]:
    """Train two steps in this process; parameters, estimate and measured peak in bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(case, folder / "model")
        settings = {
            "model_name_or_path": folder / "model",
            "output_dir": folder / "run",
            "max_samples": 200,
            "max_steps": 2,
            "per_device_train_batch_size": case.completions,
            "max_completion_length": case.tokens,
            "max_prompt_length": 22,  # as long as they are
            "length_buckets": 1,
            "num_iterations": 1,
            "skip_zero_advantage": False,  # a model of random weights solves nothing: all would be skipped
            "gradient_checkpointing": case.checkpointing,
            "eval_strategy": "no",
            "eval_on_start": False,
            "save_strategy": "no",
            "report_to": "none",
        }
        flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        script, training, model = parse_recipe(["--config", str(RECIPE), *flags])
        shape = measure_shape(load_config(model)[0], model)
        items = training_items(shape, step_of(script, training, model), Launch(), capacity=0)
        forget_peak()  # which saving the model made
        before = resident("VmRSS")
        build_trainer(script, training, model, SampleRecorder(folder / "samples", 0)).train()
        return {"parameters": shape.parameters, "estimate": peak(items), "measured": resident("VmHWM") - before}


def run_case(index: int) -> dict[str, float]:
    """Measure one case in a process of its own, in which freed memory goes back at once."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--case", str(index)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: list[dict[str, float]]) -> str:
    """The page of results."""
    errors = [result["estimate"] / result["measured"] - 1 for result in results]
    rows = [
        f"| {result['parameters'] / 1e6:.0f} M | {case.completions} x {case.tokens + 22} | "
        f"{'yes' if case.checkpointing else 'no'} | {result['estimate'] / 2**20:.0f} | "
        f"{result['measured'] / 2**20:.0f} | {error:+.0%} |"
        for case, result, error in zip(CASES, results, errors, strict=True)
    ]
    mean = statistics.mean(map(abs, errors))
    worst = max(errors, key=abs)
    return "\n".join(
        [
            "# The memory model against measured peaks",
            "",
            "Two GRPO steps of the real trainer on a CPU, float32, Adam, transformers' generation, one process each.",
            "",
            "- Repeat with: `python benchmarks/memory_model.py`",
            f"- Hardware: {hardware()}",
            f"- Mean error {mean:.0%}, worst {worst:+.0%} (positive: the estimate was too high)",
            "- Not measured: GPUs. The parts that a CPU doesn't have (CUDA context, DeepSpeed's buffers, vLLM's",
            "  share) come from the libraries' documented defaults.",
            "",
            "| parameters | completions x tokens | checkpointing | estimate, MiB | measured, MiB | error |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure all cases and write the page, or one case for the parent."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, help="measure only this case, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(CASES[arguments.case])))
        return
    results = []
    for index, case in enumerate(CASES):
        results.append(run_case(index))
        print(asdict(case), results[-1], flush=True)
    RESULT.write_text(table(results), encoding="utf-8")
    print(RESULT.read_text())


if __name__ == "__main__":
    with in_words():
        main()
