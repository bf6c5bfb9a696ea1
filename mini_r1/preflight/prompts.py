"""The preflight's check of tokenizer, puzzles and prompts, and of what comes back from a policy."""

from contextlib import suppress
from dataclasses import replace

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from mini_r1.policy import loading
from mini_r1.policy.loading import ModelError
from mini_r1.preflight.plan import Findings, Plan
from mini_r1.preflight.round_trip import StopTokens, check_round_trip, generation_config, stop_tokens
from mini_r1.program.problems import Problem, first_line
from mini_r1.prompts.build import PromptWriter, build_prompts, find_prompt_change
from mini_r1.prompts.settings import PromptError
from mini_r1.recipe.batches import BatchPlan
from mini_r1.recipe.read import load_tokenizer, read_prompt_settings
from mini_r1.runs.holdout import DataSettings, find_change, hold_out
from mini_r1.runs.identity import RunRecord
from mini_r1.tasks.demonstrations import demonstrate
from mini_r1.tasks.registry import TaskError, task_of
from mini_r1.tasks.task import Task, rows_of

PROMPTS_LOOKED_AT = 256
PROMPT_WANTED = "one that fits and ends in the assistant's header and the prefill, with nothing between"


def check_prompts(
    plan: Plan, batches: BatchPlan, config: PretrainedConfig | None, began: RunRecord, findings: Findings
) -> None:
    """Tokenizer, data set, the prompts that the two make, and whether a right answer would count.

    `began` is what a run that is resumed began with: its prompts and puzzles are to be the same.
    """
    rows: list[tuple[str, str]] = []
    tokenizer = _load_tokenizer(plan, findings)
    try:
        task = task_of(plan.script.task, plan.script.task_config)
    except TaskError:
        return  # `check_rewards` has reported it
    problems = _load_problems(plan, task, batches, began, rows, findings)
    if tokenizer is not None:
        _check_vocabulary(tokenizer, config, findings)
        _check_text(plan, task, tokenizer, problems, config, began, rows, findings)
    if rows:
        findings.sections.append(("Prompts", rows))


def _load_tokenizer(plan: Plan, findings: Findings) -> PreTrainedTokenizerBase | None:
    try:
        return load_tokenizer(plan.script, plan.training, plan.model)
    except Exception as error:  # a library's, of files that can hold anything: the run would end with it
        if not any(problem.name == "model_name_or_path" for problem in findings.problems):
            name = plan.script.tokenizer_name_or_path or plan.model.model_name_or_path
            allowed, fix = "a folder or Hub model with a tokenizer", "name one that has a tokenizer"
            cause = first_line(error.__cause__ or error)
            findings.problems.append(Problem("tokenizer_name_or_path", name, allowed, fix, cause))
        return None


def _load_problems(
    plan: Plan, task: Task, batches: BatchPlan, began: RunRecord, rows: list[tuple[str, str]], findings: Findings
) -> Dataset | None:
    """Some of the problems to train on, and whether the run has enough of them for one generation batch."""
    settings = DataSettings.of(plan.script)
    # A generator never runs out, so that a few of many problems tell how many there are; the others are counted, and so
    # are those of a run that is resumed, which have to be the same.
    few = not began.data and task.generates(settings.dataset) and settings.max_samples > PROMPTS_LOOKED_AT
    try:
        sides = hold_out(replace(settings, max_samples=PROMPTS_LOOKED_AT) if few else settings)
    except (OSError, ValueError) as error:
        fix = task.how_to_get_data
        cause = first_line(error)
        findings.problems.append(Problem("dataset_id_or_path", settings.dataset, "readable problems", fix, cause))
        return None
    if changed := find_change(sides, began.data):
        findings.problems.append(changed)
    total = settings.max_samples if few else len(sides.train) + len(sides.held_out)
    for_training = total - round(total * settings.test_size) if few else len(sides.train)
    rows.append(("problems", f"{total} from {settings.dataset}, {for_training} to train on"))
    groups = batches.generation_batch // batches.generations
    if for_training < groups:
        allowed = f"enough for {groups} training problems, those of one generation batch"
        cause = f"{for_training} of {total} problems are left to train on"
        fix = "use more problems or a smaller batch"
        findings.problems.append(Problem("max_samples", settings.max_samples, allowed, fix, cause))
    return sides.train.select(range(min(PROMPTS_LOOKED_AT, len(sides.train))))


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig | None, findings: Findings) -> None:
    """Every token has a row in the model's embedding."""
    size = config.get_text_config().vocab_size if config is not None else None
    if size is not None and len(tokenizer) > size:
        allowed, fix = f"at most the model's vocabulary of {size}", "use the tokenizer that belongs to the model"
        findings.problems.append(Problem("number of tokens in the tokenizer", len(tokenizer), allowed, fix))


