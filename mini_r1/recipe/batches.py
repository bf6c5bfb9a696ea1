"""The arithmetic of a GRPO step: completions, prompts and groups, and TRL's rules for them.

TRL counts completions: a step trains on processes x per_device_train_batch_size x gradient_accumulation_steps of them,
`num_generations` to a prompt (trl 1.16, GRPOConfig.__post_init__ and GRPOTrainer._get_train_sampler).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from trl import GRPOConfig

from mini_r1.program.problems import Problem

BATCH_KEYS = {
    *("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "steps_per_generation"),
    *("generation_batch_size", "per_device_eval_batch_size", "num_generations_eval"),
}


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What one step and one generation batch are made of; a group is the completions of one prompt.

    A demonstration, for `method: sft`, is a group of one.
    """

    processes: int
    per_device: int
    accumulation: int
    generations: int
    steps_per_generation: int

    @property
    def completions_per_step(self) -> int:
        """Completions behind one optimizer step."""
        return self.processes * self.per_device * self.accumulation

    @property
    def prompts_per_step(self) -> Fraction:
        """Prompts behind one optimizer step; a fraction where a group is spread over several steps."""
        return Fraction(self.completions_per_step, self.generations)

    @property
    def groups_per_rank(self) -> Fraction:
        """Groups that one process trains on per step; a fraction where a group is spread over processes."""
        return Fraction(self.per_device * self.accumulation, self.generations)

    @property
    def generation_batch(self) -> int:
        """Completions made at a time, by all processes together."""
        return self.processes * self.per_device * self.steps_per_generation

    @property
    def generations_per_step(self) -> Fraction:
        """Generation batches per optimizer step, before `num_iterations`."""
        return Fraction(self.accumulation, self.steps_per_generation)

    def rows(self) -> list[tuple[str, str]]:
        """The table, as (what, how many)."""
        factors = f"{self.processes} ranks x {self.per_device} per device x {self.accumulation} accumulation"
        if self.generations == 1:
            return [("demonstrations per step", f"{self.completions_per_step} = {factors}")]
        return [
            ("prompts per step", f"{_number(self.prompts_per_step)}"),
            ("completions per prompt", f"{self.generations}"),
            ("completions per step", f"{self.completions_per_step} = {factors}"),
            ("groups per rank and step", _number(self.groups_per_rank)),
            (
                "generation batch",
                f"{self.generation_batch} completions, {_number(self.generations_per_step)} per step",
            ),
        ]


def _number(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.3g}"


def plan_batches(training: GRPOConfig, processes: int) -> tuple[BatchPlan, list[Problem]]:
    """Return the plan and every rule that it breaks, each with the nearest values that keep it.

    Args:
        training: read with `read_recipe`; each value is in its range (`mini_r1.recipe.values`).
        processes: training processes.
    """
    per_device, generations = training.per_device_train_batch_size, int(training.num_generations or 0)
    steps, problem = _steps_per_generation(training, processes)
    plan = BatchPlan(processes, per_device, training.gradient_accumulation_steps, generations, steps)
    checks = [problem, _check_groups(plan), _check_evaluation(training, processes)]
    return plan, [problem for problem in checks if problem]


def is_on_policy(training: GRPOConfig) -> bool:
    """Whether each completion is learned from before the first update after it was written."""
    micro_batches = training.steps_per_generation or training.gradient_accumulation_steps
    return training.gradient_accumulation_steps % (micro_batches * training.num_iterations) == 0


