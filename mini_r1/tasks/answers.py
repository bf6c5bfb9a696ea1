"""Shared by tasks that ask for one short answer: the last sentence of the question, and the two rewards."""

import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mini_r1.tasks.task import RewardFunction, Verdict

INSTRUCTION = (
    "Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags, for example "
    "<answer> 42 </answer>."
)
MAX_SHOWN = 300  # characters of a problem in one line


def format_reward(completions: Sequence[str], *, in_format: Sequence[bool], **kwargs: Any) -> list[float]:
    """1.0 for each completion in the form that the task asks for, else 0.0."""
    return [float(one) for one in in_format]


def answer_reward(completions: Sequence[str], *, verdicts: Sequence[Verdict], **kwargs: Any) -> list[float]:
    """What the task's verdicts are worth, partial credit included."""
    return [verdict.reward for verdict in verdicts]


REWARDS: Mapping[str, RewardFunction] = {"format": format_reward, "answer": answer_reward}


def ask(problem: str) -> str:
    """The question that a user asks: the problem, and the form that the answer is to have."""
    return f"{problem.strip()}\n\n{INSTRUCTION}"


def text_key(problem: str) -> str:
    """The same short text for the same problem, however its whitespace is laid out.

    >>> text_key("How many?") == text_key(" How\\n many? ")
    True
    """
    return hashlib.blake2b(" ".join(problem.split()).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def one_line(problem: str) -> str:
    """A problem in one line, shortened if it is long.

    >>> one_line("How many\\nlegs?")
    'How many legs?'
    """
    return textwrap.shorten(problem, MAX_SHOWN, placeholder=" …")


def solving(answer: str) -> str:
    """A completion in the format that gives this answer."""
    return f" It is {answer}. </think>\n<answer> {answer} </answer>"
