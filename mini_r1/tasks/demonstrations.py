"""Demonstrations of any task, for `method: sft`: which completion shows how a problem is solved."""

import random

from mini_r1.tasks.task import Row, Task


def demonstrate(task: Task, row: Row, seed: int) -> str | None:
    """The demonstration of a problem, which depends on the problem and the seed alone; None if there is none."""
    return task.demonstrate(row, random.Random(f"{seed}:{task.key(row)}"))
