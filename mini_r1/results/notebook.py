"""What the notebook shows of a training: curves that grow, and the same problems before, during and after."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from IPython.display import HTML, Image, display
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.generation.sampling import Completion, generate_completions
from mini_r1.prompts.build import PromptWriter
from mini_r1.prompts.settings import PromptSettings
from mini_r1.results.plots import LIGHT, Panel, draw, panels_of
from mini_r1.tasks.task import CORRECT, Row, Task, rows_of

OF_THE_LOSS = (
    Panel("kl", "Distance from the base", "kl", "KL divergence (nats per token)"),
    Panel("entropy", "Entropy", "entropy", "nats per token"),
)


class LiveCurves(TrainerCallback):
    """Draws the curves of a run into one output of the cell, again after every `every` steps and at the end."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.handle: Any = None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            picture = Image(draw((*panels_of(state.log_history), *OF_THE_LOSS), state.log_history, LIGHT), width=825)
            if self.handle is None:
                self.handle = display(picture, display_id=True)
            else:
                self.handle.update(picture)


class Diary(TrainerCallback):
    """Lets the policy solve the same problems at some steps, with the same random numbers.

    Attributes:
        pages: step -> one completion per problem.
    """

    def __init__(
        self,
        problems: Dataset,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        steps: Sequence[int],
        max_completion_length: int,
        prompt_settings: PromptSettings | None = None,
    ) -> None:
        self.problems, self.tokenizer, self.steps = problems, tokenizer, steps
        self.writer = PromptWriter(tokenizer, task, prompt_settings)
        self.max_completion_length = max_completion_length
        self.pages: dict[int, list[Completion]] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._write(state.global_step, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._write(state.global_step, kwargs["model"])

    def _write(self, step: int, model: Any) -> None:
        if step not in self.steps or step in self.pages:
            return
        prompts = [self.writer.write(row) for row in rows_of(self.problems)]
        written = generate_completions(
            model,
            self.tokenizer,
            prompts,
            samples=1,
            temperature=1.0,
            max_completion_length=self.max_completion_length,
            batch_size=len(prompts),
            seed=0,
        )
        self.pages[step] = [row[0] for row in written]


def side_by_side(problems: Dataset, task: Task, pages: Mapping[str, Sequence[Completion]], longest: int = 1200) -> HTML:
    """A table with a row for each problem and a column for each page; completions stay text whatever they hold.

    Args:
        pages: heading -> one completion per problem.
        longest: characters of a completion that are shown, from both its ends.
    """
    rows = []
    for index, row in enumerate(rows_of(problems)):
        cells = "".join(_cell(completions[index], row, task, longest) for completions in pages.values())
        rows.append(f"<tr><td>{html.escape(task.show(row))}</td>{cells}</tr>")
    heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in ("problem", *pages))
    return HTML(f"<table><tr>{heads}</tr>{''.join(rows)}</table>")


def _cell(completion: Completion, row: Row, task: Task, longest: int) -> str:
    verdict = task.judge(completion.text, row)
    mark = "✓" if verdict.reason == CORRECT else "✗"
    text = completion.text.strip()
    if len(text) > longest:
        text = f"{text[: longest // 2]}\n[… {len(text) - longest} characters …]\n{text[-longest // 2 :]}"
    note = f"{mark} {verdict.reason}, {completion.tokens} tokens"
    return (
        f'<td style="text-align: left; vertical-align: top"><b>{html.escape(note)}</b>'
        f"<pre>{html.escape(text)}</pre></td>"
    )
