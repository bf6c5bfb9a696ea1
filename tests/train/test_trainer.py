"""The trainer: log-probabilities, entropies and gradients are TRL's, with most of the padding left out."""

import ast
import inspect
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer, SFTTrainer

from conftest import ROOT
from helpers.loss_inputs import log_probabilities_of_trl, loss_inputs
from mini_r1.recipe.read import parse_recipe
from mini_r1.train.sample_weights import WeightsInLoss, to_log
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.trainer import R1Trainer, build_trainer

PROMPT, LONGEST = 22, 40
Outputs = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def trainer(small_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[R1Trainer]:
    folder = tmp_path_factory.mktemp("trimming")
    recipe = parse_recipe([*small_arguments, "--output_dir", str(folder), "--report_to", "none"])
    yield build_trainer(*recipe, SampleRecorder(Path(folder), per_step=0))


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    """Nine completions of 1 to 33 tokens, none as long as the padding that TRL would keep for another micro-batch."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 200, (9, PROMPT + LONGEST), generator=generator)
    mask = torch.ones_like(input_ids)
    for row, length in enumerate([5, 33, 1, 12, 12, 30, 2, 8, 20]):
        mask[row, PROMPT + length :] = 0
    mask[3, :4] = 0  # a shorter prompt
    return {"input_ids": input_ids, "attention_mask": mask, "logits_to_keep": LONGEST, "compute_entropy": True}


def compute(trainer: R1Trainer, batch: dict[str, Any], ours: bool, buckets: int = 1) -> Outputs:
    """Log-probabilities and entropies of the completions' tokens, and the gradient of a loss with a weight per row."""
    trainer.length_buckets = buckets
    kind = R1Trainer if ours else GRPOTrainer
    model: Any = trainer.model
    model.zero_grad()
    logps, entropies, _ = kind._get_per_token_logps_and_entropies(trainer, model, **batch)
    assert logps.shape == (9, LONGEST)
    mask = batch["attention_mask"][:, -LONGEST:]
    weights = torch.arange(1, 10)[:, None] * mask
    (logps * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logps.detach()[mask.bool()], entropies.detach()[mask.bool()], gradients


@pytest.mark.parametrize("buckets", [1, 4, 20])
def test_values_and_gradients_are_those_of_trl(trainer: R1Trainer, batch: dict[str, Any], buckets: int) -> None:
    ours, theirs = compute(trainer, batch, True, buckets), compute(trainer, batch, False)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert ours[2].keys() == theirs[2].keys()
    for name, gradient in theirs[2].items():
        error = (ours[2][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize(("buckets", "widths"), [(1, [33]), (3, [33, 12, 5])])
def test_no_more_columns_are_computed_than_the_longest_completion_needs(
    trainer: R1Trainer, batch: dict[str, Any], buckets: int, widths: list[int]
) -> None:
    seen: list[int] = []
    model: Any = trainer.model
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1] - PROMPT), with_kwargs=True
    )
    compute(trainer, batch, True, buckets)
    hook.remove()
    assert seen == widths


LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"]
ADVANTAGES = {
    "some": [0.0, 1.0, 0.0, -0.5, 0.0, 0.0, 2.0, 0.0, -1.0],
    "one": [0.0, 0.0, 0.0, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0],
    "none": [0.0] * 9,
}


def learn(trainer: R1Trainer, batch: dict[str, Any], advantages: list[float], skip: bool | None) -> dict[str, Any]:
    """Loss, gradients and rows computed of one batch: by TRL (`skip` is None), or by ours with or without skipping."""
    model: Any = trainer.model.train().double()  # float32 rounds batches of other shapes differently, by 1e-5
    model.zero_grad()
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    trainer.current_gradient_accumulation_steps, trainer.length_buckets = 1, 1 if skip is None else 2
    trainer.skip_zero_advantage = bool(skip)
    inputs = loss_inputs(batch, PROMPT, advantages)
    with log_probabilities_of_trl() if skip is None else nullcontext():
        loss = trainer._compute_loss(model, inputs)
    loss.backward()
    hook.remove()
    trainer.skip_zero_advantage = False
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.float()
    entropy = trainer._metrics["train"]["entropy"][-1]
    return {"loss": loss.item(), "gradients": gradients, "rows": rows, "entropy": entropy}


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("kind", ADVANTAGES)
def test_skipping_leaves_the_gradient_as_it_is(
    trainer: R1Trainer, batch: dict[str, Any], loss_type: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "epsilon_high", 5.0)  # CISPO's is a bound of its own
    advantages = ADVANTAGES[kind]
    theirs, ours = (learn(trainer, batch, advantages, skip) for skip in (None, True))
    assert theirs["rows"] == [9] and sum(ours["rows"]) == max(2, sum(a != 0 for a in advantages))
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    assert ours["gradients"].keys() == theirs["gradients"].keys()
    for name, gradient in theirs["gradients"].items():
        error = (ours["gradients"][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-7, (name, error)


def test_without_skipping_all_completions_are_computed(trainer: R1Trainer, batch: dict[str, Any]) -> None:
    every = learn(trainer, batch, ADVANTAGES["some"], skip=False)
    assert sum(every["rows"]) == 9
    ones = learn(trainer, batch, [1.0] * 9, skip=True)
    assert sum(ones["rows"]) == 9 and ones["entropy"] == pytest.approx(every["entropy"], rel=1e-6)


# Each private name of the modules that may have some, with the text by which TRL or transformers calls or uses it.
PRIVATE = {
    "_get_per_token_logps_and_entropies": (GRPOTrainer, "self._get_per_token_logps_and_entropies("),
    "_compute_loss": (GRPOTrainer, "self._compute_loss("),
    "_prepare_inputs": (GRPOTrainer, "self._buffered_inputs = ["),
    "_generate_and_score_completions": (GRPOTrainer, "self._generate_and_score_completions("),
    "_logs": (GRPOTrainer, 'self._logs["prompt"].extend('),
    "_metrics": (GRPOTrainer, "self._metrics[mode]"),
    "_buffered_inputs": (GRPOTrainer, "self._buffered_inputs is None"),
    "_step": (GRPOTrainer, "self._step % generate_every == 0"),
    "_get_train_sampler": (GRPOTrainer, "sampler_fn=self._get_train_sampler"),
    "_total_train_tokens": (SFTTrainer, 'self._metrics[mode]["num_tokens"] = [self._total_train_tokens]'),
    "_run_epoch": (Trainer, "self._run_epoch("),
    "_maybe_log_save_evaluate": (Trainer, "self._maybe_log_save_evaluate("),
    "_save_checkpoint": (Trainer, "self._save_checkpoint(model, trial)"),
    "_save": (Trainer, "self._save(output_dir"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_every_private_name_is_still_used_where_it_was(name: str) -> None:
    kind, use = PRIVATE[name]
    assert use in inspect.getsource(kind)


def private_names(path: Path) -> set[str]:
    """Names with one underscore in front that a file takes from an object, but for its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    own |= {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)]
    of_super = {node.attr for node in used if ast.unparse(node.value) == "super()"}
    return {node.attr for node in used if node.attr not in own} | of_super


def test_private_names_are_in_their_module_and_in_the_table() -> None:
    library = ROOT / "mini_r1"
    of_trl, of_transformers = (library / "train" / name for name in ("trainer.py", "orderly.py"))
    names = {kind: {name for name, (owner, _) in PRIVATE.items() if owner is kind} for kind in (GRPOTrainer, Trainer)}
    own = {"_step", "_buffered_inputs"}  # set here as well, so that they count as ours
    assert private_names(of_trl) | own == names[GRPOTrainer]
    assert private_names(of_transformers) == names[Trainer]
    known = (of_trl, of_transformers)
    others = {path: private_names(path) - {"_exit"} for path in library.rglob("*.py") if path not in known}
    assert {str(path.relative_to(library)): names for path, names in others.items() if names} == {}


def test_a_run_on_a_cpu_keeps_the_memory_that_it_frees(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("mini_r1.train.run.keep_freed_memory", lambda: kept.append(True))
    assert train(tmp_path, "--max_steps", "1", "--eval_strategy", "no") == 0
    assert kept == [True]


def test_training_uses_it(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = R1Trainer._get_per_token_logps_and_entropies

    def spy(self: R1Trainer, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.length_buckets)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(R1Trainer, "_get_per_token_logps_and_entropies", spy)
    assert train(tmp_path, "--max_steps", "1", "--eval_strategy", "no", "--length_buckets", "3") == 0
    assert set(seen) == {3}


def test_the_savings_of_a_recipe_reach_the_trainer(small_arguments: list[str], tmp_path: Path) -> None:
    """Each of them leaves results as they are, so that nothing else would show that it was lost on the way."""
    switches = dict.fromkeys(("share_prompts", "skip_zero_advantage", "skip_old_logps"), True)
    savings = {**switches, "length_buckets": 3, "resample_uniform_groups": 2}
    flags = [text for name, value in savings.items() for text in (f"--{name}", str(value))]
    recipe = parse_recipe([*small_arguments, *flags, "--output_dir", str(tmp_path), "--report_to", "none"])
    trainer = build_trainer(*recipe, SampleRecorder(tmp_path, per_step=0))
    assert {name: getattr(trainer, name) for name in savings} == savings


# --- the weights of what vLLM wrote ----------------------------------------------------------------------------------


class MadeUpVllm:
    """Stands in for the server: real completions of 6 tokens, log-probabilities that are off by so much per token."""

    def __init__(self, trainer: Any, differences: list[list[float]]) -> None:
        self.trainer, self.differences = trainer, differences

    def sync_weights(self) -> None:
        """Nothing to copy."""

    def generate(self, prompts: list[list[int]], num_generations: int, **kwargs: Any) -> tuple[Any, ...]:
        completions = [[10 + row, 11, 12, 13, 14, self.trainer.processing_class.eos_token_id] for row in range(16)]
        logprobs = []
        for prompt, completion, differences in zip(prompts, completions, self.differences, strict=True):
            ids = torch.tensor([prompt + completion])
            logps, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(
                self.trainer, self.trainer.model, ids, torch.ones_like(ids), 6
            )
            logprobs.append([[logp - off] for logp, off in zip(logps[0].tolist(), differences, strict=True)])
        return prompts, completions, logprobs, None


def puzzles(trainer: Any) -> list[dict[str, Any]]:
    """A batch of 4 puzzles, 4 times each."""
    return [trainer.train_dataset[index // 4] for index in range(16)]


NONE, SMALL, LARGE = [0.0] * 6, [0.25] * 6, [2.0, *[0.0] * 5]  # ratios: 1; 1.28 a token, 4.5 in all; 7.4 for one token


@pytest.mark.parametrize(
    ("mode", "high", "metric", "share", "said"),
    [
        ("sequence_mask", 3.0, "zeroed", 8 / 16, "50% of the completions of this step count nothing"),
        ("sequence_truncate", 3.0, "truncated", 8 / 16, "50% of the completions of this step have their weight"),
        ("token_mask", 2.0, "zeroed", 2 / 96, None),
        ("token_truncate", 2.0, "truncated", 2 / 96, None),
        ("token_truncate", 1.2, "truncated", 38 / 96, "40% of the tokens of this step have their weight truncated"),
        ("sequence_mask", 10.0, "zeroed", 0.0, None),
    ],
)
def test_the_share_of_vllms_samples_that_is_lost_is_logged(
    trainer: R1Trainer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    high: float,
    metric: str,
    share: float,
    said: str | None,
) -> None:
    """TRL's own path from sampled log-probabilities to weights; made up is only what vLLM answers."""
    differences = [SMALL] * 6 + [LARGE] * 2 + [NONE] * 8
    monkeypatch.setattr(trainer, "use_vllm", True)
    monkeypatch.setattr(trainer, "vllm_generation", MadeUpVllm(trainer, differences), raising=False)
    monkeypatch.setattr(trainer, "_last_loaded_step", -1, raising=False)
    monkeypatch.setattr(trainer, "_has_warned_of_weights", False)
    for owner in (trainer, trainer.args):
        monkeypatch.setattr(owner, "vllm_importance_sampling_mode", mode)
        monkeypatch.setattr(owner, "vllm_importance_sampling_clip_max", high)
    trainer.model.train()
    trainer._metrics["train"].clear()
    rows = puzzles(trainer)
    trainer._generate_and_score_completions(rows)
    trainer._generate_and_score_completions(rows)
    assert trainer._metrics["train"][f"sampling/share_{metric}"] == pytest.approx([share] * 2)
    warnings = [record.message for record in caplog.records if record.name == "mini_r1.train.trainer"]
    assert len(warnings) == (said is not None)  # once in a run
    assert said is None or (warnings[0].startswith(said) and "Fix: " in warnings[0])


def learn_from_vllm(trainer: R1Trainer, skip: bool) -> dict[str, Any]:
    """Two micro-batches of what vLLM wrote, of one update: their gradient, the passes over the model, the metrics."""
    model: Any = trainer.model.train()
    model.zero_grad()
    trainer._metrics["train"].clear()
    trainer.skip_old_logps = skip
    passes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda *args: passes.append(torch.is_grad_enabled()))
    batch = trainer._generate_and_score_completions(puzzles(trainer))
    sampled = dict(trainer._metrics["train"])
    for part in (slice(0, 6), slice(6, 16)):  # unequal ones
        inputs = {name: value[part] if value.dim() else value for name, value in batch.items()}
        trainer.accelerator.gradient_state._set_sync_gradients(part.stop == 16)
        trainer._compute_loss(model, inputs).backward()
    hook.remove()
    trainer.skip_old_logps = False
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"gradients": gradients, "metrics": trainer._metrics["train"], "sampled": sampled, "passes": passes}


@pytest.mark.parametrize("skip_zero_advantage", [False, True])
@pytest.mark.parametrize("loss_type", ["dapo", "cispo"])
@pytest.mark.parametrize("mode", ["sequence_mask", "sequence_truncate", "token_mask", "token_truncate"])
def test_weights_made_in_the_loss_are_those_of_trl(
    trainer: R1Trainer, monkeypatch: pytest.MonkeyPatch, mode: str, loss_type: str, skip_zero_advantage: bool
) -> None:
    """The gradient is the same and so is what is logged, with one pass over the model less."""
    unscored = [float("nan"), *SMALL[1:]]
    vllm = MadeUpVllm(trainer, [SMALL] * 5 + [unscored] + [LARGE] * 2 + [NONE] * 8)
    monkeypatch.setattr(trainer, "use_vllm", True)
    monkeypatch.setattr(trainer, "vllm_generation", vllm, raising=False)
    monkeypatch.setattr(trainer, "_last_loaded_step", -1, raising=False)
    monkeypatch.setattr(trainer, "_has_warned_of_weights", True)
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "epsilon_high", 5.0)
    monkeypatch.setattr(trainer, "skip_zero_advantage", skip_zero_advantage)
    monkeypatch.setattr(trainer, "current_gradient_accumulation_steps", 2, raising=False)
    monkeypatch.setattr(trainer, "length_buckets", 2)
    for owner in (trainer, trainer.args):
        monkeypatch.setattr(owner, "vllm_importance_sampling_mode", mode)
        monkeypatch.setattr(owner, "vllm_importance_sampling_clip_max", 3.0)
    # A reward that is not the same for all, of which one group has equal ones.
    rewards = torch.tensor([[float(row >= 4) * (row % 3)] * len(trainer.reward_funcs) for row in range(16)])
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *args: rewards)
    trainer.model.double()
    try:
        theirs, ours = (learn_from_vllm(trainer, skip) for skip in (False, True))
    finally:
        trainer.model.float()
    assert not any("importance" in name for name in ours["sampled"])
    assert ours["passes"].count(False) == 0 < theirs["passes"].count(False)  # those without gradients
    assert ours["passes"].count(True) == theirs["passes"].count(True)
    for name, gradient in theirs["gradients"].items():
        error = (ours["gradients"][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-7, (name, error)
    assert any(gradient.norm() > 1e-3 for gradient in theirs["gradients"].values())
    assert ours["metrics"].keys() == theirs["metrics"].keys()
    logged = {name for name in theirs["metrics"] if name.startswith("sampling/")}
    assert len(logged) == 6
    if not skip_zero_advantage:  # what is skipped is not in the means
        for name in logged:
            assert ours["metrics"][name] == pytest.approx(theirs["metrics"][name], abs=1e-6), name


@pytest.mark.parametrize("mode", ["sequence_mask", "token_truncate"])
def test_a_completion_that_was_not_computed_has_a_weight_of_1_and_is_not_logged(
    trainer: R1Trainer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Else what stands in its place could be too large a number, of which 0 times is not 0."""
    monkeypatch.setattr(trainer.args, "vllm_importance_sampling_mode", mode)
    logps = torch.tensor([[-1.0, -2.0], [900.0, 900.0]])
    inputs = {
        "completion_mask": torch.ones(2, 2, dtype=torch.long),
        "sampling_per_token_logps": torch.zeros(2, 2) - 1.0,
    }
    weights = WeightsInLoss()
    weights.weigh(inputs, logps, torch.tensor([True, False]), trainer.args)
    assert inputs["importance_sampling_ratio"][1].tolist() == [1.0] * inputs["importance_sampling_ratio"].shape[1]
    assert weights.totals is not None and weights.extremes is not None
    logged = to_log(weights.totals, weights.extremes, trainer.args)
    assert logged["sampling/sampling_logp_difference/max"] == 1.0
    assert logged["sampling/sampling_logp_difference/mean"] == 0.5
    assert logged["sampling/importance_sampling_ratio/max"] <= 1.0


def test_without_vllm_there_is_no_such_metric(trainer: R1Trainer) -> None:
    trainer.model.train()
    trainer._metrics["train"].clear()
    trainer._generate_and_score_completions(puzzles(trainer))
    assert not [name for name in trainer._metrics["train"] if name.startswith("sampling/share")]
