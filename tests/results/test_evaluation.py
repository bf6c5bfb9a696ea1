"""Evaluation: the texts are what the policy would write, the scores are the rewards', the summary adds up."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen3ForCausalLM

from mini_r1.generation.sampling import Completion, generate_completions
from mini_r1.results.evaluation import EvaluationSettings, evaluate, format_table, render_prompts, score, summarise
from mini_r1.tasks.countdown.puzzles import World, generate_puzzles
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.rewards import equation_reward_func, format_reward_func
from mini_r1.tiny.base import build_model
from mini_r1.tiny.tokenizer import build_tokenizer

TASK = Countdown()
SHORT = EvaluationSettings(samples=4, max_completion_length=16, batch_size=7)
PUZZLES = generate_puzzles(8, seed=0, world=World((3, 4), (1, 99), (1, 100), "+-*/", 200))  # prompts of two lengths


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    """A random policy with large weights, so that what it writes depends on all that it reads."""
    model = build_model(tokenizer, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(8)
        model.model.norm.weight.mul_(8)
    return model


def write(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    temperature: float,
    samples: int = 1,
) -> list[list[Completion]]:
    return generate_completions(
        model,
        tokenizer,
        prompts,
        samples=samples,
        temperature=temperature,
        max_completion_length=16,
        batch_size=7,
        seed=0,
    )


def prompts_of_many_lengths(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    prompts = render_prompts(PUZZLES, TASK, tokenizer, 256)
    return [prompt + " 7 + 1" * index for index, prompt in enumerate(prompts)]


def write_one_by_one(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, stop: int) -> list[int]:
    """Greedy decoding as the textbook has it: one sequence, no padding, no cache, 16 tokens at most."""
    ids = tokenizer(text=prompt)["input_ids"]
    written: list[int] = []
    while len(written) < 16 and stop not in written:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + written]), use_cache=False).logits
        written.append(int(logits[0, -1].argmax()))
    return written


def as_completion(tokenizer: PreTrainedTokenizerBase, written: Sequence[int], stop: int) -> Completion:
    text = tokenizer.decode([token for token in written if token not in tokenizer.all_special_ids])
    return Completion(str(text), len(written), truncated=stop not in written)


# --- generation ----------------------------------------------------------------------------------------------------


def test_a_batch_of_unequal_prompts_writes_what_each_would_alone(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = prompts_of_many_lengths(tokenizer)
    model.eval()
    alone = [write_one_by_one(model, tokenizer, prompt, tokenizer.eos_token_id) for prompt in prompts]
    expected = [[as_completion(tokenizer, written, tokenizer.eos_token_id)] for written in alone]
    assert write(model, tokenizer, prompts, temperature=0) == expected
    assert len(set(map(tuple, alone))) == len(prompts)  # else the comparison would say little


def test_sampling_follows_the_softmax_at_the_stated_temperature(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    model.generation_config = GenerationConfig(do_sample=True, top_k=2, top_p=0.3, repetition_penalty=3.0)
    prompt = "7 + 1 = "
    with torch.no_grad():
        logits = model(**tokenizer(text=prompt, return_tensors="pt")).logits[0, -1]
    (row,) = generate_completions(
        model, tokenizer, [prompt], samples=4000, temperature=0.8, max_completion_length=1, batch_size=4000, seed=0
    )
    probabilities, tokens = (logits / 0.8).softmax(-1).sort(descending=True)
    assert 0.1 < probabilities[0] < 0.9  # a distribution that a wrong temperature would visibly change
    counts = Counter(completion.text for completion in row)
    written = [counts[str(tokenizer.decode([token], skip_special_tokens=True))] for token in tokens.tolist()]
    events = [(written[rank], probabilities[rank].item()) for rank in range(8)]
    events.append((4000 - sum(written[:50]), probabilities[50:].sum().item()))  # what top-k or top-p would cut off
    for count, p in events:
        assert abs(count / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_the_models_generation_config_changes_nothing_but_where_to_stop(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = render_prompts(PUZZLES, TASK, tokenizer, 256)
    plain = {temperature: write(model, tokenizer, prompts, temperature) for temperature in (0.0, 1.0)}
    strange = GenerationConfig(
        do_sample=True, temperature=0.1, top_k=20, top_p=0.1, min_p=0.3, repetition_penalty=1.5, no_repeat_ngram_size=1,
        suppress_tokens=list(range(5, 150)), num_beams=2, min_new_tokens=9, max_new_tokens=3,
    )  # fmt: skip
    model.generation_config = strange
    assert {temperature: write(model, tokenizer, prompts, temperature) for temperature in plain} == plain
    assert model.generation_config is strange


def test_a_completion_ends_at_any_end_token_and_only_there(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = prompts_of_many_lengths(tokenizer)
    model.eval()
    stop = write_one_by_one(model, tokenizer, prompts[0], tokenizer.eos_token_id)[5]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    alone = [write_one_by_one(model, tokenizer, prompt, stop) for prompt in prompts]
    assert {len(written) for written in alone} > {16}  # some reach the limit, some end before it
    assert not any(tokenizer.eos_token_id in written for written in alone)
    expected = [[as_completion(tokenizer, written, stop)] for written in alone]
    assert write(model, tokenizer, prompts, temperature=0) == expected


def test_the_padding_token_does_not_end_a_completion(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    with torch.no_grad():  # a policy that writes nothing but padding
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(128, len(tokenizer))
        model.lm_head.bias.zero_()[tokenizer.pad_token_id] = 50.0
    prompt = render_prompts(PUZZLES, TASK, tokenizer, 256)[0]
    assert write(model, tokenizer, [prompt], temperature=0) == [[Completion("", 16, truncated=True)]]


def test_leaves_model_tokenizer_and_random_state_as_they_were(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = render_prompts(PUZZLES, TASK, tokenizer, 256)
    config, side, state = model.generation_config, tokenizer.padding_side, torch.get_rng_state()
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for training in (True, False):
        model.train(training)
        write(model, tokenizer, prompts, temperature=1)
        assert model.training is training
    assert not any(modes)  # no dropout while it writes
    assert model.generation_config is config and tokenizer.padding_side == side
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    with pytest.raises(ZeroDivisionError):  # also when something goes wrong on the way
        generate_completions(
            model, tokenizer, prompts, samples=1, temperature=1, max_completion_length=2, batch_size=7, seed=0,
            reward=lambda index, text: 1 / 0,
        )  # fmt: skip
    assert model.training and model.generation_config is config and torch.equal(torch.get_rng_state(), state)


def test_an_adapter_is_used_and_its_base_left_alone(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts, config = render_prompts(PUZZLES, TASK, tokenizer, 256), model.generation_config
    before = write(model, tokenizer, prompts, temperature=0)
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    )
    assert write(cast(Any, adapted), tokenizer, prompts, temperature=0) != before
    assert model.generation_config is config


# --- scores --------------------------------------------------------------------------------------------------------

KNOWN = Dataset.from_dict({"nums": [[1, 2, 3], [2, 3, 4, 5]], "target": [6, 7]})
RIGHT = "\n1 + 2 = 3, 3 + 3 = 6 yes\n</think>\n<answer> 1 + 2 + 3 </answer>"
WRONG = "\n1 * 2 = 2, 2 + 3 = 6 yes\n</think>\n<answer> 1 * 2 + 3 </answer>"  # says 2 + 3 = 6
CUT = "\n1 + 2 = 3, 3 * 3 = 9 no\n1 +"
FOREIGN = "</think>\n<answer> 7 </answer>"


def texts(*rows: Sequence[str]) -> list[list[Completion]]:
    return [[Completion(text, tokens=len(text), truncated=text == CUT) for text in row] for row in rows]


def test_scores_are_the_rewards() -> None:
    sampled = texts([RIGHT, WRONG, CUT, FOREIGN], [FOREIGN, RIGHT, CUT, ""])
    for row, completions, puzzle in zip(score(KNOWN, TASK, sampled), sampled, KNOWN, strict=True):
        written = [completion.text for completion in completions]
        targets, nums = [puzzle["target"]] * 4, [puzzle["nums"]] * 4
        assert [one.verdict.reward for one in row] == equation_reward_func(written, targets, nums)
        assert [float(one.in_format) for one in row] == format_reward_func(written, targets)
    with pytest.raises(ValueError):
        score(KNOWN, TASK, sampled[:1])


def test_summary_of_known_texts() -> None:
    settings = EvaluationSettings()
    sampled, greedy = texts([RIGHT, WRONG, CUT, FOREIGN], [FOREIGN, FOREIGN, CUT, FOREIGN]), texts([RIGHT], [FOREIGN])
    summary = summarise(KNOWN, TASK, sampled, greedy, settings)
    values = {name: estimate["value"] for name, estimate in summary["metrics"].items()}
    assert values == {
        "pass@1": 1 / 8,
        "pass@2": 1 / 4,
        "pass@4": 1 / 2,
        "greedy": 1 / 2,
        "mixed": 1 / 2,
        "format": 6 / 8,
        "length": (len(RIGHT) + len(WRONG) + 2 * len(CUT) + 4 * len(FOREIGN)) / 8,
        "truncated": 2 / 8,
        "attempts": (1 + 1 + 1 + 1) / 8,
        "enumerating": 0,
        "arithmetic": 7 / 8,
        "repeats": 0,
        "foreign": 1 / 4,  # CUT, in the second puzzle
        "false_yes": 1 / 2,  # WRONG
        "false_no": 0,
    }
    assert all(part["low"] <= part["value"] <= part["high"] for part in summary["metrics"].values())
    assert summary["reasons"] == {
        "correct": 1 / 8, "no_answer": 2 / 8, "not_allowed": 0, "wrong_numbers": 4 / 8, "wrong_value": 1 / 8,
        "division_by_zero": 0,
    }  # fmt: skip
    assert summary["per_puzzle"]["pass@1"] == [1 / 4, 0]
    assert {name: part["puzzles"] for name, part in summary["groups"]["how many numbers"].items()} == {
        "3 numbers": 1,
        "4 numbers": 1,
    }
    assert summary["groups"]["how many numbers"]["3 numbers"]["metrics"]["pass@1"]["value"] == 1 / 4
    assert summary["samples"][0] == {
        "row": {"nums": [1, 2, 3], "target": 6}, "key": "1,2,3:6", "shown": "1, 2, 3 → 6",
        "groups": {"difficulty": "easy", "how many numbers": "3 numbers"}, "completion": RIGHT, "reason": "correct",
        "solved": True, "in_format": True, "attempts": 1, "tokens": len(RIGHT),
    }  # fmt: skip


def test_a_kind_of_group_that_only_some_problems_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Countdown, "groups", lambda self, row: {"size": "3"} if len(row["nums"]) == 3 else {})
    sampled, greedy = texts([RIGHT, WRONG, CUT, FOREIGN], [FOREIGN] * 4), texts([RIGHT], [FOREIGN])
    summary = summarise(KNOWN, TASK, sampled, greedy, EvaluationSettings())
    assert {
        kind: {name: part["puzzles"] for name, part in found.items()} for kind, found in summary["groups"].items()
    } == {"size": {"3": 1}}


def test_difficulty_is_taken_from_the_row_or_worked_out() -> None:
    nums = [[1, 2, 3], [2, 3, 4], [1, 5, 5, 5], [1, 1], [1] * 7, [1, 2, 3]]
    columns = {"nums": nums, "target": [6, 24, 24, 5, 7, 6], "difficulty": [None] * 5 + ["hard"]}
    sampled, greedy = texts(*[[""] * 4] * 6), texts(*[[""]] * 6)
    summary = summarise(Dataset.from_dict(columns), TASK, sampled, greedy, EvaluationSettings())
    assert {name: part["puzzles"] for name, part in summary["groups"]["difficulty"].items()} == {
        "easy": 1, "medium": 1, "hard": 2, "unsolvable": 1, "unknown": 1,
    }  # fmt: skip
    assert list(summary["groups"]["how many numbers"]) == [f"{n} numbers" for n in (2, 3, 4, 7)]


# --- the whole -----------------------------------------------------------------------------------------------------


def test_same_seed_same_result(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    first, again = (evaluate(model, tokenizer, PUZZLES, TASK, SHORT) | {"seconds": 0} for _ in range(2))
    assert first == again == json.loads(json.dumps(first, allow_nan=False))
    other = evaluate(model, tokenizer, PUZZLES, TASK, replace(SHORT, seed=1))
    assert other["samples"] != first["samples"]
    assert first["puzzles"] == len(PUZZLES) == len(first["samples"])


def test_mixed_are_the_problems_that_some_samples_solve_and_some_do_not() -> None:
    """All solved teaches as little as none solved."""
    three = Dataset.from_dict({"nums": [[1, 2, 3]] * 3, "target": [6] * 3})
    sampled = texts([RIGHT, RIGHT], [RIGHT, WRONG], [WRONG, WRONG])
    settings = EvaluationSettings(samples=2, ks=(1, 2))
    summary = summarise(three, TASK, sampled, texts([RIGHT], [RIGHT], [RIGHT]), settings)
    assert summary["metrics"]["mixed"]["value"] == 1 / 3


def test_temperature_0_is_greedy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = render_prompts(PUZZLES, TASK, tokenizer, 256)
    greedy = write(model, tokenizer, prompts, temperature=0)
    assert write(model, tokenizer, prompts, temperature=0, samples=3) == [row * 3 for row in greedy]
    settings = EvaluationSettings(samples=2, ks=(1, 2), temperature=0, max_completion_length=16)
    metrics = evaluate(model, tokenizer, PUZZLES, TASK, settings)["metrics"]
    assert metrics["pass@1"] == metrics["pass@2"] == metrics["greedy"]


def test_samples_at_the_temperature_and_once_greedily(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def spy(*args: Any, **options: Any) -> list[list[Completion]]:
        calls.append(options)
        return generate_completions(*args, **options)

    monkeypatch.setattr("mini_r1.results.evaluation.generate_completions", spy)
    evaluate(model, tokenizer, PUZZLES, TASK, replace(SHORT, temperature=0.7))
    assert [(call["samples"], call["temperature"]) for call in calls] == [(4, 0.7), (1, 0)]


def test_long_prompts_are_refused_not_left_out(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = [len(tokenizer(text=prompt)["input_ids"]) for prompt in render_prompts(PUZZLES, TASK, tokenizer, 256)]
    settings = EvaluationSettings(max_prompt_length=min(lengths))
    with pytest.raises(ValueError, match=f"{sum(n > min(lengths) for n in lengths)} of 8 prompts are longer"):
        evaluate(model, tokenizer, PUZZLES, TASK, settings)


@pytest.mark.parametrize(
    "bad",
    [{"samples": 0}, {"batch_size": 0}, {"max_completion_length": 0}, {"max_prompt_length": 0}, {"temperature": -1.0},
     {"temperature": float("nan")}, {"samples": 2}, {"ks": (1, 5)}, {"ks": (2,)}, {"ks": (0, 1)}, {"seed": -1}],
)  # fmt: skip
def test_settings_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        EvaluationSettings(**bad)  # type: ignore[arg-type]


def test_table_compares_two_policies() -> None:
    def result(name: str, *rows: Sequence[str]) -> dict[str, Any]:
        front = {
            "model": name,
            "dataset": "known",
            "puzzles": 2,
            "settings": {"samples": 2, "temperature": 1.0, "seed": 0},
        }
        settings = EvaluationSettings(samples=2, ks=(1, 2))
        return front | summarise(KNOWN, TASK, texts(*rows), texts([FOREIGN], [FOREIGN]), settings)

    before, after = result("before", [FOREIGN] * 2, [CUT] * 2), result("after", [RIGHT, WRONG], [CUT] * 2)
    table = format_table([before, after])
    lines = {cells[0]: cells[1:] for line in table.splitlines() if (cells := re.split(r" {2,}", line))}
    assert lines["pass@1"] == ["0.000 [0.000, 0.000]", "0.250 [0.000, 0.500]"]
    assert lines["pass@1, 3 numbers (1)"][-1] == "0.500 [0.500, 0.500]"
    assert "before minus" not in table and "after minus before, problem by problem: +0.250 [+0.000, +0.500]" in table
    assert "minus" not in format_table([before])
    silent = before | {"metrics": {name: one for name, one in before["metrics"].items() if name != "format"}}
    assert re.search(r"^format +n/a +0\.500 \[", format_table([silent, after]), re.MULTILINE)
    other = after | {"per_puzzle": {"key": ["1,2,3:6"], "pass@1": [1.0]}}
    for results in ([], [before, other]):
        with pytest.raises(ValueError, match="same problems"):
            format_table(results)
