"""The trainer: TRL's GRPOTrainer, without most of its padding, and under the control of those who run it.

The one module for private names of TRL, but for one of its SFTTrainer in `mini_r1.train.cold_start`: whatever this
project must override or call of them is here.
tests/train/test_trainer.py has them in a table, and fails when one of them moves.

* Padding: TRL pads all completions of a generation batch to the longest, and computes log-probabilities on all of it.
  Here each batch is cut to its own longest completion; and where the recipe asks for `length_buckets`, its rows are
  sorted by length and computed in so many parts, each only as wide as it must be: the same loss and the same gradient,
  in less time. benchmarks/results/step.md has the gain.
* Prompts: where the recipe asks for `share_prompts`, each is read once for all of its completions
  (`mini_r1.train.shared_prompts`).
* What vLLM wrote: how much of it TRL lets count is logged; and where the recipe asks for `skip_old_logps`, its weights
  are made of the log-probabilities of the loss, without a pass of their own (`mini_r1.train.sample_weights`).
* Dynamic sampling: where the recipe asks for it, groups that teach nothing are replaced (`mini_r1.train.resampling`).
* Resume: TRL's order of the data and its generation cycle continue where the checkpoint was (`mini_r1.train.resume`).
* Interrupts: an evaluation can be left at its next token (`mini_r1.train.interrupts`).
"""

import contextlib
import copy
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.generation import StoppingCriteriaList
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOConfig, GRPOTrainer, ModelConfig

from mini_r1.generation.decoding import decode_without_ended
from mini_r1.policy.checkpoints import Checkpoint
from mini_r1.prompts.build import PromptWriter
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import is_on_policy
from mini_r1.recipe.read import load_tokenizer, read_prompt_settings
from mini_r1.runs.holdout import DataSettings, Sides, hold_out
from mini_r1.tasks.registry import rewards_of
from mini_r1.tasks.task import RewardFunction
from mini_r1.train.data import prepare_datasets
from mini_r1.train.interrupts import StopRequest, highest
from mini_r1.train.orderly import OrderlyTrainer, model_arguments
from mini_r1.train.progress import SolveRateProgress
from mini_r1.train.resampling import Batch, Resampled, draw, replace_uniform_groups
from mini_r1.train.resume import epochs_done, load_generation, save_generation, skip_epochs
from mini_r1.train.sample_weights import (
    WARN_ABOVE,
    WeightsInLoss,
    count_out_of_bounds,
    metric_name,
    to_log,
    warning,
)
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.shared_prompts import SharedPrompts, by_prompt

logger = logging.getLogger(__name__)


