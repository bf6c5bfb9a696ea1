"""Dynamic sampling: groups that teach nothing make room for fresh ones, and everything of a completion goes with it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.utils import pad

from conftest import Train
from mini_r1.recipe.read import parse_recipe
from mini_r1.runs.records import points, read_log
from mini_r1.train.resampling import Resampled, draw, put_groups, replace_uniform_groups
from mini_r1.train.samples import RECORDS, SampleRecorder
from mini_r1.train.trainer import R1Trainer, build_trainer

PAD = 99
Row = tuple[int, int, int, float]  # a number that tells it from the others, tokens of prompt and completion, advantage
OLD: list[Row] = [(1, 2, 3, 0.0), (2, 2, 1, 0.0), (3, 1, 2, 0.5), (4, 1, 3, -0.5), (5, 2, 2, 1e-4), (6, 2, 3, 1e-4)]
FRESH: list[Row] = [(11, 4, 5, 0.0), (12, 4, 2, 0.0), (13, 4, 5, 1.0), (14, 4, 1, -1.0), (15, 4, 4, 2.0), (16, 4, 5, 1)]


def batch_of(rows: list[Row], per_token: bool = True) -> dict[str, Tensor]:
    """Completions as TRL hands them on, padded by its own function; every number of a row can be told from the others'.

    Args:
        per_token: whether vLLM's importance ratio is one per token or one per completion.
    """

    def padded(position: int, value: float, side: str, fill: int, dtype: torch.dtype = torch.float32) -> Tensor:
        texts = [torch.full((int(row[position]),), row[0] + value if value >= 0 else 1.0, dtype=dtype) for row in rows]
        return pad(texts, padding_value=fill, padding_side=side)

    whole = torch.long
    ratio = padded(2, 0.25, "right", 1) if per_token else torch.tensor([[row[0] + 0.25] for row in rows])
    mask = padded(2, -1, "right", 0, whole)
    return {
        "prompt_ids": padded(1, 0, "left", PAD, whole),
        "prompt_mask": padded(1, -1, "left", 0, whole),
        "completion_ids": padded(2, 0, "right", PAD, whole),
        "completion_mask": mask,
        "advantages": torch.tensor([row[3] for row in rows]),
        "num_items_in_batch": mask.sum(),
        "old_per_token_logps": padded(2, 0.5, "right", 0),
        "sampling_per_token_logps": padded(2, 0.75, "right", 0),
        "ref_per_token_logps": padded(2, 0.125, "right", 0),
        "importance_sampling_ratio": ratio,
    }


def same(ours: Any, theirs: dict[str, Tensor]) -> bool:
    """Whether two batches are equal but for the number of items, which the trainer counts over all processes."""
    names = theirs.keys() - {"num_items_in_batch"}
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in names)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("fresh_is_wider", [True, False])
def test_a_batch_with_fresh_groups_is_as_trl_would_have_padded_it(fresh_is_wider: bool, per_token: bool) -> None:
    old, fresh = (OLD, FRESH) if fresh_is_wider else (FRESH, OLD)
    slots, chosen = torch.tensor([2, 0]), torch.tensor([1, 2])
    merged = put_groups(batch_of(old, per_token), slots, batch_of(fresh, per_token), chosen, 2, PAD)
    rows = [*fresh[4:6], *old[2:4], *fresh[2:4]]
    assert same(merged, batch_of(rows, per_token))


def replace(tries: int, batches: list[list[Row]], elsewhere: int = 0) -> tuple[Resampled, list[tuple[int, int]]]:
    """Replace in OLD, whose groups 0 and 2 are uniform, and say what was asked for; another process has `elsewhere`."""
    asked: list[tuple[int, int]] = []

    def generate(number: int, groups: int) -> dict[str, Tensor]:
        asked.append((number, groups))
        rows = batches[number - 1]
        assert len(rows) == 2 * groups
        return batch_of(rows)

    return replace_uniform_groups(batch_of(OLD), generate, lambda left: max(left, elsewhere), tries, 2, PAD), asked


def test_what_a_try_leaves_uniform_is_tried_again_and_then_stays() -> None:
    once, asked = replace(1, [FRESH[:4]])
    assert asked == [(1, 2)] and (once.groups, once.uniform, once.replaced, once.generated) == (3, 2, 1, 2)
    assert torch.equal(once.batch["advantages"], torch.tensor([1.0, -1.0, 0.5, -0.5, 1e-4, 1e-4]))
    twice, asked = replace(9, [FRESH[:4], FRESH[4:]])  # and no third time, with nothing left to replace
    assert asked == [(1, 2), (2, 1)] and (twice.uniform, twice.replaced, twice.generated) == (2, 2, 3)
    assert same(twice.batch, batch_of([*FRESH[2:4], *OLD[2:4], *FRESH[4:]]))


def test_a_process_generates_as_many_as_the_one_that_needs_most() -> None:
    """Else the others would wait for it forever; what it does not need is left."""
    done, asked = replace(2, [FRESH, FRESH], elsewhere=3)
    assert asked == [(1, 3), (2, 3)] and (done.replaced, done.generated) == (2, 6)
    assert same(done.batch, batch_of([*FRESH[2:4], *OLD[2:4], *FRESH[4:]]))


def test_problems_are_drawn_by_the_seed_alone_and_differ_between_processes() -> None:
    parts = [draw(100, 50, (42, 3, 1), process, 2) for process in (0, 1)]
    assert sorted(parts[0] + parts[1]) == list(range(100))
    assert parts[0] == draw(100, 50, (42, 3, 1), 0, 2)
    others = [draw(100, 50, seed, 0, 2) for seed in ((43, 3, 1), (42, 4, 1), (42, 3, 2))]
    assert all(other != parts[0] for other in others)
    assert draw(3, 4, (42, 3, 1), 0, 1)[3] == draw(3, 4, (42, 3, 1), 0, 1)[0]  # fewer problems than asked for


# --- in the trainer --------------------------------------------------------------------------------------------------


def varied_if_odd(completions: list[str], target: list[int], **columns: Any) -> list[float]:
    """A reward that is the same for all completions of a puzzle with an even target, and never for the others'."""
    return [1.0 + (goal % 2) * (index % 4) for index, goal in enumerate(target)]


