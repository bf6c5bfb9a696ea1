"""Recipes: read as written, and a bad one is refused with one message that says what to do."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl import GRPOConfig, ModelConfig

from conftest import ROOT
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.keys import FORMER_KEYS
from mini_r1.recipe.ranges import ATTENTION, RANGES, TRACKERS
from mini_r1.recipe.read import KEYS, load_tokenizer, model_init_kwargs, parse_recipe, read_recipe, read_values
from mini_r1.recipe.text import RecipeError
from mini_r1.recipe.values import check_values
from mini_r1.runs.folder import OutputError, examine_output
from mini_r1.runs.identity import record_run

TINY = str(ROOT / "receipes" / "grpo-tiny-countdown.yaml")
RECIPES = sorted((ROOT / "receipes").glob("*.yaml"))
LEAST = "model_name_or_path: x\nuse_cpu: true\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def refusal(recipe: Path, text: str | bytes, *more: str) -> str:
    """The one line with which a recipe is refused."""
    recipe.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(["--config", str(recipe), *more])
    message = str(caught.value).replace(f"{recipe}", "FILE")
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_the_command_line_overrides_the_recipe() -> None:
    script, training, _ = parse_recipe(["--config", TINY, "--learning_rate", "3e-5", "--eval_puzzles", "7"])
    assert training.learning_rate == 3e-5
    assert script.eval_puzzles == 7


def test_what_the_recipe_says_of_the_model_reaches_the_model() -> None:
    _, _, model = parse_recipe(["--config", TINY, "--model_revision", "abc", "--dtype", "bfloat16"])
    kwargs, note = model_init_kwargs(model)
    assert kwargs == {"revision": "abc", "attn_implementation": "sdpa", "dtype": "bfloat16"}
    assert note is None


# --- what is written, and how ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("learning_rate: 1e-6", 1e-6),  # text, in YAML
        ("learning_rate: '1e-6'", 1e-6),
        ("max_steps: '10'", 10),
        ("max_steps: 1.0e+3", 1000),
        ("save_strategy: no", "no"),  # false, in YAML
        ("logging_first_step: on", True),
        ("output_dir: 2024-01-01", "2024-01-01"),  # a date, in YAML
        ("model_revision: 0123", "0123"),  # 83, in YAML
        ("vllm_gpus: 3", "3"),
        ("vllm_gpus: [2, 3]", ["2", "3"]),
        ("report_to: [tensorboard, wandb]", ["tensorboard", "wandb"]),
        ("lora_target_modules: all-linear", ["all-linear"]),
        ("hub_model_id: null", None),
        ("trackio_static_space_id: false", False),
        ("scale_rewards: false", False),
        ("scale_rewards: batch", "batch"),
        ("gradient_checkpointing_kwargs: {use_reentrant: false}", {"use_reentrant": False}),
        ("<<: {seed: 4}\nlearning_rate: 1", 1),
        ("warmup_steps: 0.03", 0.03),
    ],
)
def test_a_keys_type_decides_and_not_yaml(line: str, value: object, recipe: Path) -> None:
    recipe.write_text(f"{LEAST}{line}\n", encoding="utf-8-sig")  # with a byte order mark, as some editors save
    key = line.splitlines()[-1].partition(":")[0]
    read = read_values([f"--config={recipe}"])[key]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--max-steps", "3"], "max_steps", 3),
        (["--max_steps=3", "--max_steps=4"], "max_steps", 4),
        (["--bf16"], "bf16", True),
        (["--no_use_cpu"], "use_cpu", False),
        (["--no-use-cpu"], "use_cpu", False),
        (["--epsilon_high", "-3e-1"], "epsilon_high", -0.3),
        (["--report_to", "tensorboard", "wandb"], "report_to", ["tensorboard", "wandb"]),
        (["--reward_weights", "0.5", "1"], "reward_weights", [0.5, 1]),
        (["--reward_weights", "[0.5, 1]"], "reward_weights", [0.5, 1]),
        (["--report_to=[tensorboard, wandb]"], "report_to", ["tensorboard", "wandb"]),
        (["--vllm_server_args", "--max-model-len 99 --x=3"], "vllm_server_args", "--max-model-len 99 --x=3"),
        (["--vllm_server_args=--api-key=x"], "vllm_server_args", "--api-key=x"),
        (["--gradient_checkpointing_kwargs", '{"a": true}'], "gradient_checkpointing_kwargs", {"a": True}),
        (["--output_dir", "runs/a b"], "output_dir", "runs/a b"),
    ],
)
def test_every_form_of_an_override(words: list[str], key: str, value: object) -> None:
    assert read_values(["--config", TINY, *words])[key] == value


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_what_yaml_reads(path: Path) -> None:
    """In ours, where nothing is meant to be read in another way."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    read = read_values(["--config", str(path)])
    assert {**read, **{key: [written[key]] for key in written if key == "lora_target_modules"}} == {
        **written,
        **{key: read[key] for key in written if key == "lora_target_modules"},
    }
    script, training, model = read_recipe(["--config", str(path)])
    held = {**vars(script), **vars(training), **vars(model)}
    assert {key: held[key] for key in written} == written
    assert script.given == written
    assert list(script.settings) == list(KEYS)