def _check_text(
    plan: Plan,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset | None,
    config: PretrainedConfig | None,
    began: RunRecord,
    rows: list[tuple[str, str]],
    findings: Findings,
) -> None:
    """The prompts end in the prefill and are short enough, and a right answer comes back as one."""
    limit = plan.script.max_prompt_length
    try:
        settings = read_prompt_settings(plan.script, plan.training, began.prompt)
        writer = PromptWriter(tokenizer, task, settings)
        form = writer.format
        kept, dropped = build_prompts(problems, task, tokenizer, limit, settings) if problems else (None, 0)
    except PromptError as error:
        findings.problems.append(Problem("the prompt", "unusable", PROMPT_WANTED, error.fix, error.cause))
        return
    if changed := find_prompt_change(writer.example(), began.prompt):
        findings.problems.append(changed)
    plain = "plain text, " if settings.style == "base" else ""
    rows.append(("prompt", f"{plain}ends in {task.prefill!r}, at most one BOS"))
    if form.folds:
        findings.notes.append("the chat template has no system role: the system text stands in front of the user's")
    if kept is not None and problems is not None:
        lengths = [len(ids) for ids in tokenizer(text=kept["prompt"][:])["input_ids"]]
        rows.append(("length", f"{min(lengths)} to {max(lengths)} tokens of {limit} in {len(problems)} problems"))
        if plan.script.method == "sft":
            _check_demonstrations(plan, task, tokenizer, kept, rows, findings)
    if dropped:
        findings.notes.append(
            f"{dropped} of {len(problems or ())} prompts looked at exceed max_prompt_length={limit} and drop out"
        )
    stops = _stop_tokens(plan, tokenizer, config)
    if problem := check_round_trip(form, stops, task):
        findings.problems.append(problem)
    else:
        rows.append(("completions", f"a right answer is read as one, and ends in {stops.names(tokenizer)}"))


def _check_demonstrations(
    plan: Plan,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    rows: list[tuple[str, str]],
    findings: Findings,
) -> None:
    """There are some, they are short enough, and the rewards would be given for them."""
    limit = int(plan.training.max_completion_length or 0)
    shown = [(row, text) for row in rows_of(problems) if (text := demonstrate(task, row, plan.training.seed))]
    lengths = [len(tokenizer(text=text, add_special_tokens=False)["input_ids"]) + 1 for _, text in shown]
    if not shown:
        cause = f"none of the {len(problems)} problems looked at has one"
        fix = "set method: grpo, or a task that writes them, or data with the column demonstration"
        findings.problems.append(Problem("method", "sft", "problems with demonstrations", fix, cause))
        return
    if min(lengths) > limit:
        cause = f"the demonstrations looked at have {min(lengths)} to {max(lengths)} tokens"
        fix = f"set max_completion_length: {max(lengths)} to keep them all"
        findings.problems.append(Problem("max_completion_length", limit, "enough for demonstrations", fix, cause))
        return
    solve = sum(task.judge(text, row).reward == 1.0 and task.in_format(text) for row, text in shown)
    words = f"{len(shown)} of {len(problems)} problems, {solve} of them right and in format"
    rows.append(("demonstrations", f"{words}, {min(lengths)} to {max(lengths)} tokens of {limit}"))
    if solve < len(shown):
        findings.notes.append(f"{len(shown) - solve} demonstrations looked at would not be rewarded by GRPO afterwards")
    if longer := sum(length > limit for length in lengths):
        findings.notes.append(f"{longer} demonstrations looked at exceed max_completion_length={limit} and drop out")


def _stop_tokens(plan: Plan, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig | None) -> StopTokens:
    name, revision = str(plan.model.model_name_or_path), plan.model.model_revision
    own = None
    if plan.generation == "colocate" and plan.script.tokenizer_name_or_path:
        with suppress(ModelError):  # then vLLM has no other than ours, either
            own = loading.load_tokenizer(name, revision=revision, trust_remote_code=plan.training.trust_remote_code)
    return stop_tokens(tokenizer, generation_config(name, revision, config) if config is not None else None, own)