@pytest.fixture(scope="module")
def trainer(small_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[R1Trainer]:
    """With groups of 4, of which the even ones teach nothing; samples are kept."""
    folder = tmp_path_factory.mktemp("resampling")
    more = [
        "--output_dir",
        str(folder),
        "--report_to",
        "none",
        "--resample_uniform_groups",
        "8",
        "--log_completions",
        "1",
    ]
    recipe = parse_recipe([*small_arguments, *more])
    yield build_trainer(*recipe, SampleRecorder(folder, per_step=16), rewards={"varied": varied_if_odd})


def generate(trainer: R1Trainer, training: bool, evens: int) -> tuple[Any, dict[str, list[float]]]:
    """One batch of 4 groups, of which the first `evens` have even targets, and what was logged of it."""
    (trainer.model.train if training else trainer.model.eval)()
    mode = "train" if training else "eval"
    trainer._metrics[mode].clear()
    data: Any = trainer.train_dataset
    by_parity = [[row for row in data if row["target"] % 2 == parity] for parity in (0, 1)]
    rows = [*by_parity[0][:evens], *by_parity[1][: 4 - evens]]
    torch.manual_seed(0)
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(4)])
    return batch, dict(trainer._metrics[mode])


def test_only_groups_that_teach_are_left_and_all_counts_are_of_them(trainer: R1Trainer) -> None:
    batch, logged = generate(trainer, training=True, evens=3)
    assert (batch["advantages"].view(4, 4).std(dim=1) > 0).all()
    texts = trainer.processing_class.batch_decode(batch["prompt_ids"])
    assert [len(set(texts[group : group + 4])) for group in (0, 4, 8, 12)] == [1] * 4
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert logged["resampling/uniform_groups"] == logged["resampling/replaced_groups"] == [3 / 4]
    assert logged["resampling/extra_completions"][0] >= 3 / 4


def test_what_is_logged_is_of_the_completions_before_any_was_replaced(trainer: R1Trainer) -> None:
    """The curves stay a measure of the policy; but every token that was generated is counted."""
    tokens = trainer.state.num_input_tokens_seen
    samples = Path(trainer.args.output_dir) / RECORDS
    samples.unlink(missing_ok=True)
    _, replaced = generate(trainer, training=True, evens=3)
    many = trainer.state.num_input_tokens_seen - tokens
    table = {name: list(trainer._logs[name]) for name in ("prompt", "completion", "advantages")}
    assert len(samples.read_text().splitlines()) == 16
    trainer.resample_uniform_groups = 0
    try:
        _, plain = generate(trainer, training=True, evens=3)
    finally:
        trainer.resample_uniform_groups = 8
    few = trainer.state.num_input_tokens_seen - tokens - many
    assert many > few > 0 and replaced["num_tokens"] == [tokens + many]
    extra = {f"resampling/{name}" for name in ("uniform_groups", "replaced_groups", "extra_completions")}
    assert replaced.keys() == plain.keys() | extra
    assert all(replaced[name] == plain[name] for name in plain.keys() - {"num_tokens"})
    assert plain["frac_reward_zero_std"] == [3 / 4]
    assert table == {name: list(trainer._logs[name]) for name in table}


def test_nothing_is_generated_again_without_need_or_in_an_evaluation(trainer: R1Trainer) -> None:
    tokens = trainer.state.num_input_tokens_seen
    _, logged = generate(trainer, training=True, evens=0)
    assert logged["resampling/extra_completions"] == [0]
    assert (
        logged["num_tokens"] == [trainer.state.num_input_tokens_seen] and trainer.state.num_input_tokens_seen > tokens
    )
    trainer._metrics["train"].clear()  # where it would be logged
    generate(trainer, training=False, evens=3)
    assert not trainer._metrics["train"]


def test_a_resumed_run_draws_the_same_problems_as_an_unbroken_one(tmp_path: Path, train: Train) -> None:
    """To the last bit; and a run that replaces nothing ends elsewhere."""
    whole, resumed, plain = (tmp_path / name for name in ("whole", "resumed", "plain"))
    short = ["--eval_strategy", "no", "--eval_on_start", "false", "--report_to", "none"]
    more = [*short, "--resample_uniform_groups", "2"]
    assert train(whole, *more) == 0
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    assert train(resumed, *more) == 0
    assert train(plain, *short) == 0
    models = [(folder / "model.safetensors").read_bytes() for folder in (whole, resumed, plain)]
    assert models[0] == models[1] != models[2]
    curves = [
        points(read_log(folder / "trainer_state.json"), "resampling/replaced_groups") for folder in (whole, resumed)
    ]
    assert curves[0] == curves[1] and sorted(curves[0]) == [1, 2, 3, 4] and max(curves[0].values()) > 0