def test_the_defaults_are_those_of_trl() -> None:
    """A key that no recipe sets is as if TRL's own parser had left it."""
    _, training, _ = read_recipe(["--model_name_or_path", "x"])
    for key in dataclasses.fields(GRPOConfig):
        if key.default_factory is dataclasses.MISSING and key.init:
            assert getattr(training, key.name) == key.default


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "learning_rat (in line 3 of FILE) is not a key: did you mean learning_rate?"),
        ("learning-rate: 1", "did you mean learning_rate?"),
        ("torch_dtype: x\nno_cuda: true", "no_cuda (in line 4 of FILE) is not a key: it is called use_cpu now"),
        ("warmup_ratio: 0.1", "write warmup_steps with the same number"),
        ("env: {HF_TOKEN: x}", "a recipe sets no environment variables: export them in the shell"),
        ("zzz: 1", "--help shows"),
        ("max_steps: 2.5", "max_steps is '2.5'; needed: a whole number. Fix: correct it in line 3 of FILE"),
        ("max_steps: inf", "needed: a whole number"),
        ("max_steps: nan", "needed: a whole number"),
        ("max_steps:", "max_steps has no value in line 3 of FILE; needed: a whole number"),
        ("output_dir:", "output_dir has no value in line 3 of FILE"),
        ("seed: null", "seed is 'null'; needed: a whole number"),
        ("seed: {a: 1}", "seed is {'a': 1}; needed: a whole number"),
        ("output_dir: [a, b]", "output_dir is ['a', 'b']; needed: text"),
        ("output_dir: {a: b}", "needed: text"),
        ("reward_weights: [1, x]", "needed: a list of numbers, or null"),
        ("reward_weights: [1, ]\nlogging_steps: [5]", "logging_steps is ['5']; needed: a number"),
        ("bf16: maybe", "needed: true, false, or null"),
        ("dry_run: maybe", "needed: true or false"),
        ("learning_rate: fast", "learning_rate is 'fast'; needed: a number"),
        ("dtype: bf16", "did you mean bfloat16?"),
        ("optim: adamw_8bits", "did you mean adamw_8bit?"),
        ("eval_strategy: off", "needed: one of no, steps, epoch"),
        ("seed: 1: 2", "FILE is not valid YAML: line 3, column 8: mapping values are not allowed here"),
        ("\tseed: 1", "line 3, column 1: found character '\\t'"),
        ("seed: [", "FILE is not valid YAML: line 4, column 1"),
        ("a: &a [*a]", "nested too deeply"),
        ("seed: *nothing", "found undefined alias"),
        ("generation_kwargs: {a: !!python/object:os.system x}", "FILE is not valid YAML: line 3"),
        ("seed: 1\nseed: 2", "seed occurs twice in FILE, in lines 3 and 4: keep one"),
        ("? [a]\n: b", "a key is one word"),
        ("load_in_4bit: true\nload_in_8bit: true", "8 bit and 4 bit"),
        ("resume_from_checkpoint: true\noutput_dir: /nowhere", "/nowhere has no complete checkpoint"),
    ],
)
def test_a_bad_line_is_refused_in_one_line(text: str, message: str, recipe: Path) -> None:
    assert message in refusal(recipe, f"{LEAST}{text}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "FILE is empty"),
        (b"# a comment\n", "FILE is empty"),
        (b"- a\n- b\n", "FILE is not a recipe"),
        (b"hello", "FILE is not a recipe"),
        ("seed: \u00e9".encode("latin-1"), "FILE is not UTF-8 text (byte 6)"),
        ("seed: 1".encode("utf-16"), "FILE is not UTF-8 text"),
        (b"seed: 1\nx: \0", "FILE is not valid YAML: line 2 has a character"),
        (b"a: b\n---\nc: d\n", "FILE is not valid YAML: line 2"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(text: bytes, message: str, recipe: Path) -> None:
    assert message in refusal(recipe, text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config"], "--config needs the path"),
        (["--config="], "--config needs the path"),
        (["--config", "receipes/none.yaml"], "there is no recipe 'receipes/none.yaml'"),
        (["--config", "receipes/grpo-tiny-countdwn.yaml"], "did you mean receipes/grpo-tiny-countdown.yaml?"),
        (["--config", "receipes"], "--config receipes is a folder"),
        (["--config", TINY, "--config", TINY], "--config takes one recipe, but 2 are given"),
        ([TINY], f"belongs to no key: write --config {TINY}"),
        (["--use_cpu", "true", "--bf16", "false"], "model_name_or_path is not set"),
        (["--config", TINY, "--learning_rat", "1"], "did you mean learning_rate?"),
        (["--config", TINY, "--learning_r=1"], "did you mean learning_rate?"),
        (["--config", TINY, "--max_s", "1"], "did you mean max_samples or max_steps?"),
        (["--config", TINY, "--out", "x"], "did you mean output_dir?"),
        (["--config", TINY, "--vllm_device", "cuda:3"], "it is called vllm_gpus now"),
        (["--config", TINY, "-seed", "1"], "-seed has one dash: write --seed"),
        (["--config", TINY, "--seed"], "seed has no value on the command line"),
        (["--config", TINY, "--seed", "1", "2"], "seed is '1 2'; needed: a whole number"),
        (["--config", TINY, "--no_seed"], "no_seed (on the command line) is not a key"),
        (["--config", TINY, "--"], "'--' names no key"),
        (["--config", TINY, "--resume_from_checkpoint", "nowhere"], "resume_from_checkpoint='nowhere' is not a folder"),
    ],
)
def test_a_bad_command_line_is_refused_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError) as caught:
        read_recipe(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_no_key_is_taken_unfinished(key: str) -> None:
    """Whatever it is short for."""
    for short in (key[:-1], key + "s"):
        if short not in KEYS:
            with pytest.raises(RecipeError, match="is not a key"):
                read_values([f"--{short}", "1"])


def test_former_keys_are_unknown_and_their_successors_are_not() -> None:
    assert not set(FORMER_KEYS) & set(KEYS)
    for advice in FORMER_KEYS.values():
        for lead in ("it is called ", "the key is "):
            if lead in advice:
                assert advice.split(lead)[1].split(" ")[0].strip(",;:") in KEYS


def test_every_mistake_is_told_at_once(recipe: Path) -> None:
    message = refusal(recipe, f"{LEAST}max_step: 1\nlearning_rat: 1\n")
    assert "did you mean max_steps?" in message
    assert "did you mean learning_rate?" in message


# --- resume ----------------------------------------------------------------------------------------------------------


def test_resume_true_is_the_newest_checkpoint_and_false_a_start_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["--config", TINY, "--output_dir", str(tmp_path), "--resume_from_checkpoint"]
    assert read_recipe([*base, "false"])[1].resume_from_checkpoint is None
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(RecipeError, match="has no complete checkpoint"):  # an empty folder is none
        read_recipe([*base, "True"])
    with pytest.raises(RecipeError, match="has checkpoint-5"):
        read_recipe([*base, "false"])
    named = read_recipe([*base, str(tmp_path / "checkpoint-5")])
    assert named[1].resume_from_checkpoint == str(tmp_path / "checkpoint-5")


# --- ranges ----------------------------------------------------------------------------------------------------------

BAD = {
    "system_prompt": (" ",),
    "max_steps": ("0", "-2"),
    "test_size": ("0", "1", "nan", "-0.1"),
    "learning_rate": ("-1e-6", "nan", "inf"),
    "temperature": ("0", "-1", "nan", "inf"),
    "seed": ("-1", str(2**32)),
    "lora_dropout": ("1", "-0.1", "nan"),
    "vllm_server_base_url": ("node7:8000",),
    "vllm_server_port": ("0", "65536"),
    "reward_weights": ("nan", "inf"),
    "lr_scheduler_kwargs": ("x",),
    "num_generations": ("1", "0"),
    "warmup_steps": ("-1", "nan"),
    "samples_per_step": ("-1",),
    "eval_delay": ("-1",),
    "save_steps": ("0", "-1", "2.5"),
    "gradient_accumulation_steps": ("0", "-4"),
    "vllm_gpu_memory_utilization": ("0", "1.1", "nan"),
    "top_k": ("-1",),
    "local_rank": ("-2",),
    "model_init_kwargs": ("{a: b}",),
    "lora_target_modules": ("", "[]"),
    "report_to": ("nosuch", "[none, wandb]"),
    "pad_to_multiple_of": ("0", "x"),
}


def bad_values(key: str) -> tuple[str, ...]:
    """Values of a key's type that no run can use."""
    if key in BAD:
        return BAD[key]
    kinds = KEYS[key].kinds
    if RANGES[key].names:
        return ("nosuch",)
    return (
        ("x",)
        if any(kind is dict for kind in kinds)
        else ("-1", "nan")
        if float in kinds
        else (("-1",) if int in kinds else ("",))
    )


@pytest.mark.parametrize("key", RANGES)
def test_each_range_refuses_what_is_out_of_it(key: str) -> None:
    assert key in KEYS
    for value in bad_values(key):
        words = ["--config", TINY, f"--{key}={value}"]
        try:
            (problem, *_) = check_values(*read_recipe(words))
        except RecipeError as error:  # the model's name is needed for anything
            assert key in str(error)
            continue
        assert problem.name == key
        assert problem.allowed
        assert problem.fix


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipes_values_are_in_range_and_each_key_is_bounded(path: Path) -> None:
    assert check_values(*read_recipe(["--config", str(path)])) == []
    bounded = {key for key in read_values(["--config", str(path)]) if key in RANGES or _few_values(key)}
    assert bounded == set(read_values(["--config", str(path)]))


def test_every_key_of_our_own_is_bounded() -> None:
    own = [key.name for key in dataclasses.fields(ScriptArguments) if key.init]
    assert [key for key in own if key not in RANGES and not _few_values(key)] == []


def _few_values(key: str) -> bool:
    """Whether the type alone says what is allowed: a boolean, or some names."""
    return not {str, int, float, dict, list} & {getattr(kind, "__origin__", kind) for kind in KEYS[key].kinds}


def test_every_default_of_trl_is_in_its_range() -> None:
    for key, allowed in RANGES.items():
        default = KEYS[key].default
        assert default is None or allowed.holds(default), key


def test_every_problem_is_reported_at_once() -> None:
    bad = ["--learning_rate", "nan", "--seed", "-1", "--temperature", "0", "--fp16", "true", "--bf16", "true"]
    problems = check_values(*read_recipe(["--config", TINY, *bad]))
    assert [problem.name for problem in problems] == ["learning_rate", "seed", "temperature", "fp16"]
    with pytest.raises(RecipeError, match="seed is -1"):
        parse_recipe(["--config", TINY, *bad])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--loss_type", "luspo"], "importance_sampling_level"),
        (["--loss_type", "vespo", "--use_vllm", "true"], "vllm_importance_sampling_mode"),
        (["--sync_ref_model", "true"], "sync_ref_model"),
        (["--fp16_full_eval", "true", "--bf16_full_eval", "true"], "fp16_full_eval"),
        (["--loss_type", "dapp"], "loss_type"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    words: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (problem,) = check_values(*read_recipe(["--config", TINY, *words]))
    assert problem.name == name


def test_every_number_is_bounded() -> None:
    """Those that no recipe of ours uses, too: nan and minus one end in a library's traceback, or in nothing."""
    numbers = [key.name for key in KEYS.values() if {int, float} & set(key.kinds)]
    assert [name for name in numbers if name not in RANGES] == []


@pytest.mark.parametrize("folder", ["assets/tiny-countdown-base", TINY, f"{TINY}/x/y", "/proc/x", "/sys/x/y"])
def test_an_output_folder_that_no_run_can_write_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    script, training, model = read_recipe(["--config", TINY, "--output_dir", folder])
    with pytest.raises(OutputError, match="output_dir is"):
        examine_output(script, training, model, record_run(script), processes=1)


def test_looking_at_the_output_folder_leaves_nothing(tmp_path: Path) -> None:
    script, training, model = read_recipe(["--config", TINY, "--output_dir", str(tmp_path / "a" / "b")])
    examine_output(script, training, model, record_run(script), processes=1)
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_stack_knows_are_those_of_the_table() -> None:
    assert set(TRACKERS) == set(INTEGRATION_TO_CALLBACK)
    known = {name.rpartition("|")[2] for name in ALL_ATTENTION_FUNCTIONS.valid_keys()}
    assert set(ATTENTION) == {"eager", *known}
    assert ModelConfig().lora_task_type in RANGES["lora_task_type"].names


def test_what_is_kept_of_a_recipe_has_no_token_in_it() -> None:
    script, _, _ = read_recipe(["--config", TINY, "--hub_token", "hf_secret"])
    assert "hf_secret" not in str(script.given)
    assert "max_steps" in script.given


def test_the_shipped_base_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless that folder has one of its own."""
    config = str((ROOT / TINY).resolve())
    monkeypatch.chdir(tmp_path)
    assert Path(str(read_recipe(["--config", config])[2].model_name_or_path)).is_absolute()
    (tmp_path / "assets" / "tiny-countdown-base").mkdir(parents=True)
    assert read_recipe(["--config", config])[2].model_name_or_path == "assets/tiny-countdown-base"


def test_a_tokenizer_without_padding_pads_with_its_end_token_and_is_of_the_models_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets" / "tiny-countdown-base")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    load, asked = AutoTokenizer.from_pretrained, []

    def from_pretrained(name: str, **more: object) -> object:
        asked.append(more["revision"])
        return load(name)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    words = ["--config", str(ROOT / TINY), "--tokenizer_name_or_path", str(tmp_path), "--model_revision", "v1"]
    loaded = load_tokenizer(*read_recipe(words))
    assert loaded.pad_token == loaded.eos_token
    assert asked == ["v1"]
