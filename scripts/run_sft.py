r"""Teach a policy the task by demonstrations (SFT): the cold start of a model that RL alone would never reward.

DeepSeek-R1 did so too: a little SFT first, which shows the form and how to search, then RL. Differs from `trl sft`:
* the task writes the demonstrations; Countdown's are searches in plain language, by our solver, each of them checked;
* prompts, tokens, end token and split are those of the GRPO run that follows; no held-out problem is learned;
* the same preflight, resume, card, Hub and recipe as `scripts/run_r1_grpo.py`, which runs `method: sft` as well.

    python scripts/run_sft.py --config receipes/sft-smollm2-135m-countdown.yaml
    python scripts/run_sft.py --config receipes/sft-qwen-2.5-0.5b-countdown.yaml --dry_run

Then name its output folder as the model of a GRPO run, as receipes/grpo-smollm2-135m-countdown.yaml does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from mini_r1.program.failures import in_words

with in_words():
    from run_r1_grpo import main

if __name__ == "__main__":
    with in_words():
        sys.exit(main(method="sft"))
