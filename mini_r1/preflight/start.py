"""The preflight's look at an evaluation of the base, where there is one: has RL something to start from?"""

from pathlib import Path

from mini_r1.preflight.plan import Findings, Plan
from mini_r1.results.start import start_of
from mini_r1.runs.holdout import DataSettings
from mini_r1.runs.records import RecordError, read_evaluation


def check_start(plan: Plan, findings: Findings) -> None:
    """Say what `evaluation.json` in the base's folder says of it; a warning if it recommends a cold start.

    Nothing is said where there is none, or it is of other problems, or cannot be read.
    """
    if plan.script.method != "grpo":
        return
    folder = Path(str(plan.model.model_name_or_path)).expanduser()
    try:
        results = read_evaluation(folder).results if folder.is_dir() else []
    except RecordError:
        return
    data = DataSettings.of(plan.script)
    here = {"task": data.task, "dataset": data.dataset}
    if not results or {name: results[-1].data.get(name) for name in here} != here:
        return
    if start := start_of(results[-1]):
        line = f"evaluation.json of {plan.model.model_name_or_path}: {start.words}"
        (findings.warnings if start.cold_start else findings.notes).append(line)
