"""The contract of the two rewards, row by row, one property a test; then fuzzing, bounds and what TRL gets to see."""

import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import UndefinedError
from transformers.utils.chat_template_utils import render_jinja_template

from mini_r1.tasks.rewards import (
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


def reason(text: str, target: int = TARGET, nums: list[int] = NUMS) -> str:
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


def test_published_examples_keep_their_scores_as_their_cell_passes_them() -> None:
    """The original's check gives the targets as texts, and the fourth completion a puzzle of its own."""
    columns: dict[str, Any] = {"target": ["65", "65", "65", "79", "65"], "nums": [NUMS, NUMS, NUMS, [104, 183], NUMS]}
    assert format_reward_func(completions=PUBLISHED, **columns) == [1, 1, 0, 0, 1]
    columns = {"target": ["65"] * 5, "nums": [NUMS] * 5}
    assert format_reward_func(completions=PUBLISHED, **columns) == [1, 1, 0, 0, 1]
    assert equation_reward_func(completions=PUBLISHED, **columns) == [1, 1, 0, 0, 0]


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


# The contract's table, by code point, so that no editor and no font decides what is tested.
LOOK_ALIKES = {
    "+": "\uff0b",
    "-": "\u2212\u2013\u2010\uff0d",
    "*": "\u00d7\u00b7\u22c5\u2219\u2217\uff0a",
    "/": "\u00f7\u2215\u2044\uff0f",
    "(": "\uff08",
    ")": "\uff09",
    "=": "\uff1d",
}


@pytest.mark.parametrize(
    ("ascii_sign", "sign"), [(ascii_sign, sign) for ascii_sign, signs in LOOK_ALIKES.items() for sign in signs]
)
def test_a_look_alike_is_read_as_its_ascii_sign(ascii_sign: str, sign: str) -> None:
    for text, target, nums in [("(6 + 4) / 2 * 3 - 1 = 14", 14, [1, 2, 3, 4, 6]), ("-(5 - 9) = 4", 4, [5, 9])]:
        assert reason(text.replace(ascii_sign, sign), target, nums) is Reason.CORRECT
        assert reason(text.replace(ascii_sign, sign, 1), target, nums) is Reason.CORRECT
        assert reason(text.replace(ascii_sign, sign), target + 1, nums) is Reason.WRONG_VALUE


def test_all_full_width() -> None:
    assert reason("（55＋36）－7－19＝65") is Reason.CORRECT
    assert reason("－（5－9）＝－－4", target=4, nums=[5, 9]) is Reason.NOT_ALLOWED
    assert reason("5 － 9 ＝ －4", target=-4, nums=[5, 9]) is Reason.CORRECT
    assert reason("55 + 36 - 7 - 19 ＝ 65 = 65") is Reason.NOT_ALLOWED
    assert reason("55 + 36 - 7 - 19 ＝＝ 65") is Reason.NOT_ALLOWED


@pytest.mark.parametrize("operator", ["—", "―", "‑", "⁃", "•", "✕", "x", "X", "∶", "➕", "﹢", "⟋", "\\", "˗", "ー"])
def test_other_characters_stay_what_they_are(operator: str) -> None:
    for text, target in (("6 ? 2", 4), ("6 ? 2", 8), ("6 ? 2", 12), ("6 ? 2", 3)):
        assert reason(text.replace("?", operator), target, [2, 6]) is Reason.NOT_ALLOWED


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
        ("３ ＋ １", 4, [1, 3]),
        ("５ + 36", 41, [5, 36]),
        ("३ + 1", 4, [1, 3]),
        ("² + 1", 3, [1, 2]),
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
        pytest.param(f"is it <answer>{RIGHT}</answer>?</think>", id="answer only in the thinking"),
        pytest.param(f"is it <answer>{RIGHT}</answer>?</think>\nI give up", id="words after such a thinking"),
        pytest.param(f"<answer>{RIGHT}</answer></think><answer></answer>", id="empty after such a thinking"),
        pytest.param(f"<answer>{RIGHT}</answer></think><answer>{RIGHT}", id="unclosed after such a thinking"),
        pytest.param(f"is it <answer>{RIGHT}</think></answer>", id="an answer that the thinking cuts in two"),
        pytest.param(f"a</think><answer>{RIGHT}</answer></think>", id="more thinking after the answer"),
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
        ("is it <answer>1</answer>?</think><answer>2</answer>", "2"),
        ("<answer>1</answer></think><answer>2</answer></think><answer>3</answer>", "3"),
        ("</think><answer>1</answer><answer>2</answer>", "2"),
        ("is it <answer></think><answer>2</answer>", "2"),
        ("<answer>1</answer></Think>", "1"),
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


INTEGER_TEXTS = ["65", " 65 ", "+65", "065", "65\n", "\t65", b"65", np.str_("65"), np.bytes_(b" 65")]


@pytest.mark.parametrize("target", INTEGER_TEXTS, ids=repr)
def test_the_text_of_an_integer_is_taken_as_the_integer(target: Any) -> None:
    assert judge_equation(answer(RIGHT), target, NUMS).reward == 1
    assert judge_equation(answer(f"{RIGHT} = 65"), target, NUMS).reward == 1
    assert judge_equation(answer(RIGHT), TARGET + 1, NUMS).reason is Reason.WRONG_VALUE
    assert judge_equation(answer("65 + 1"), 66, [1, target]).reward == 1
    assert judge_equation(answer("64 + 1"), 65, [1, target]).reason is Reason.WRONG_NUMBERS


@pytest.mark.parametrize("as_text", [str, np.str_, lambda n: str(n).encode(), lambda n: f" {n}"])
def test_whole_columns_of_texts(as_text: Any) -> None:
    nums = [as_text(number) for number in NUMS]
    for row in (nums, tuple(nums), np.array(nums)):
        columns: dict[str, Any] = {"target": [as_text(TARGET)] * 2, "nums": [row] * 2}
        assert equation_reward_func(completions=[answer(RIGHT), answer("55 + 36")], **columns) == [1, 0]


def test_a_negative_target_may_be_text() -> None:
    assert judge_equation(answer("5 - 9"), "-4", ["5", "9"]).reward == 1


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from(["", " ", "\n"]), st.sampled_from(["", "0", "00"]))
def test_text_and_integer_are_judged_alike(number: int, space: str, zeros: str) -> None:
    text = f"{space}{'-' * (number < 0)}{zeros}{abs(number)}{space}"
    for target in (number, number + 1):
        verdicts = [judge_equation(answer(f"{target} + 0"), goal, [0, abs(number)]) for goal in (number, text)]
        assert verdicts[0] == verdicts[1]