class R1Trainer(OrderlyTrainer, GRPOTrainer):
    """A GRPOTrainer for text that computes no log-probability of padding, and can be resumed and stopped in order.

    Attributes:
        length_buckets: parts that a batch is computed in, by length of completion; 1 only cuts off common padding.
        skip_zero_advantage: whether the loss leaves out completions that have an advantage of 0.
        share_prompts: whether a prompt is read once for all of its completions, in the loss and in `generate`.
        skip_old_logps: whether the loss itself weighs what vLLM wrote, where that is of the policy as it is.
        resample_uniform_groups: how often a generation's groups with equal rewards are tried to be replaced.
        unrecorded: makes a context in which no samples are kept.
    """

    length_buckets = 1
    skip_zero_advantage = False
    share_prompts = False
    skip_old_logps = False
    resample_uniform_groups = 0
    unrecorded: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    _has_warned_of_weights = False
    _learned: Tensor | None = None  # (batch,), while a loss is computed: which completions add to its gradient
    _to_weigh: dict[str, Any] | None = None  # while a loss is computed: its inputs, if they still have no weights
    _weights: WeightsInLoss | None = None  # since the last update
    _buffered_inputs: Any  # of a generation, typed as None by TRL
    processing_class: Any  # a tokenizer, and the next a number: typed otherwise by transformers
    num_generations: Any

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As in TRL: (batch, logits_to_keep) log-probabilities, entropies, and an auxiliary loss, here always None."""
        # A completion's own mask ends with its end token, so its sum is its length.
        mask = attention_mask[:, -logits_to_keep:]
        lengths = mask.sum(dim=1)
        order = lengths.argsort(descending=True)
        if self._learned is not None:
            order = rows_to_compute(order, self._learned, at_least=self.length_buckets)
        prompt_length = input_ids.shape[1] - logits_to_keep
        if self.share_prompts and prompt_length > 1:
            model = SharedPrompts(model, input_ids[order, :prompt_length], attention_mask[order, :prompt_length])
        logps, entropies = [], []
        for part in order.tensor_split(self.length_buckets):
            if not len(part):
                continue
            width = max(1, int(lengths[part].max()))
            surplus = logits_to_keep - width
            columns = slice(0, input_ids.shape[1] - surplus)
            part_logps, part_entropies, _ = super()._get_per_token_logps_and_entropies(
                model, input_ids[part, columns], attention_mask[part, columns], width, **kwargs
            )
            logps.append(pad(part_logps, (0, surplus)))
            if part_entropies is not None:
                entropies.append(pad(part_entropies, (0, surplus)))
        in_batch = _in_batch(torch.cat(logps), order, mask)
        if self._to_weigh is not None:
            known = torch.zeros_like(lengths, dtype=torch.bool).index_fill(0, order, True)
            self._weights = self._weights or WeightsInLoss()
            self._weights.weigh(self._to_weigh, in_batch, known, self.args)
        return in_batch, _in_batch(torch.cat(entropies), order, mask) if entropies else None, None

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """As in TRL; the recipe may leave out completions with advantage 0, and the pass for vLLM's weights."""
        if self.skip_zero_advantage and self.model.training:
            self._learned = inputs["advantages"] != 0
        if self._weighs_in_loss:
            self._to_weigh = inputs
        try:
            loss: Tensor = super()._compute_loss(model, inputs)
        finally:
            self._learned = self._to_weigh = None
        if self._weights and self.accelerator.sync_gradients:
            self._log_weights(self._weights)
            self._weights = None
        return loss

    @property
    def _weighs_in_loss(self) -> bool:
        """Whether the loss has to weigh what vLLM wrote, since no pass before it has."""
        corrects = self.use_vllm and self.args.vllm_importance_sampling_correction
        return self.skip_old_logps and corrects and is_on_policy(self.args)

    def _log_weights(self, weights: WeightsInLoss) -> None:
        """Log, over all processes, what TRL logs of the weights that it makes itself."""
        totals = self.accelerator.gather(cast(Tensor, weights.totals)[None]).sum(dim=0)
        extremes = self.accelerator.gather(cast(Tensor, weights.extremes)[None]).amax(dim=0)
        found = to_log(totals, extremes, self.args)
        self._log_lost(found.pop(metric_name(self.args)))
        for name, value in found.items():
            self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As in TRL; where prompts are shared, the completions of one are trained on together."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.share_prompts and self._buffered_inputs is not before:
            self._buffered_inputs = by_prompt(self._buffered_inputs, self.args.gradient_accumulation_steps)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """As in TRL; in training, the recipe may have groups with equal rewards replaced."""
        batch = self._generate_and_watch(inputs)
        if not (self.resample_uniform_groups and self.model.training):
            return batch
        with self._unlogged(), self.unrecorded():
            done = replace_uniform_groups(
                batch,
                self._generate_fresh,
                functools.partial(highest, args=self.args),
                self.resample_uniform_groups,
                self.num_generations,
                self.processing_class.pad_token_id,
            )
        self._log_resampling(done)
        items = self.accelerator.gather(done.batch["completion_mask"].sum()).sum()
        return {**done.batch, "num_items_in_batch": items}

    def _generate_fresh(self, number: int, groups: int) -> Batch:
        """Groups of problems that depend on seed, generation and try alone, so that a resumed run has the same."""
        generation = self._step // (self.args.steps_per_generation * self.num_iterations)
        seed, place = (self.args.seed, generation, number), (self.args.process_index, self.args.world_size)
        problems = cast(Any, self.train_dataset)
        chosen = draw(len(problems), groups, seed, *place)
        rows = [problems[index] for index in chosen for _ in range(self.num_generations)]
        return cast(Batch, self._generate_and_watch(rows))

    @contextlib.contextmanager
    def _unlogged(self) -> Iterator[None]:
        """Keep what is generated inside out of metrics and logged completions; its tokens count."""
        metrics, logs = self._metrics["train"], dict(self._logs)
        self._metrics["train"] = defaultdict(list, num_tokens=metrics["num_tokens"])
        self._logs.update(copy.deepcopy(logs))
        try:
            yield
        finally:
            metrics["num_tokens"] = self._metrics["train"]["num_tokens"]
            self._metrics["train"] = metrics
            self._logs.update(logs)

    def _log_resampling(self, done: Resampled) -> None:
        """Log, over all processes: shares of all groups, and completions generated besides per completion trained."""
        counts = torch.tensor([[done.groups, done.uniform, done.replaced, done.generated]], device=self.args.device)
        groups, *counted = self.accelerator.gather(counts).sum(dim=0).tolist()
        for name, count in zip(("uniform_groups", "replaced_groups", "extra_completions"), counted, strict=True):
            self._metrics["train"][f"resampling/{name}"].append(count / groups)

    def _generate_and_watch(self, inputs: Any) -> Any:
        """As TRL generates; logs the share of vLLM's samples that is zeroed or truncated, and warns once if high."""
        corrects = self.vllm_importance_sampling_correction
        self.vllm_importance_sampling_correction = corrects and not self._weighs_in_loss  # or the loss corrects
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction = corrects
        counted = count_out_of_bounds(batch, self.args)
        if counted is not None:
            beyond, total = self.accelerator.gather(counted[None]).sum(dim=0).tolist()
            self._log_lost(beyond / max(total, 1))
        return batch

    def _log_lost(self, share: float) -> None:
        """Log the share of vLLM's samples that is zeroed or truncated; warn of it, once, if it is high."""
        self._metrics["train" if self.model.training else "eval"][metric_name(self.args)].append(share)
        if share > WARN_ABOVE and not self._has_warned_of_weights and self.accelerator.is_main_process:
            logger.warning(warning(share, self.args))
        self._has_warned_of_weights |= share > WARN_ABOVE

    def watch(self, stop: StopRequest) -> None:
        """Let a signal, or numbers that are not finite, end the run in order; one process, at the next token."""
        super().watch(stop)
        if self.args.world_size == 1 and self.stop_on_request:
            self.generate_with(stopping_criteria=StoppingCriteriaList([self.stop_on_request.token_by_token]))

    def generate_with(self, **options: Any) -> None:
        """Give more options to each `generate` of the policy."""
        policy = self.accelerator.unwrap_model(self.model)
        policy.generate = functools.partial(policy.generate, **options)

    def train_from(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end, from a checkpoint where there is one.

        Transformers skips the batches done in the current epoch, but TRL seeds its sampler anew, so that a run resumed
        in its second epoch repeats the first one's order; and it counts micro-batches from 0, so that a run resumed
        between two generations (`steps_per_generation` or `num_iterations` over several steps) mixes up its prompts,
        and generates again what its next updates learn from.
        """
        if checkpoint:
            self._step = checkpoint.step * self.args.gradient_accumulation_steps
            self._buffered_inputs = load_generation(checkpoint.folder, self.args)
        super().train_from(checkpoint)

    def add_to_checkpoint(self, folder: Path) -> None:
        """Save the completions that the next updates still learn from, if there are some."""
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            save_generation(folder, self._buffered_inputs, self.args)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """As in TRL; of a resumed run, with the epochs behind it skipped."""
        sampler = super()._get_train_sampler(*args, **kwargs)
        if self.resumes:
            skip_epochs(sampler, epochs_done(self.resumes))
        return sampler


def rows_to_compute(order: Tensor, learned: Tensor, at_least: int) -> Tensor:
    """Those rows of `order`, in that order, that are learned from; filled up with the last others to `at_least` rows.

    So every process calls the model equally often, which ZeRO-3 and DDP need, also where all its advantages are 0.

    >>> rows_to_compute(torch.tensor([2, 0, 1, 3]), torch.tensor([False, True, False, False]), at_least=2)
    tensor([1, 3])
    """
    keep = learned[order]
    others = (~keep).nonzero().flatten()
    missing_rows = max(0, at_least - int(keep.sum()))
    keep[others[len(others) - min(missing_rows, len(others)) :]] = True
    return order[keep]


def _in_batch(values: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Values of some rows in the place of these rows in the batch; the other rows get the mean of the values.

    Args:
        values: (rows, length).
        rows: (rows,), indices into the batch.
        mask: (batch, length), 1 for tokens that count.
    """
    if len(rows) == len(mask):
        return values[rows.argsort()]
    counted = mask[rows]
    mean = (values.detach() * counted).sum() / counted.sum().clamp(min=1)  # so that the logged mean is of what is known
    return mean.to(values.dtype).expand(mask.shape).index_copy(0, rows, values)


def build_trainer(
    script: ScriptArguments,
    training: GRPOConfig,
    model: ModelConfig,
    recorder: SampleRecorder,
    sides: Sides | None = None,
    rewards: Mapping[str, RewardFunction] | None = None,
    writer: PromptWriter | None = None,
) -> R1Trainer:
    """TRL's trainer with the task's problems and rewards; all that the recipe says of the model reaches the model.

    `sides` and `writer` save loading problems and tokenizer again; without the latter the prompts are those of a new
    run. `rewards` take the place of those that the recipe names, where a notebook has functions that no recipe could
    name.
    """
    tokenizer = writer.tokenizer if writer else load_tokenizer(script, training, model)
    prompt_settings = writer.format.settings if writer else read_prompt_settings(script, training)
    if prompt_settings.chat_template:
        tokenizer.chat_template = prompt_settings.chat_template  # and it is saved with the model
    sides = sides or hold_out(DataSettings.of(script))
    rewards = rewards or rewards_of(sides.task, script.reward_funcs, training.max_completion_length)
    train, test = prepare_datasets(script, tokenizer, sides, prompt_settings)
    trainer = R1Trainer(
        reward_funcs=cast(Any, recorder.observe(sides.task, rewards)),
        train_dataset=train,
        eval_dataset=test if training.eval_strategy != "no" or training.eval_on_start else None,
        processing_class=tokenizer,
        **model_arguments(training, model),
    )
    trainer.prepare(model, SolveRateProgress())
    trainer.length_buckets = script.length_buckets
    trainer.skip_zero_advantage, trainer.skip_old_logps = script.skip_zero_advantage, script.skip_old_logps
    trainer.share_prompts = script.share_prompts
    trainer.resample_uniform_groups, trainer.unrecorded = script.resample_uniform_groups, recorder.pause
    if not is_deepspeed_zero3_enabled():  # there, all processes must run the model equally often
        decode = functools.partial(decode_without_ended, share_prompts=script.share_prompts)
        trainer.generate_with(custom_generate=decode)
    return trainer
