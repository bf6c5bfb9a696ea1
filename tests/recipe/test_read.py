"""The recipe's keys of the prompt, through the programs: training, resuming, evaluation and ask write the same text."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from conftest import ROOT, TINY_RECIPE, Train, as_program
from helpers.chat_tokenizers import CHATML, FAMILIES, GEMMA, LLAMA
from helpers.countdown_prompts import render_prompt
from mini_r1.generation.sampling import Completion
from mini_r1.preflight.checks import Findings, check_run
from mini_r1.program.problems import UserError
from mini_r1.prompts.build import PromptWriter
from mini_r1.prompts.settings import PromptSettings
from mini_r1.recipe.read import load_tokenizer, parse_recipe, read_recipe
from mini_r1.results.evaluation import render_prompts
from mini_r1.runs.holdout import DataSettings, hold_out
from mini_r1.runs.identity import record_run
from mini_r1.tasks.task import OPENING, SYSTEM_PROMPT
from mini_r1.train.data import choose_prompt_settings, prepare_datasets, record_prompt

EVALUATE = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))
ASK = runpy.run_path(str(ROOT / "scripts" / "ask.py"))
FAST = (
    *("--eval_strategy", "no", "--eval_on_start", "false", "--max_samples", "60", "--max_prompt_length", "2000"),
    *("--max_completion_length", "8", "--max_steps", "1", "--save_steps", "1", "--report_to", "none"),
)


@pytest.fixture
def base_model(byte_model: Path, tmp_path: Path) -> Path:
    """A model that reads any text and has no chat template."""
    folder = tmp_path / "model"
    shutil.copytree(byte_model, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts in the data that runs of this test have handed to TRL's trainer."""
    seen: list[str] = []

    def remember(*given: Any, **named: Any) -> tuple[Dataset, Dataset]:
        sides = prepare_datasets(*given, **named)
        seen.extend(prompt for side in sides for prompt in side["prompt"])
        return sides

    monkeypatch.setattr("mini_r1.train.trainer.prepare_datasets", remember)
    return seen


def evaluated_with(*words: str) -> list[str]:
    """The prompts that evaluate.py gives to the last of its models."""
    plan = EVALUATE["prepare"](EVALUATE["build_parser"]().parse_args(list(words)))
    return render_prompts(plan.puzzles, plan.task, plan.tokenizers[-1], 2000, plan.prompts[-1])