BROKEN: list[Any] = [
    *(
        "6.5",
        "65.0",
        "abc",
        "",
        " ",
        "-",
        "6 5",
        "1_0",
        "1e3",
        "0x41",
        "6,5",
        "٦٥",
        "６５",
        "\u221265",
        "six",
        "9" * 9_999,
    ),
    *("[65]", "None", "nan", "inf", "True", b"6.5", b"\xff", "65\x00", "\ud800"),
    *(
        64.5,
        float("nan"),
        float("inf"),
        True,
        False,
        np.True_,
        None,
        [65],
        {},
        65j,
        np.float32(0.1),
        np.array([65, 66]),
    ),
]


@pytest.mark.parametrize("value", BROKEN, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("completion", [answer(RIGHT), "no answer at all"])
def test_what_is_no_integer_is_an_error_of_the_dataset(value: Any, completion: str) -> None:
    """Whatever the model wrote, so that the run ends at its first step and not at some later one."""
    for target, nums in ((value, NUMS), (TARGET, [19, 36, value, 7])):
        with pytest.raises(ValueError, match="integers, got") as error:
            judge_equation(completion, target, nums)
        assert len(str(error.value)) < 120


@pytest.mark.parametrize("nums", ["193655", b"193655", "[19, 36, 55, 7]"])
def test_a_text_is_no_list_of_numbers(nums: Any) -> None:
    """Its characters would pass for numbers one by one."""
    with pytest.raises(ValueError, match="list of integers"):
        judge_equation(answer("1 + 9 + 3 + 6 + 5 + 5"), 29, nums)


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
        *(f"so</think>\n<answer>1</answer> {ending}\n" for ending in END_OF_TURN),
        pytest.param(
            "so</think>\n<answer>1</answer><|im_end|>\n<|endoftext|><|endoftext|>", id="padding after the end"
        ),
        pytest.param("so</think>\n<answer>1</answer><|END_RESPONSE|><|END_OF_TURN_TOKEN|>", id="Cohere's two"),
        pytest.param("I fill in <answer> and </answer>.</think>\n<answer>1</answer>", id="tags named while thinking"),
        pytest.param("Is it <answer>0</answer>? No.</think>\n<answer>1</answer>", id="answer block while thinking"),
        pytest.param("</answer><answer></think><answer>1</answer>", id="stray tags while thinking"),
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
        pytest.param("so</think>\n<answer>0<answer>1</answer>", id="answer opened twice"),
        pytest.param("so</think>\n<answer>1</answer></answer>", id="answer closed twice"),
        pytest.param("so</think>\n</answer><answer>1</answer>", id="stray tag between the blocks"),
        pytest.param("so</think>\n<answer>1</think></answer>", id="thinking ends inside the answer"),
        pytest.param("so</think>\n<answer>1</answer></think>", id="thinking ends after the answer"),
        pytest.param("so <answer>1</answer></think>", id="answer only in the thinking"),
        pytest.param("so</think>\n<answer>1</answer><|im_end|", id="half an end of turn"),
        pytest.param("so</think>\n<answer>1</answer><STOP>", id="an end of turn that nobody declared"),
        pytest.param("so</think>\n<answer><think>1</think></answer>", id="thinking inside the answer"),
        pytest.param("so</think>\ntherefore <answer>1</answer>", id="words between the blocks"),
        pytest.param("so</think>\n<answer>1</answer> done", id="words after the answer"),
        pytest.param("so</think>\n<answer>1</answer><|im_end|>done", id="words after the end of turn"),
        pytest.param("so\n<answer>1</answer>\n</think>", id="wrong order"),
        pytest.param("so</Think>\n<Answer>1</Answer>", id="other case"),
        pytest.param("so</think>\n\0<answer>1</answer>", id="NUL between the blocks"),
    ],
)
def test_format_refused(completion: str) -> None:
    assert not judge_format(completion)


