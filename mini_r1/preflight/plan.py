"""What the preflight's checks share: the recipe, where it will run, and what the checks find."""

from dataclasses import dataclass, field

from trl import GRPOConfig, ModelConfig

from mini_r1.machine.generator import Generation
from mini_r1.machine.gpus import GIB, Gpu, machine_memory, uses_gpus
from mini_r1.machine.launch import Launch
from mini_r1.program.failures import as_error
from mini_r1.program.problems import Problem
from mini_r1.recipe.arguments import ScriptArguments

DEFAULT_GPU_GB = 80.0


@dataclass
class Findings:
    """What the preflight found: tables to read, notes, warnings, and the problems that forbid to start."""

    sections: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    summary: str = ""

    def table(self) -> str:
        """Everything, ending in `summary` or the list of problems."""
        lines = []
        for title, rows in self.sections:
            width = max((len(name) for name, _ in rows), default=0)
            lines += [title, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, self.verdict()])

    def verdict(self) -> str:
        """One line when all is well; else every warning and every problem."""
        warnings = [f"warning: {warning}" for warning in self.warnings]
        if not self.problems:
            return "\n".join([*warnings, f"preflight: ready: {self.summary}"])
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([*warnings, f"preflight: {count}", *(f"  {as_error(problem)}" for problem in self.problems)])


@dataclass(frozen=True)
class Plan:
    """The recipe and where it is to run; what the checks below share."""

    script: ScriptArguments
    training: GRPOConfig
    model: ModelConfig
    launch: Launch
    generation: Generation
    visible: list[Gpu]

    @property
    def on_gpu(self) -> bool:
        """Whether the recipe is for GPUs."""
        return uses_gpus(self.training)

    @property
    def elsewhere(self) -> bool:
        """A dry run, on a machine without GPUs, of a recipe for GPUs."""
        return self.script.dry_run and self.on_gpu and not self.visible

    @property
    def capacity(self) -> int:
        """Bytes of memory of one training GPU, or of this machine for a run on the CPU."""
        if not self.on_gpu:
            return machine_memory()
        known = [gpu.memory for gpu in self.visible if gpu.memory]
        if known and not self.script.gpu_memory_gb:
            return min(known)
        return int((self.script.gpu_memory_gb or DEFAULT_GPU_GB) * GIB)