def asked_with(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The prompt that ask.py gives to its model for 1, 2, 3 -> 6."""
    seen: list[str] = []

    def remember(model: Any, tokenizer: Any, prompts: list[str], **how: Any) -> list[list[Completion]]:
        seen.extend(prompts)
        return [[Completion("</think>", 1, False)]]

    monkeypatch.setitem(ASK["main"].__globals__, "generate_completions", remember)
    assert ASK["main"]([*words, "--numbers", "1", "2", "3", "--target", "6"]) == 0
    return seen[0]


def frame(prompt: str) -> tuple[str, str]:
    """A prompt without its numbers."""
    return prompt.partition("[")[0], prompt.rpartition(", create")[2].partition("equals ")[2].partition(". ")[2]


OWN = LLAMA.replace("bos_token", "''").replace("<|eot_id|>", "<|im_end|>")
CASES = {
    "base": (["--prompt_style", "base"], (f"{OPENING}\n\nUser: Using", "\n\nAssistant: Let me")),
    "own words": (
        ["--prompt_style", "base", "--system_prompt", "Puzzles."],
        ("Puzzles.\n\nUser: Using", "\n\nAssistant: Let me"),
    ),
    "own template": (
        ["--chat_template", "own.jinja", "--system_prompt", ""],
        ("<|start_header_id|>user<|end_header_id|>\n\nUsing", "assistant<|end_header_id|>\n\nLet me"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_training_evaluation_and_ask_write_the_same(
    name: str,
    base_model: Path,
    tmp_path: Path,
    train: Train,
    trained_on: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Elsewhere, too: the run's folder has all that it takes."""
    monkeypatch.chdir(tmp_path)
    keys, (before, after) = CASES[name]
    own = Path("own.jinja")
    own.write_text(OWN, encoding="utf-8")
    assert train(tmp_path / "run", "--model_name_or_path", str(base_model), *FAST, *keys) == 0
    own.unlink()
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    prompt = trained_on[0]
    assert prompt.startswith(before)
    assert after in prompt
    assert prompt.endswith("Let me solve this step by step.\n<think>")
    small = ("--puzzles", "2", "--max-prompt-length", "2000")
    others = evaluated_with(str(moved), *small)
    assert set(others) <= set(trained_on)
    assert evaluated_with(str(moved), str(base_model), *small) == others  # the base before it became this run
    assert frame(asked_with(monkeypatch, str(moved))) == frame(prompt)
    assert frame(asked_with(monkeypatch, str(moved / "checkpoint-1"))) == frame(prompt)
    saved = AutoTokenizer.from_pretrained(moved).chat_template
    assert bool(saved) == (name == "own template")
    for program, more in ((EVALUATE, small), (ASK, ("--numbers", "1", "2", "--target", "3"))):
        assert as_program(program["main"])([str(moved), *more, "--prompt-style", "base"]) == 2
        assert "--prompt-style is given, and the run's record says" in capsys.readouterr().err


# --- the families of models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(), ("--chat_template_kwargs", '{"enable_thinking": false}')])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_prompted_the_same_in_training_evaluation_and_ask(
    name: str,
    keys: tuple[str, ...],
    byte_model: Path,
    tmp_path: Path,
    small_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing between the assistant's header and the prefill, and one BOS token; told to think or not to think."""
    family, folder = FAMILIES[name], tmp_path / "run"
    shutil.copytree(byte_model, folder)
    family.tokenizer().save_pretrained(folder)
    script, training, model = parse_recipe([*small_arguments, "--model_name_or_path", str(folder), *FAST, *keys])
    tokenizer, sides = load_tokenizer(script, training, model), hold_out(DataSettings.of(script))
    settings = choose_prompt_settings(script, training, None)
    trained = [prompt for side in prepare_datasets(script, tokenizer, sides, settings) for prompt in side["prompt"]]
    header = "/nothink<|assistant|>\n" if name == "GLM" and keys else family.header
    for prompt in trained:
        assert prompt.endswith(f"<answer> (1 + 2) / 3 = 1 </answer>.{header}Let me solve this step by step.\n<think>")
        assert SYSTEM_PROMPT in prompt
        ids = tokenizer(text=prompt)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id or not family.bos
        assert ids.count(tokenizer.bos_token_id) == bool(family.bos)
    record = record_run(script, sides, record_prompt(PromptWriter(tokenizer, sides.task, settings), None))
    (folder / "run.json").write_text(json.dumps(record.as_json()), encoding="utf-8")
    assert set(evaluated_with(str(folder), "--puzzles", "2", "--max-prompt-length", "2000")) <= set(trained)
    assert frame(asked_with(monkeypatch, str(folder))) == frame(trained[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_each_familys_base_model_is_prompted_with_plain_text(name: str) -> None:
    tokenizer = FAMILIES[name]._replace(template=None).tokenizer()
    prompt = render_prompt(tokenizer, [1, 2, 3], 6, PromptSettings.of(style="base"))
    ids = tokenizer(text=prompt)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == bool(tokenizer.bos_token)
    assert str(tokenizer.decode(ids)).removeprefix(tokenizer.bos_token or "").startswith(OPENING)
    assert prompt.endswith("\n\nAssistant: Let me solve this step by step.\n<think>")


def test_the_dry_run_says_where_the_system_text_is_without_a_system_role(base_model: Path) -> None:
    said = "the chat template has no system role: the system text stands in front of the user's"
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    for template, notes in ((GEMMA, 1), (CHATML, 0)):
        tokenizer.chat_template = template.replace("bos_token", "''").replace("<end_of_turn>", "<|im_end|>")
        tokenizer.save_pretrained(base_model)
        report = check(base_model)
        assert report.problems == []
        assert report.notes.count(said) == notes


# --- resuming ------------------------------------------------------------------------------------------------------


def test_a_changed_key_of_the_prompt_is_refused_on_resume(base_model: Path, tmp_path: Path, train: Train) -> None:
    run, own = tmp_path / "run", tmp_path / "own.jinja"
    own.write_text(OWN, encoding="utf-8")
    usual = ["--model_name_or_path", str(base_model), *FAST]
    assert train(run, *usual, "--chat_template", str(own)) == 0
    more = [*usual, "--max_steps", "2"]
    for keys, words in (
        (["--prompt_style", "base"], 'prompt_style: "chat" -> "base"'),
        (["--chat_template", str(own), "--system_prompt", ""], 'system_prompt: null -> ""'),
        ([], "chat_template: "),
    ):
        with pytest.raises(UserError, match=words):
            train(run, *more, *keys)
    before = own.read_text(encoding="utf-8")
    own.write_text("Hello! " + before, encoding="utf-8")
    with pytest.raises(UserError, match="the prompt is a different one now"):
        train(run, *more, "--chat_template", str(own))
    own.write_text(before, encoding="utf-8")
    assert train(run, *more, "--chat_template", str(own)) == 0


# --- the preflight -------------------------------------------------------------------------------------------------


def check(model: Path, *keys: str) -> Findings:
    """The preflight of the tiny recipe with another model."""
    words = ["--config", str(TINY_RECIPE), "--model_name_or_path", str(model), "--max_prompt_length", "2000"]
    return check_run(*read_recipe([*words, *keys]), {})


def test_a_base_model_is_ready_with_the_style_for_it(base_model: Path) -> None:
    (problem,) = check(base_model).problems
    assert "prompt_style: base" in problem.fix
    assert "chat_template" in problem.fix
    report = check(base_model, "--prompt_style", "base")
    assert report.problems == []
    assert "plain text, ends in 'Let me solve" in report.table()
    assert "ends in '<|im_end|>'" in report.table()


def test_a_base_model_with_a_template_that_it_has_not_learned_is_sent_to_the_style_for_it(base_model: Path) -> None:
    """Qwen2.5's and Qwen3's bases: they end with a token that the template does not write."""
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = LLAMA.replace("bos_token", "''")
    tokenizer.save_pretrained(base_model)
    (base_model / "generation_config.json").write_text('{"eos_token_id": 256}', encoding="utf-8")
    (problem,) = check(base_model).problems
    assert problem.fix.startswith("set prompt_style: base")
    report = check(base_model, "--prompt_style", "base")
    assert report.problems == []
    assert "ends in '<|endoftext|>'" in report.table()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["--chat_template", "nowhere.jinja"], "nowhere.jinja"),
        (["--prompt_style", "base", "--chat_template_kwargs", '{"a": 1}'], "leave chat_template_kwargs out"),
    ],
)
def test_keys_that_can_not_be_used_are_found_by_the_preflight(keys: list[str], words: str, base_model: Path) -> None:
    (problem,) = check(base_model, *keys).problems
    assert words in str(problem)


# --- models without a run ------------------------------------------------------------------------------------------


def test_a_model_without_a_run_is_prompted_as_the_options_say(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    style = ("--prompt-style", "base", "--system-prompt", "Puzzles.")
    text = asked_with(monkeypatch, str(base_model), *style)
    assert text.startswith("Puzzles.\n\nUser: ")
    small = ("--puzzles", "2", "--max-samples", "40", "--max-prompt-length", "2000")
    assert {frame(one) for one in evaluated_with(str(base_model), *small, *style)} == {frame(text)}
