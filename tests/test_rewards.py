"""The contract of the two rewards, row by row, one property a test; then fuzzing, bounds and what TRL gets to see."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from fractions import Fraction
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_r1.rewards import (
    END_OF_TURN,
    Reason,
    equation_reward_func,
    format_reward_func,
    judge_equation,
    judge_format,
    last_answer,
)

NUMS, TARGET = [19, 36, 55, 7], 65
RIGHT = "55 + 36 - 7 - 19"


def answer(text: str) -> str:
    return f"let me see</think>\n<answer>{text}</answer>"


def reason(text: str, target: int = TARGET, nums: list[int] = NUMS) -> Reason:
    """The reason for the answer `text`; checks on the way that reward and reason agree."""
    verdict = judge_equation(answer(text), target, nums)
    assert verdict.reward == float(verdict.reason is Reason.CORRECT)
    return verdict.reason


# --- the five published examples, in texts of our own ----------------------------------------------------------------

QUESTION = "Using the numbers [19, 36, 55, 7], create an equation that equals 65."
PUBLISHED = [
    f"The two big ones give 91. That is 26 too many, and 7 and 19 make 26.</think>\n<answer> {RIGHT} </answer>",
    f" ... </think>\n<answer> {RIGHT} </answer>",
    f"{QUESTION} {QUESTION}",
    "With [104, 183] for 79: I take the smaller from the larger.\n</think>\n<think>183 - 104 leaves 79.</think>\n"
    "<think>79 is what was asked for.</think>\n<answer> 183 - 104 = 79 </answer>",
    " ... </think>\n<answer> 55 + 36 - 7 - 18 </answer>",
]


def test_published_examples_keep_their_format_scores() -> None:
    assert format_reward_func(PUBLISHED, target=[TARGET] * 5, nums=[NUMS] * 5) == [1, 1, 0, 0, 1]


def test_published_examples_keep_their_equation_scores() -> None:
    assert equation_reward_func(PUBLISHED, target=[TARGET] * 5, nums=[NUMS] * 5) == [1, 1, 0, 0, 0]


# --- the equation, row by row ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [RIGHT, "(55+36)-(7+19)", "36 - 19 + 55 - 7", "((55 + 36) - 7) - 19"])
def test_every_number_once_and_the_target_reached(text: str) -> None:
    assert reason(text) is Reason.CORRECT


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("55 + 36 - 7", id="unused"),
        pytest.param("55 + 36 - 7 - 19 + 7 - 7", id="used twice"),
        pytest.param("55 + 36 - 7 - 18", id="foreign"),
        pytest.param("65", id="the target itself"),
        pytest.param("5536 - 7 - 19", id="joined"),
        pytest.param("5 * 5 + 36 - 7 + 19", id="split"),
    ],
)
def test_wrong_numbers(text: str) -> None:
    assert reason(text) is Reason.WRONG_NUMBERS


def test_a_number_given_twice_is_used_twice() -> None:
    assert reason("5 + 5", target=10, nums=[5, 5]) is Reason.CORRECT
    assert reason("5 + 3 + 3", target=11, nums=[5, 5, 3]) is Reason.WRONG_NUMBERS


def test_wrong_value() -> None:
    assert reason("55 + 36 + 7 - 19") is Reason.WRONG_VALUE


@pytest.mark.parametrize(
    ("text", "target", "nums", "expected"),
    [
        ("1 / 3 * 3", 1, [1, 3, 3], Reason.CORRECT),
        ("8 / (3 - 8 / 3)", 24, [3, 3, 8, 8], Reason.CORRECT),
        ("9999999 / 10000000", 1, [9999999, 10000000], Reason.WRONG_VALUE),
        ("7 / 2", 3, [2, 7], Reason.WRONG_VALUE),
    ],
)
def test_arithmetic_is_exact(text: str, target: int, nums: list[int], expected: Reason) -> None:
    assert reason(text, target, nums) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 + 2) / 3 = 1", Reason.CORRECT),
        ("(1 + 2) / 3=1\n", Reason.CORRECT),
        ("(1 + 2) / 3 = 2", Reason.WRONG_VALUE),
        ("1 + 2 + 3 = 1", Reason.WRONG_VALUE),
        ("1 + 2 = 1", Reason.WRONG_NUMBERS),
        ("(1 + 2) / 3 = 3 / 3", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 = (1)", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 = 1.0", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 = 01", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 = 1 = 1", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 == 1", Reason.NOT_ALLOWED),
        ("(1 + 2) / 3 =", Reason.NOT_ALLOWED),
        ("= 1", Reason.NOT_ALLOWED),
        ("1 = (1 + 2) / 3", Reason.NOT_ALLOWED),
    ],
)
def test_right_side_must_be_the_targets_literal(text: str, expected: Reason) -> None:
    assert reason(text, target=1, nums=[1, 2, 3]) is expected


@pytest.mark.parametrize("text", ["6 × 4 ÷ 3 − 1", "6 · 4 / 3 - 1"])
def test_typographic_operators(text: str) -> None:
    assert reason(text, target=7, nums=[1, 3, 4, 6]) is Reason.CORRECT


def test_unary_minus() -> None:
    assert reason("-5 + 10", target=5, nums=[5, 10]) is Reason.CORRECT


@pytest.mark.parametrize(
    ("text", "target", "nums"),
    [
        ("2**3", 8, [2, 3]),
        ("1.5*2", 3, [1, 5, 2]),
        ("7 // 2", 3, [2, 7]),
        ("7 % 4", 3, [4, 7]),
        ("3!", 6, [3]),
        ("sqrt(16)", 4, [16]),
        ("x + 1", 2, [1]),
        ("05 + 1", 6, [1, 5]),
        ("5(3)", 15, [3, 5]),
        ("1_0 + 1", 11, [1, 10]),
        ("٣ + 1", 4, [1, 3]),
        ("+5 + 1", 6, [1, 5]),
        ("5 3", 53, [53]),
        ("the answer is 5", 5, [5]),
    ],
)
def test_not_allowed(text: str, target: int, nums: list[int]) -> None:
    assert reason(text, target, nums) is Reason.NOT_ALLOWED


def test_division_by_zero() -> None:
    assert reason("3 / (5 - 5)", target=3, nums=[3, 5, 5]) is Reason.DIVISION_BY_ZERO


@pytest.mark.parametrize(
    "completion",
    [
        "",
        f"thinking</think>\n{RIGHT}",
        answer(""),
        answer(" \n "),
        f"thinking</think>\n<answer>{RIGHT}",
        f"thinking</think>\n{RIGHT}</answer>",
        f"</answer>{RIGHT}<answer>",
        f"thinking</think>\n<Answer>{RIGHT}</Answer>",
    ],
)
def test_no_answer(completion: str) -> None:
    verdict = judge_equation(completion, TARGET, NUMS)
    assert (verdict.reward, verdict.reason, verdict.answer) == (0.0, Reason.NO_ANSWER, None)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("I will fill in <answer> tags.</think><answer>2</answer>", "2"),
        ("<answer>1<answer>2</answer>", "2"),
        ("<answer>2</answer></answer>", "2"),
        ("<answer>1</answer> or <answer>2", None),
        ("<answer>1</answer> or <answer></answer>", None),
        ("<answer>1</answer> or 2</answer>", "1"),
    ],
)
def test_last_answer_counts(completion: str, expected: str | None) -> None:
    assert last_answer(completion) == expected


def test_only_the_last_answer_is_scored() -> None:
    assert judge_equation(answer(RIGHT) + answer("1"), TARGET, NUMS).reward == 0
    assert judge_equation(answer("1") + answer(RIGHT), TARGET, NUMS).reward == 1


def test_whitespace_inside_the_answer_is_ignored() -> None:
    assert reason("\n\n 55\n+ 36\t- 7 -\r\n19 " + "\n" * 5_000) is Reason.CORRECT
    assert reason("55 +" + " " * 5_000 + "36 - 7 - 19") is Reason.CORRECT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2 ** 0 / 0", Reason.NOT_ALLOWED, id="not_allowed first"),
        pytest.param("1 / 0", Reason.WRONG_NUMBERS, id="then wrong_numbers"),
        pytest.param("3 / (5 - 5) = 4", Reason.DIVISION_BY_ZERO, id="then division_by_zero"),
        pytest.param("3 + 5 + 5", Reason.WRONG_VALUE, id="then wrong_value"),
    ],
)
def test_order_of_reasons(text: str, expected: Reason) -> None:
    assert reason(text, target=3, nums=[3, 5, 5]) is expected


@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint8, np.float32])
def test_numbers_may_come_in_any_integral_type(kind: type) -> None:
    nums = [kind(number) for number in NUMS]
    assert equation_reward_func([answer(RIGHT)], [kind(TARGET)], [nums]) == [1.0]
    columns: dict[str, Any] = {"target": np.array([kind(TARGET)]), "nums": [np.array(nums)]}
    assert equation_reward_func([answer(RIGHT)], **columns) == [1.0]
    assert equation_reward_func([answer(f"{RIGHT} = 65")], [kind(TARGET)], [nums]) == [1.0]


@pytest.mark.parametrize("target", [64.5, float("nan")])
def test_a_target_that_is_no_integer_is_an_error_of_the_dataset(target: Any) -> None:
    with pytest.raises(ValueError, match="integer"):
        judge_equation(answer(RIGHT), target, NUMS)


@settings(deadline=None)
@given(st.lists(st.integers(1, 99), min_size=2, max_size=4), st.data())
def test_agrees_with_exact_left_to_right_arithmetic(nums: list[int], data: st.DataObject) -> None:
    """An oracle of its own: fold the numbers left to right, write the fold down with full parentheses."""
    order = data.draw(st.permutations(nums))
    value, text = Fraction(order[0]), str(order[0])
    for number in order[1:]:
        sign = data.draw(st.sampled_from("+-*/"))
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
        text = f"({text}) {sign} {number}"
    whole = value.denominator == 1
    target = int(value) if whole else int(value) + 1
    assert reason(text, target, nums) is (Reason.CORRECT if whole else Reason.WRONG_VALUE)
    assert reason(text, target + 1, nums) is Reason.WRONG_VALUE
    assert reason(text, target, [*nums, 1]) is Reason.WRONG_NUMBERS


# --- the format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "completion",
    [
        "so</think>\n<answer>1</answer>",
        "so</think><answer>1</answer>",
        "so</think> \n\n <answer>1</answer>",
        "so</think> <answer>1</answer>",
        "so</think>\n<answer>1</answer>\n\n",
        "</think>\n<answer></answer>",
        "a < b and <b>bold</b> and <thinking></think>\n<answer>line\nline < line</answer>",
        *(f"so</think>\n<answer>1</answer>{ending}" for ending in END_OF_TURN),
        f"so</think>\n<answer>1</answer> {END_OF_TURN[0]}\n",
    ],
)
def test_format_accepted(completion: str) -> None:
    assert judge_format(completion)


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param("", id="empty"),
        pytest.param("so", id="no tags"),
        pytest.param("<answer>1</answer>", id="thinking never ends"),
        pytest.param("so</think>\n1", id="no answer block"),
        pytest.param("so</think>\n<answer>1", id="answer left open"),
        pytest.param("so</think>\n1</answer>", id="answer never opened"),
        pytest.param("<think>so</think>\n<answer>1</answer>", id="the prompt's <think> repeated"),
        pytest.param("so <think>more</think></think>\n<answer>1</answer>", id="nested thinking"),
        pytest.param("so</think></think>\n<answer>1</answer>", id="thinking ends twice"),
        pytest.param("so</think>\n<think>more</think>\n<answer>1</answer>", id="two thinking blocks"),
        pytest.param("so</think>\n<answer>1</answer>\n<answer>2</answer>", id="two answers"),
        pytest.param("so</think>\n<answer><answer>1</answer></answer>", id="nested answers"),
        pytest.param("so <answer>0</answer></think>\n<answer>1</answer>", id="answer while thinking"),
        pytest.param("so I fill in <answer></think>\n<answer>1</answer>", id="answer tag while thinking"),
        pytest.param("so</think>\n<answer><think>1</think></answer>", id="thinking inside the answer"),
        pytest.param("so</think>\ntherefore <answer>1</answer>", id="words between the blocks"),
        pytest.param("so</think>\n<answer>1</answer> done", id="words after the answer"),
        pytest.param("so</think>\n<answer>1</answer><|im_end|>done", id="words after the end of turn"),
        pytest.param("so</think>\n<answer>1</answer><|im_end|><|im_end|>", id="end of turn twice"),
        pytest.param("so\n<answer>1</answer>\n</think>", id="wrong order"),
        pytest.param("so</Think>\n<Answer>1</Answer>", id="other case"),
        pytest.param("so</think>\n\0<answer>1</answer>", id="NUL between the blocks"),
    ],
)
def test_format_refused(completion: str) -> None:
    assert not judge_format(completion)


def test_format_agrees_with_its_definition_on_every_short_sequence() -> None:
    """All sequences of up to 5 pieces, against the definition spelled out over pieces instead of characters."""
    pieces = ["a", "\n", "</think>", "<answer>", "</answer>"]
    for length in range(6):
        for sequence in product(pieces, repeat=length):
            tags = [piece for piece in sequence if "<" in piece]
            spans = "".join("T" if piece in tags else piece for piece in sequence).split("T")
            expected = tags == pieces[2:] and not spans[1].strip() and not spans[3].strip()
            assert judge_format("".join(sequence)) == expected, sequence


# --- any text --------------------------------------------------------------------------------------------------------

SHARDS = [
    *("<think>", "</think>", "<answer>", "</answer>", "<", ">", "/", "answer>", "<|im_end|>", "\n", " ", "=", "\0"),
    *("1", "0", "65", "19", "9" * 40, "**", "//", "*", "/", "+", "-", "(", ")", "×", "÷", "−", ".", "_", "%", "!", "٣"),
    *("\ud800", "\udfff", "\u200b", "é", "sqrt", "__import__('os')", "lambda: 0", "😀"),
]


def assert_sound(completion: str) -> None:
    verdict = judge_equation(completion, TARGET, NUMS)
    assert verdict.reward in (0.0, 1.0)
    assert verdict.reward == float(verdict.reason is Reason.CORRECT)
    assert (verdict.answer is None) == (verdict.reason is Reason.NO_ANSWER)
    assert equation_reward_func([completion], [TARGET], [NUMS]) == [verdict.reward]
    assert format_reward_func([completion], [TARGET]) in ([0.0], [1.0])


@settings(deadline=None)
@given(st.lists(st.sampled_from(SHARDS), max_size=40).map("".join))
def test_shards_never_raise(completion: str) -> None:
    assert_sound(completion)
    assert_sound(answer(completion))


@settings(deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_unicode_never_raises(completion: str) -> None:
    assert_sound(completion)
    assert_sound(answer(completion))


def test_seeded_fuzz_never_raises() -> None:
    rng = random.Random(0)
    for _ in range(3_000):
        assert_sound("".join(rng.choices(SHARDS, k=rng.randint(0, 60))))


KIB_64, MIB = 2**16, 2**20
NASTY = {
    **{f"only {unit!r}": unit * (KIB_64 // len(unit)) for unit in ("<", "<answer", "</", "(", "\0", "\ud800", " \n")},
    **{f"only {tag}": tag * (KIB_64 // len(tag)) for tag in ("<think>", "</think>", "<answer>", "</answer>")},
    **{
        f"answer of {unit!r}": answer(unit * (KIB_64 // len(unit)))
        for unit in ("1 ", "1+", "-", "9**", "=", "<", "\ud800")
    },
    "10,000 parentheses": answer("(" * 10_000 + "1" + ")" * 10_000),
    "a megabyte of digits": answer("9" * MIB),
    "a megabyte of spaces": answer("1" + " " * MIB + "+ 1"),
    "tower of powers": answer("9**9**9"),
    "longest product": answer(" / 7 * ".join(["9" * 18] * 16)),
    "longest chain of signs": answer("- " * 511 + "1"),
}


@pytest.mark.parametrize("completion", NASTY.values(), ids=NASTY.keys())
def test_nasty_texts_score_zero_in_bounded_time(completion: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert judge_equation(completion, TARGET, NUMS).reward == 0
        judge_format(completion)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


# --- what TRL passes and gets ----------------------------------------------------------------------------------------

BATCH = [answer(RIGHT), answer("55"), "nothing", answer("55 + 36 + 7 + 19"), answer("2**3"), answer(RIGHT)]
REASONS = ["correct", "wrong_numbers", "no_answer", "wrong_value", "not_allowed", "correct"]


def test_rewards_come_in_the_order_of_the_completions() -> None:
    assert equation_reward_func(BATCH, [TARGET] * 6, [NUMS] * 6) == [1, 0, 0, 0, 0, 1]
    for order in permutations(range(3)):
        batch = [BATCH[index] for index in order]
        assert equation_reward_func(batch, [TARGET] * 3, [NUMS] * 3) == [float(index == 0) for index in order]


def test_each_completion_is_scored_against_its_own_puzzle() -> None:
    assert equation_reward_func([answer("1 + 2")] * 3, [3, 4, 3], [[1, 2], [1, 2], [1, 3]]) == [1, 0, 0]


def test_rewards_are_python_floats() -> None:
    rewards = [*equation_reward_func(BATCH, [TARGET] * 6, [NUMS] * 6), *format_reward_func(BATCH, [TARGET] * 6)]
    assert {type(reward) for reward in rewards} == {float}


def test_empty_batch() -> None:
    metrics: dict[str, float] = {}
    assert equation_reward_func([], [], [], log_metric=metrics.__setitem__) == []
    assert format_reward_func([], []) == []
    assert metrics == {}


def test_columns_of_unequal_length_raise() -> None:
    with pytest.raises(ValueError, match="shorter"):
        equation_reward_func(BATCH, [TARGET], [NUMS] * 6)


def test_reports_to_trl() -> None:
    columns: dict[str, list[str]] = defaultdict(list)
    metrics: dict[str, float] = {}
    trl_passes: dict[str, Any] = {
        "prompts": ["?"] * 6,
        "completion_ids": [[1]] * 6,
        "trainer_state": None,
        "log_extra": lambda column, values: columns[column].extend(values),
        "log_metric": metrics.__setitem__,
    }
    rewards = equation_reward_func(completions=BATCH, target=[TARGET] * 6, nums=[NUMS] * 6, **trl_passes)
    assert rewards == [1, 0, 0, 0, 0, 1]
    assert columns == {"verdict": REASONS}
    assert {type(value) for value in columns["verdict"]} == {str}
    assert metrics == pytest.approx({f"verdict/{each}": REASONS.count(each) / 6 for each in Reason})
    assert sum(metrics.values()) == pytest.approx(1)


def test_format_reward_takes_what_trl_passes() -> None:
    assert format_reward_func(completions=BATCH[:3], prompts=["?"] * 3, target=[TARGET] * 3, nums=[NUMS] * 3) == [
        1,
        1,
        0,
    ]


def test_reason_values_are_the_contracts_words() -> None:
    words = {"correct", "no_answer", "not_allowed", "wrong_numbers", "wrong_value", "division_by_zero"}
    assert {each.value for each in Reason} == words


def test_scoring_needs_no_torch() -> None:
    code = "import sys, mini_r1.rewards; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
