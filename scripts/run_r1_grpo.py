"""Train a policy with GRPO on the Countdown game, rewarded by rules alone.

Differs from TRL's own example in what surrounds the trainer: a prefilled R1 prompt, an exact verifier for the reward, a
split that no puzzle crosses, held-out evaluation, samples kept on disk, and a run that always goes on where it stopped.

A laptop CPU, minutes:  python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml
Any key is a flag:      python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --max_steps 20
Only check and plan:    python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --dry_run
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.recipe.help import show_help_if_asked

    show_help_if_asked(sys.argv)  # at once: what follows takes seconds to import
    from mini_r1.preflight.checks import run_preflight
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.read import parse_recipe, read_recipe


def main() -> int:
    """Parse, train, and return the exit status."""
    quiet_libraries()
    # Before GRPOConfig is built: that needs the GPUs, and joins the other processes.
    values = read_recipe()
    status = run_preflight(*values)
    if status or values[0].dry_run:
        return status
    script, training, model = parse_recipe()
    from mini_r1.train.run import run  # here, because a dry run takes seconds without it

    return run(script, training, model)


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
