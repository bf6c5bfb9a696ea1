"""The two rewards of Mini-R1, by rules alone: is the format right, and does the equation reach the target?

Both score the text that follows a prompt ending in `<think>`. They are pure functions of their arguments, take any
text, and spend time linear in it: the tags are found in one pass without backtracking, and only an answer within
the bounds of `mini_r1.expression` is ever computed.

Where an answer fails in several ways, the verdict names the first of: no_answer, not_allowed (outside the grammar, or
an `= …` that is no literal), wrong_numbers, division_by_zero, wrong_value. So arithmetic is done only on the puzzle's
own numbers.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mini_r1.expression import ExpressionError, parse, parse_literal

# What may close a turn, where the tokenizer does not strip it: Qwen, Llama 3, Gemma, Llama 2 and Mistral.
END_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "</s>")
_TAG = re.compile(r"(</?(?:think|answer)>)")


class Reason(StrEnum):
    """Why an equation got its reward; every value but `correct` means 0."""

    CORRECT = "correct"
    NO_ANSWER = "no_answer"
    NOT_ALLOWED = "not_allowed"
    WRONG_NUMBERS = "wrong_numbers"
    WRONG_VALUE = "wrong_value"
    DIVISION_BY_ZERO = "division_by_zero"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one completion: reward 0.0 or 1.0, the reason, and the answer that was judged, if any."""

    reward: float
    reason: Reason
    answer: str | None


def equation_reward_func(
    completions: Sequence[str], target: Sequence[int], nums: Sequence[Sequence[int]], **kwargs: Any
) -> list[float]:
    """1.0 for each completion whose answer uses every number once and reaches the target, else 0.0.

    The three sequences run in parallel (TRL passes dataset columns this way); unequal lengths raise ValueError. Given
    TRL's `log_extra` and `log_metric`, it also reports a column `verdict` (the reason of each completion) and metrics
    `verdict/<reason>` (the share of completions with that reason).

    >>> equation_reward_func(["so</think><answer>6 / 3</answer>", "so</think><answer>6</answer>"], [2, 2], [[3, 6]] * 2)
    [1.0, 0.0]
    """
    verdicts = [judge_equation(*row) for row in zip(completions, target, nums, strict=True)]
    report_verdicts(verdicts, kwargs.get("log_extra"), kwargs.get("log_metric"))
    return [verdict.reward for verdict in verdicts]


def format_reward_func(completions: Sequence[str], target: Sequence[int], **kwargs: Any) -> list[float]:
    """1.0 for each completion of the form `…</think> <answer>…</answer>`, else 0.0; `target` is not looked at.

    >>> format_reward_func(["so</think>\\n<answer>1</answer>", "<answer>1</answer>"], [1, 1])
    [1.0, 0.0]
    """
    return [float(judge_format(completion)) for completion in completions]


def judge_equation(completion: str, target: int, nums: Sequence[int]) -> Verdict:
    """Judge the last answer of `completion` for the puzzle (`target`, `nums`).

    `target` and `nums` may hold any integral number (int, numpy integer, 65.0); 0.5 or NaN raise ValueError, since a
    broken dataset is not the model's mistake.

    >>> judge_equation("hm</think><answer>55 + 36 - 7 - 19 = 65</answer>", 65, [19, 36, 55, 7])
    Verdict(reward=1.0, reason=<Reason.CORRECT: 'correct'>, answer='55 + 36 - 7 - 19 = 65')
    >>> judge_equation("hm</think><answer>55 + 36</answer>", 65, [19, 36, 55, 7]).reason.value
    'wrong_numbers'
    """
    answer = last_answer(completion)
    if answer is None:
        return Verdict(0.0, Reason.NO_ANSWER, None)
    reason = _judge_answer(answer, _integer(target), sorted(map(_integer, nums)))
    return Verdict(float(reason is Reason.CORRECT), reason, answer)


def judge_format(completion: str) -> bool:
    """Whether `<think>` + `completion` is one thinking block, optional whitespace, one answer block and the end.

    Each of the four tags occurs exactly once, so neither block is nested or repeated; after `</answer>` come only
    whitespace and at most one end-of-turn token. What the blocks hold is not looked at.

    >>> judge_format("one moment</think>\\n<answer>1 + 2</answer><|im_end|>")
    True
    """
    parts = _TAG.split(
        completion, maxsplit=3
    )  # text, tag, text, ...; a fourth tag stays in the last text and spoils it
    if parts[1::2] != ["</think>", "<answer>", "</answer>"]:
        return False
    gap, end = parts[2].strip(), parts[6].strip()
    return not gap and (not end or end in END_OF_TURN)


def last_answer(completion: str) -> str | None:
    """The text of the last `<answer>` block, or None where that block is empty or left open.

    The last opening tag decides, even after a finished block: a model that starts to answer anew has withdrawn what it
    said before.

    >>> last_answer("<answer>1</answer> no, <answer> 2 </answer>")
    '2'
    >>> last_answer("<answer>1</answer> no, <answer> 2") is None
    True
    """
    opened = completion.rfind("<answer>")
    if opened < 0:
        return None
    start = opened + len("<answer>")
    end = completion.find("</answer>", start)
    if end < 0:
        return None
    return completion[start:end].strip() or None


def report_verdicts(
    verdicts: Sequence[Verdict],
    log_extra: Callable[[str, list[str]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
) -> None:
    """Hand each verdict's reason to TRL's completions table and the share of every reason to its metrics."""
    if log_extra is not None:
        log_extra("verdict", [verdict.reason.value for verdict in verdicts])
    if log_metric is not None and verdicts:
        counts = Counter(verdict.reason for verdict in verdicts)
        # All reasons, zeros too: TRL averages a metric over the processes that reported it, not over all of them.
        for reason in Reason:
            log_metric(f"verdict/{reason.value}", counts[reason] / len(verdicts))


def _judge_answer(answer: str, target: int, nums: list[int]) -> Reason:
    """The reason for an answer that is there; `nums` sorted."""
    left, equals, right = answer.partition("=")
    try:
        claimed = parse_literal(right) if equals else target
        expression = parse(left)
        if sorted(expression.numbers) != nums:
            return Reason.WRONG_NUMBERS
        reached = expression.value == target and claimed == target
    except ExpressionError as error:
        return Reason(error.reason)
    return Reason.CORRECT if reached else Reason.WRONG_VALUE


def _integer(number: Any) -> int:
    """`number` as a plain int, so that no fixed-width or floating-point arithmetic enters the comparison."""
    if type(number) is int:
        return number
    whole = int(number)
    if whole != number:
        raise ValueError(f"Countdown numbers are integers, got {number!r}")
    return whole
