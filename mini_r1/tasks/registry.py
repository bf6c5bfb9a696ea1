"""Tasks and rewards by name: those of this repository, and any other by its dotted path."""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mini_r1.program.problems import Problem, ProblemError, first_line, nearest, shown
from mini_r1.tasks.task import RewardFunction, Task

DEFAULT_TASK = "countdown"
# The part of a name after the slash, as in reasoning_gym/knights_knaves, is the task's to understand.
TASKS = {
    "countdown": "mini_r1.tasks.countdown.task:Countdown",
    "gsm8k": "mini_r1.tasks.gsm8k:Gsm8k",
    "reasoning_gym": "mini_r1.tasks.reasoning_gym:ReasoningGym",
}
SOFT_OVERLONG = "soft_overlong"  # the reward that every task has


class TaskError(ProblemError, ValueError):
    """A recipe names a task or a reward that does not exist or can't be used."""


def task_of(name: str = DEFAULT_TASK, config: Mapping[str, Any] | None = None) -> Task:
    """The task that a recipe names: one of `TASKS`, or `package.module:Class`.

    Raises:
        TaskError: if it does not exist (the message lists those that do), or does not take this configuration.
    """
    family, slash, member = name.partition("/")
    if family not in TASKS and ":" not in name:
        meant = nearest(family, TASKS)
        cause = "there is no such task" + (f"; did you mean {meant}?" if meant else "")
        allowed = f"{', '.join(TASKS)}, or your own as package.module:Class"
        raise TaskError(Problem("task", repr(name), allowed, "correct the name", cause))
    kind = _import(TASKS.get(family, name), "task", ":")
    wanted = "a subclass of mini_r1.tasks.task.Task, with all that it asks for"
    if not (inspect.isclass(kind) and issubclass(kind, Task)):
        raise TaskError(Problem("task", repr(name), wanted, "derive it from Task", "it is not such a class"))
    if unfinished := sorted(getattr(kind, "__abstractmethods__", ())):
        cause = f"it does not define {', '.join(unfinished)}"
        raise TaskError(Problem("task", repr(name), wanted, "define them", cause))
    settings = dict(config or {}) | ({"name": member} if slash and family in TASKS else {})
    try:
        return kind(settings)
    except TaskError:
        raise
    except Exception as error:  # somebody else's program
        key, value = ("task_config", shown(settings)) if settings else ("task", repr(name))
        allowed = "what the task takes"
        raise TaskError(Problem(key, value, allowed, "correct it, or leave it out", first_line(error))) from error


def find_task(data: Any) -> Task | None:
    """The task that a run's record names; None if it is a class that can't be imported here."""
    if not isinstance(data, Mapping):
        return None
    try:
        return task_of(str(data.get("task") or DEFAULT_TASK), data.get("task_config"))
    except (TaskError, TypeError, ValueError):
        return None


def rewards_of(
    task: Task, names: Sequence[str] | None = None, max_completion_length: int | None = None
) -> dict[str, RewardFunction]:
    """The reward functions that a recipe names, in its order: the task's own, `soft_overlong`, or dotted paths.

    Args:
        names: the recipe's `reward_funcs`; by default the task's usual ones.
        max_completion_length: the recipe's, in tokens; TRL's default where it names none.

    Raises:
        TaskError: if there is no such reward, or two that TRL could not tell apart.
    """
    found: dict[str, RewardFunction] = {}
    for name in task.default_rewards if names is None else names:
        if name in found:
            raise _refused(list(names or ()), f"{name} occurs twice", "name it once; reward_weights says its weight")
        if name == SOFT_OVERLONG:
            found[name] = _soft_overlong(max_completion_length or 256)
        else:
            found[name] = task.rewards[name] if name in task.rewards else _own_reward(name, task)
    if not found:
        raise _refused([], "it names no reward", f"leave the key out for {', '.join(task.default_rewards)}")
    labels = [function_name(function) for function in found.values()]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        cause = f"several functions are called {', '.join(twice)}, whose metrics TRL would mix up"
        raise _refused(list(found), cause, "rename one of them")
    return found


def _soft_overlong(longest: int) -> RewardFunction:
    """0 for up to four fifths of the longest completion, from there down to -1: equation 13 of DAPO, with its share.

    https://arxiv.org/abs/2503.14476
    """

    def soft_overlong(completion_ids: Sequence[Sequence[int]], **kwargs: Any) -> list[float]:
        from trl.rewards import get_soft_overlong_punishment  # takes seconds to import

        return list(get_soft_overlong_punishment(longest, max(longest // 5, 1))(completion_ids))

    return soft_overlong


def _own_reward(name: str, task: Task) -> RewardFunction:
    if "." not in name and ":" not in name:
        meant = nearest(name, (*task.rewards, SOFT_OVERLONG))
        cause = "there is no such reward" + (f"; did you mean {meant}?" if meant else "")
        allowed = f"{', '.join(task.rewards)}, {SOFT_OVERLONG}, or your own as package.module.function"
        raise TaskError(Problem("reward_funcs", repr(name), allowed, "correct the name", cause))
    function = _import(name, "reward_funcs", ":" if ":" in name else ".")
    if not callable(function) or inspect.isclass(function):
        raise _refused(name, "it is not a function", "name a function with TRL's signature")
    takes = inspect.signature(function).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes):
        cause = "it does not take **kwargs, and TRL hands a reward every column of the data set"
        raise _refused(name, cause, "add **kwargs to its parameters")
    return function


def _refused(value: Any, cause: str, fix: str) -> TaskError:
    allowed = "names of the task's rewards, or functions with TRL's signature, each once"
    return TaskError(Problem("reward_funcs", repr(value), allowed, fix, cause))


def function_name(function: Callable[..., Any]) -> str:
    """What TRL calls a reward function in its metrics."""
    return getattr(function, "__name__", type(function).__name__)


@cache
def _import(path: str, key: str, separator: str) -> Any:
    """What a dotted path names; the folder that a program is started in counts as one on Python's path."""
    module, _, name = path.rpartition(separator)
    allowed = f"a name that Python can import, as package.module{separator}NAME"
    try:
        with _working_folder_on_path():
            return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise TaskError(Problem(key, repr(path), allowed, "correct the name", f"{module} has no {name}")) from None
    except Exception as error:  # an import runs somebody else's program
        fix = "correct the name, install its package, or put its folder on PYTHONPATH"
        raise TaskError(Problem(key, repr(path), allowed, fix, f"importing it fails: {first_line(error)}")) from error


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    """As with `python -m`: a script puts its own folder on Python's path, and not the one it is started in."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
