"""pass@k against its definition, and intervals against what they promise."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_r1.results.statistics import bootstrap_ratios, paired_difference, pass_at_k


@st.composite
def samples_right_and_k(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(samples_right_and_k())
def test_pass_at_k_is_the_share_of_choices_with_a_right_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    right = [index < c for index in range(n)]
    choices = [any(choice) for choice in combinations(right, k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(choices) / len(choices), abs=1e-12)


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not() -> None:
    p, n, k = 0.2, 6, 3
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    assert sum(chance[c] * pass_at_k(n, c, k) for c in range(n + 1)) == pytest.approx(truth, abs=1e-12)
    assert sum(chance[c] * (1 - (1 - c / n) ** k) for c in range(n + 1)) < truth - 0.01


def test_pass_at_k_stays_finite_for_many_samples() -> None:
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)
    assert pass_at_k(10_000, 5_000, 9_000) == 1.0


@pytest.mark.parametrize("n, c, k", [(4, 0, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_impossible(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    truth, puzzles, trials = 0.3, 80, 400
    held = 0
    for trial in range(trials):
        solved = rng.random(puzzles) < truth
        estimate = bootstrap_ratios({"solved": (solved, np.ones(puzzles))}, seed=trial, resamples=500)["solved"]
        held += estimate.low <= truth <= estimate.high
    assert 0.91 <= held / trials <= 0.98


def test_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    lengths = np.random.default_rng(1).normal(100, 15, size=400)
    estimate = bootstrap_ratios({"length": (lengths, np.ones(400))}, seed=0)["length"]
    assert estimate.value == pytest.approx(lengths.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * lengths.std() / math.sqrt(400), rel=0.1)


def test_identical_samples_of_a_puzzle_do_not_count_as_more_evidence() -> None:
    solved = np.random.default_rng(2).random(100) < 0.5
    samples = np.repeat(solved, 4)  # four times the same answer to each puzzle
    clustered = bootstrap_ratios({"solved": (samples.reshape(100, 4).mean(1), np.ones(100))}, seed=0)["solved"]
    naive = bootstrap_ratios({"solved": (samples, np.ones(400))}, seed=0)["solved"]
    assert clustered.value == naive.value
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(2, rel=0.15)


def test_ratio_of_sums_weighs_each_equation_alike() -> None:
    right, equations = [1, 90], [1, 100]
    estimate = bootstrap_ratios({"arithmetic": (right, equations)}, seed=0)["arithmetic"]
    assert estimate.value == pytest.approx(91 / 101)  # the mean of the two shares would be 0.95
    assert (estimate.low, estimate.high) == (0.9, 1.0)  # numerator and denominator are drawn together


def test_nothing_to_measure_is_left_out_and_no_puzzles_is_an_error() -> None:
    estimates = bootstrap_ratios({"none": ([0, 0], [0, 0]), "some": ([0, 3], [0, 4])}, seed=0)
    assert "none" not in estimates
    assert (estimates["some"].value, estimates["some"].low, estimates["some"].high) == (0.75, 0.75, 0.75)
    with pytest.raises(ValueError, match="no ratios"):
        bootstrap_ratios({"none": ([], [])}, seed=0)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).random(50)
    first, again, other = (bootstrap_ratios({"a": (values, np.ones(50))}, seed=seed)["a"] for seed in (0, 0, 1))
    assert first == again != other


def test_pairing_sees_a_small_gain_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(4)
    before = rng.random(200)
    after = before + 0.02 + rng.normal(0, 0.01, 200)
    gain = paired_difference(list(before), list(after), seed=0)
    separate = bootstrap_ratios({"before": (before, np.ones(200)), "after": (after, np.ones(200))}, seed=0)
    assert gain.value == pytest.approx(0.02, abs=0.003)
    assert gain.low > 0.015
    assert separate["after"].low < separate["before"].high
    with pytest.raises(ValueError):
        paired_difference([0.1, 0.2], [0.1], seed=0)
