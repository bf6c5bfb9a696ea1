r"""Train a policy with GRPO on the Countdown game, rewarded by rules alone.

Differs from stock TRL (`trl grpo`) in what surrounds its trainer:
* a preflight checks model, prompts, batches, memory and packages before anything is loaded; --dry_run stops there;
* with `vllm_mode: server` the run itself starts vLLM on the GPU that is left, and stops it however the run ends;
* rewards are exact verifiers with a reason per verdict, measured on held-out problems, with samples kept on disk;
* the same command resumes a stopped run, to the weights of an uninterrupted one, and refuses another run's folder.

One process, on a laptop CPU in minutes, or on one 80 GB GPU that trains and generates in turn:

    python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml
    python scripts/run_r1_grpo.py --config receipes/grpo-qwen-2.5-1.5b-one-gpu-countdown.yaml

Four GPUs, three that train under ZeRO-3 and one that generates:

    accelerate launch --num_processes 3 --config_file configs/accelerate_configs/deepspeed_zero3.yaml \
        scripts/run_r1_grpo.py --config receipes/grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml

Any key is also a flag, and a dry run only checks and plans:

    python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --max_steps 20
    python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --dry_run

A recipe with `method: sft` is run too (`scripts/run_sft.py`): the SLURM script calls this one for both.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words

with in_words():
    from mini_r1.recipe.help import show_help_if_asked

    show_help_if_asked(sys.argv)  # at once: what follows takes seconds to import
    from mini_r1.preflight.checks import run_preflight
    from mini_r1.program.problems import UserError
    from mini_r1.program.quiet import quiet_libraries
    from mini_r1.recipe.arguments import Method
    from mini_r1.recipe.read import build_recipe, read_recipe


def main(method: Method | None = None) -> int:
    """Parse, train, and return the exit status.

    Args:
        method: the only one that a recipe may have; any if it is None, so that a cluster needs one script.

    Raises:
        UserError: the recipe is for another method.
    """
    quiet_libraries()
    recipe = read_recipe()
    if method not in (None, recipe[0].method):
        fix = "write method: sft into it, or start it with scripts/run_r1_grpo.py"
        raise UserError(f"the recipe has method: {recipe[0].method}, and this program is for {method}. Fix: {fix}")
    status = run_preflight(*recipe)
    if status or recipe[0].dry_run:
        return status
    recipe = build_recipe(*recipe)  # after the preflight: this needs the GPUs, and joins the other processes
    from mini_r1.train.run import run  # here, because a dry run takes seconds without it

    return run(*recipe)


if __name__ == "__main__":
    with in_words():
        sys.exit(main())
