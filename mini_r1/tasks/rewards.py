"""Mini-R1's two rewards, both plain rules: is the format right, and does the equation reach the target?

Both score the text that follows a prompt ending in `<think>`. They are pure functions of their arguments, take any
text, and spend time linear in it: the tags are found by plain search without backtracking, and only an answer within
the bounds of `mini_r1.tasks.countdown.expression` is ever computed.

Where an answer fails in several ways, the verdict names the first of: no_answer, not_allowed (outside the grammar, or
an `= …` that is not a literal), wrong_numbers, division_by_zero, wrong_value. So arithmetic is done only on the
puzzle's own numbers.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

from mini_r1.tasks.countdown.expression import MAX_RAW_LENGTH, ExpressionError, parse, parse_literal
from mini_r1.tasks.task import Verdict

THOUGHT, OPENED, CLOSED = "</think>", "<answer>", "</answer>"
# What may close a turn, where decoding does not drop it; `format_reward_func(end_tokens=...)` takes more.
END_OF_TURN = (
    *("<|im_end|>", "<|endoftext|>"),  # Qwen, Phi 4, SmolLM, LFM2, Nemotron
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),  # Llama 3
    *("<|eot|>", "<|eom|>"),  # Llama 4
    "</s>",  # Llama 2, Mistral
    *("<end_of_turn>", "<eos>"),  # Gemma 1 to 3
    "<turn|>",  # Gemma 4
    "<|end|>",  # Phi 3, Phi 4 mini
    *("<|return|>", "<|call|>"),  # gpt-oss
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<|EOT|>"),  # DeepSeek, with a full-width bar and a low block
    *("<|user|>", "<|observation|>"),  # GLM 4 ends its turn with the opening of the next
    "<end_of_utterance>",  # Idefics, SmolVLM
    *("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>", "<EOS_TOKEN>"),  # Cohere writes the first two one after the other
)
MAX_END = 4096  # characters after the answer, outer whitespace aside: room for the padding of a short completion
MAX_SPELLING = 1000  # characters of a number that comes as text; int() refuses some thousands
_WIDE_EQUALS = "\uff1d"
_INTEGER = re.compile(r"[+-]?[0-9]+")  # `[0-9]`, because int() also takes `1_0` and the digits of other scripts


Integral = int | float | str | bytes  # and numpy's; that it spells a whole number is checked


class Reason(StrEnum):
    """Why an equation got its reward; every value but `correct` means 0."""

    CORRECT = "correct"
    NO_ANSWER = "no_answer"
    NOT_ALLOWED = "not_allowed"
    WRONG_NUMBERS = "wrong_numbers"
    WRONG_VALUE = "wrong_value"
    DIVISION_BY_ZERO = "division_by_zero"


def equation_reward_func(
    completions: Sequence[str],
    target: Sequence[Integral],
    nums: Sequence[Sequence[Integral]],
    *,
    verdicts: Sequence[Verdict] | None = None,
    **kwargs: Any,
) -> list[float]:
    """1.0 for each completion whose answer uses every number once and reaches the target, else 0.0.

    The three sequences run in parallel (TRL passes dataset columns this way); unequal lengths raise ValueError, and so
    does a target or a number that is neither an integer nor the text of one (see `judge_equation`).
    `verdicts` are those of the completions where they have been judged before, as in a run of Mini-R1. Elsewhere, given
    TRL's `log_extra` and `log_metric`, it also reports a column `verdict` (the reason of each completion) and metrics
    `verdict/<reason>` (the share of completions with that reason).

    >>> equation_reward_func(["so</think><answer>6 / 3</answer>", "so</think><answer>6</answer>"], [2, 2], [[3, 6]] * 2)
    [1.0, 0.0]
    """
    if verdicts is None:
        verdicts = [judge_equation(*row) for row in zip(completions, target, nums, strict=True)]
        report_verdicts(verdicts, list(Reason), kwargs.get("log_extra"), kwargs.get("log_metric"))
    return [verdict.reward for verdict in verdicts]


def numbers_reward_func(completions: Sequence[str], *, verdicts: Sequence[Verdict], **kwargs: Any) -> list[float]:
    """1.0 for each completion whose answer uses every number exactly once, whatever it comes to: partial credit.

    For a base that solves hardly any puzzle, so that its groups differ in nothing else.

    >>> numbers_reward_func([""], verdicts=[judge_equation("so</think><answer>6 - 3</answer>", 2, [3, 6])])
    [1.0]
    """
    right = (Reason.CORRECT, Reason.WRONG_VALUE, Reason.DIVISION_BY_ZERO)
    return [float(verdict.reason in right) for verdict in verdicts]


def format_reward_func(
    completions: Sequence[str],
    target: Sequence[Integral],
    *,
    end_tokens: Collection[str] = (),
    in_format: Sequence[bool] | None = None,
    **kwargs: Any,
) -> list[float]:
    """1.0 for each completion of the form `…</think> <answer>…</answer>`, else 0.0; `target` is not looked at.

    `in_format` says it of the completions where it is known already, as in a run of Mini-R1.

    >>> format_reward_func(["so</think>\\n<answer>1</answer>", "<answer>1</answer>"], [1, 1])
    [1.0, 0.0]
    """
    if in_format is None:
        in_format = [judge_format(completion, end_tokens) for completion in completions]
    return [float(one) for one in in_format]


def judge_equation(completion: str, target: Integral, nums: Sequence[Integral]) -> Verdict:
    """Judge the last answer of `completion` for the puzzle (`target`, `nums`).

    `target` and `nums` may hold any integral number (int, numpy integer, 65.0) and the text of an integer: ASCII digits
    with or without a sign, leading zeros and outer whitespace ("65", " 7 ", "+7", "007", bytes too). Anything else
    raises ValueError, since a broken dataset is not the model's mistake: 6.5, NaN, True, None, "6.5", "65.0", "1_0",
    digits of other scripts.

    >>> judge_equation("hm</think><answer>55 + 36 - 7 - 19 = 65</answer>", 65, [19, 36, 55, 7])
    Verdict(reward=1.0, reason=<Reason.CORRECT: 'correct'>, answer='55 + 36 - 7 - 19 = 65')
    >>> judge_equation("hm</think><answer>55 + 36</answer>", "65", ["19", "36", "55", "7"]).reason.value
    'wrong_numbers'
    """
    goal, numbers = _integer(target), _integers(nums)
    answer = last_answer(completion)
    if answer is None:
        return Verdict(0.0, Reason.NO_ANSWER, None)
    reason = _judge_answer(answer, goal, sorted(numbers))
    return Verdict(float(reason is Reason.CORRECT), reason, answer)


def judge_format(completion: str, end_tokens: Collection[str] = ()) -> bool:
    """Whether `<think>` + `completion` is one thinking block, optional whitespace, one answer block and the end.

    The thinking may mention `<answer>` and `</answer>`, as models do that repeat the instruction, but no think tag. The
    answer holds none of the four tags. After it come only whitespace and end-of-turn tokens: those of today's families
    and `end_tokens`, what the tokenizer at hand declares.

    >>> judge_format("I am to fill in <answer>.</think>\\n<answer>1 + 2</answer><|im_end|>")
    True
    >>> judge_format("one moment</think>\\n<answer>1 + 2</answer><STOP>", end_tokens=["<STOP>"])
    True
    """
    thought = completion.find(THOUGHT)
    opened = completion.find(OPENED, thought)
    closed = completion.find(CLOSED, opened)
    if min(thought, opened, closed) < 0 or completion[thought + len(THOUGHT) : opened].strip():
        return False
    second = (completion.find(tag, opened + len(OPENED), closed) for tag in (OPENED, THOUGHT))
    if max(second) >= 0 or "<think>" in completion:
        return False
    return _is_end(completion[closed + len(CLOSED) :].strip(), end_tokens)


def last_answer(completion: str) -> str | None:
    """The text of the last `<answer>` block after the last `</think>`, or None where it is empty or left open.

    What the thinking holds does not count as an answer, unless no `</think>` ends it. The last opening tag decides,
    even after a finished block: a model that starts another answer has withdrawn the one before.

    >>> last_answer("<answer>1</answer> no, <answer> 2 </answer>")
    '2'
    >>> last_answer("is it <answer>1</answer>?</think> I give up") is None
    True
    """
    thought = max(completion.rfind(THOUGHT), 0)
    opened = completion.rfind(OPENED, thought)
    if opened < 0:
        return None
    start = opened + len(OPENED)
    end = completion.find(CLOSED, start)
    if end < 0:
        return None
    return completion[start:end].strip() or None


def report_verdicts(
    verdicts: Sequence[Verdict],
    reasons: Iterable[str],
    log_extra: Callable[[str, list[str]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
) -> None:
    """Hand each verdict's reason to TRL's completions table and the share of every reason to its metrics."""
    if log_extra is not None:
        log_extra("verdict", [str(verdict.reason) for verdict in verdicts])
    if log_metric is not None and verdicts:
        counts = Counter(str(verdict.reason) for verdict in verdicts)
        # All reasons, zeros too: TRL averages a metric over the processes that reported it, not over all of them.
        for reason in reasons:
            log_metric(f"verdict/{reason}", counts[reason] / len(verdicts))


def _judge_answer(answer: str, target: int, nums: list[int]) -> Reason:
    """The reason for an answer that is there; `nums` sorted."""
    if len(answer) > MAX_RAW_LENGTH:
        return Reason.NOT_ALLOWED
    left, equals, right = answer.replace(_WIDE_EQUALS, "=").partition("=")
    try:
        claimed = parse_literal(right) if equals else target
        expression = parse(left)
        if sorted(expression.numbers) != nums:
            return Reason.WRONG_NUMBERS
        reached = expression.value == target and claimed == target
    except ExpressionError as error:
        return Reason(error.reason)
    return Reason.CORRECT if reached else Reason.WRONG_VALUE


def _is_end(text: str, end_tokens: Collection[str]) -> bool:
    """Whether `text` is nothing but end-of-turn tokens and whitespace."""
    return not text or (len(text) <= MAX_END and _end_pattern(*end_tokens).fullmatch(text) is not None)


@lru_cache(maxsize=8)
def _end_pattern(*end_tokens: str) -> re.Pattern[str]:
    """Any number of tokens and whitespace; the longest token first, so that none hides another it begins with."""
    tokens = sorted({*END_OF_TURN, *end_tokens} - {""}, key=len, reverse=True)
    return re.compile(rf"(?:\s|{'|'.join(map(re.escape, tokens))})*+")


def _integers(numbers: Sequence[Integral]) -> list[int]:
    if isinstance(numbers, str | bytes):  # its characters would pass for numbers
        raise ValueError(f"the numbers of a Countdown puzzle are a list of integers, got {numbers!r:.60}")
    return [_integer(number) for number in numbers]


def _integer(number: Any) -> int:
    """`number` as a plain int, so that no fixed-width or floating-point arithmetic enters the comparison."""
    if type(number) is int:
        return number
    if isinstance(number, str | bytes):
        text = number.decode("latin-1") if isinstance(number, bytes) else number
        spelled = _INTEGER.fullmatch(text.strip())
        if spelled is not None and len(spelled[0]) <= MAX_SPELLING:
            return int(spelled[0])
    elif type(number).__name__ not in ("bool", "bool_"):  # the second is an older numpy's
        try:
            whole = int(number)
            if whole == number:
                return whole
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"Countdown numbers are integers, got {number!r:.60}")