def _steps_per_generation(training: GRPOConfig, processes: int) -> tuple[int, Problem | None]:
    """How many micro-batches one generation batch lasts for."""
    batch, steps = training.generation_batch_size, training.steps_per_generation
    if batch is not None and steps is not None:
        cause = f"steps_per_generation is {steps}, and says the same"
        fix = "leave generation_batch_size out"
        return steps, Problem("generation_batch_size", batch, "one of the two", fix, cause)
    if batch is None:
        return steps or training.gradient_accumulation_steps, None
    unit = training.per_device_train_batch_size * processes
    if batch % unit == 0 and batch > 0:
        return batch // unit, None
    cause = f"per_device_train_batch_size x processes is {unit}"
    values = _nearest(batch, range(unit, 2 * max(batch, unit) + unit, unit))
    return max(1, batch // unit), Problem(
        "generation_batch_size", batch, f"a multiple of {unit}", f"use {values}", cause
    )


def _check_groups(plan: BatchPlan) -> Problem | None:
    """The generation batch holds complete groups."""
    if plan.generation_batch % plan.generations == 0:
        return None
    ranks, per_device, steps, generations = plan.processes, plan.per_device, plan.steps_per_generation, plan.generations
    sizes = _nearest(per_device, _first(lambda s: ranks * s * steps % generations == 0, 1, per_device + generations))
    groups = _nearest(generations, _first(lambda g: plan.generation_batch % g == 0, 2, plan.generation_batch))
    longer = _nearest(steps, _first(lambda s: ranks * per_device * s % generations == 0, 1, steps + generations))
    cause = (
        f"the generation batch is {plan.generation_batch} = {plan.processes} ranks x {plan.per_device} per device x "
        f"{plan.steps_per_generation} steps per generation"
    )
    fix = (
        f"nearest valid: num_generations {groups}; or per_device_train_batch_size {sizes}; or "
        f"gradient_accumulation_steps {longer}"
    )
    return Problem("num_generations", plan.generations, f"a divisor of {plan.generation_batch}", fix, cause)


def check_own_groups(plan: BatchPlan, tries: int) -> Problem | None:
    """Where uniform groups are replaced, each process has whole groups: it replaces its own, and only these."""
    own, steps, generations = plan.per_device * plan.steps_per_generation, plan.steps_per_generation, plan.generations
    if not tries or own % generations == 0:
        return None
    sizes = _first(lambda size: size * steps % generations == 0, 1, plan.per_device + generations)
    cause = (
        f"a process generates {own} = {plan.per_device} per device x {steps} steps per generation completions, and "
        f"some groups are spread over processes"
    )
    allowed = f"a multiple of num_generations = {generations} completions a process"
    fix = f"nearest valid: per_device_train_batch_size {_nearest(plan.per_device, sizes)}; or resample_uniform_groups 0"
    return Problem("resample_uniform_groups", tries, allowed, fix, cause)


def _check_evaluation(training: GRPOConfig, processes: int) -> Problem | None:
    """An evaluation batch holds complete groups, too."""
    if str(getattr(training.eval_strategy, "value", training.eval_strategy)) == "no" and not training.eval_on_start:
        return None
    size = training.per_device_eval_batch_size
    generations = int(training.num_generations_eval or training.num_generations or 1)
    if size * processes % generations == 0:
        return None
    sizes = _nearest(size, _first(lambda s: s * processes % generations == 0, 1, size + generations))
    cause = f"an evaluation batch is {processes} x {size} completions, and a prompt has {generations}"
    allowed = f"a size for which {processes} x size is divisible by {generations}"
    fix = f"nearest valid: {sizes}; or num_generations_eval: 1"
    return Problem("per_device_eval_batch_size", size, allowed, fix, cause)


def _first(valid: Callable[[int], bool], low: int, high: int) -> Iterable[int]:
    return (value for value in range(low, high + 1) if valid(value))


def _nearest(value: int, candidates: Iterable[int]) -> str:
    """Return the nearest candidate below and above, as "6 or 8".

    >>> _nearest(7, [2, 6, 8, 16])
    '6 or 8'
    """
    candidates = list(candidates)
    below = [c for c in candidates if c < value][-1:]
    above = [c for c in candidates if c > value][:1]
    return " or ".join(map(str, below + above)) or "none"