def test_format_agrees_with_its_definition_on_every_short_sequence() -> None:
    """All sequences of up to 6 pieces, against the definition spelled out over pieces instead of characters."""
    letters = {"a": "a", "\n": "_", "<think>": "T", "</think>": "t", "<answer>": "O", "</answer>": "C", "<eos>": "E"}
    definition = re.compile(r"[a_OCE]*t_*O[a_E]*C[_E]*")
    accepted = 0
    for length in range(7):
        for sequence in product(letters, repeat=length):
            expected = definition.fullmatch("".join(letters[piece] for piece in sequence)) is not None
            assert judge_format("".join(sequence)) == expected, sequence
            accepted += expected
    assert accepted > 100


def test_the_tokenizer_at_hand_may_declare_end_tokens() -> None:
    completion = "so</think>\n<answer>1</answer><STOP> <STOP2></s>"
    assert not judge_format(completion, ["<STOP>"])
    assert judge_format(completion, ["<STOP>", "<STOP2>"])
    assert judge_format(completion, {"<STOP>": 0, "<STOP2>": 1, "": 2})
    assert not judge_format("so</think>\n<answer>1</answer>a.c", ["a+c", "abc"])  # no patterns
    assert judge_format("so</think>\n<answer>1</answer>EN END EN", ["EN", "END"])
    assert format_reward_func([completion], [1], end_tokens=["<STOP>", "<STOP2>"]) == [1.0]


# Families of the contract, and the end of a turn as their published templates or configurations write it.
FAMILIES = {
    "Qwen": "<|im_end|>",
    "Llama 2": "</s>",
    "Llama 3": "<|eot_id|>",
    "Llama 4": "<|eot|>",
    "Gemma 1 to 3": "<end_of_turn>",
    "Gemma 4": "<turn|>",
    "Mistral": "</s>",
    "Phi 3": "<|end|>",
    "Phi 4": "<|im_end|>",
    "DeepSeek": "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "GLM 4": "<|user|>",
    "Cohere": "<|END_OF_TURN_TOKEN|>",
}


@pytest.mark.parametrize("token", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_end_of_a_turn_in_todays_families(token: str) -> None:
    assert judge_format(f"so</think>\n<answer>1</answer>{token}")


TRL_TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("template", TRL_TEMPLATES, ids=lambda path: path.stem)
def test_the_end_of_a_turn_in_every_template_that_trl_ships(template: Path) -> None:
    """Real templates, rendered: what each writes after the assistant's words is no break of the format."""
    end = written_after_an_answer(template.read_text(encoding="utf-8"))
    assert judge_format(f"so</think>\n<answer>1</answer>{end}"), end


def written_after_an_answer(template: str) -> str:
    """What a chat template ends the assistant's turn with; the multimodal ones take a list of parts only."""
    rendered = ""
    for words in (str, lambda text: [{"type": "text", "text": text}]):
        turns = [{"role": "user", "content": words("Q")}, {"role": "assistant", "content": words("WORDS")}]
        try:
            result: Any = render_jinja_template(
                [turns], chat_template=template, bos_token="", eos_token="<|endoftext|>"
            )
        except UndefinedError:
            continue
        rendered = result[0][0]
        if "WORDS" in rendered:
            break
    _, words_found, end = rendered.rpartition("WORDS")
    assert words_found, f"the template does not write the assistant's words: {rendered!r}"
    return end


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
    code = "import sys, mini_r1.tasks.rewards; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
