from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saffron.analysis.statistics import (
    Bootstrap,
    Cells,
    Estimate,
    exact,
    jackknife_error,
    percentile_interval,
    resampling_weights,
    wilson,
)


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_rate_and_stays_in_0_1(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, 0.95)
    assert 0 <= low <= successes / n + 1e-12 and successes / n - 1e-12 <= high <= 1
    assert high > low
    mirrored = wilson(n - successes, n, 0.95)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_wilson_known_value() -> None:
    # 8 of 10: a textbook value.
    assert wilson(8, 10, 0.95) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_rate(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        wilson(successes, n, 0.95)


def _cells(values: np.ndarray) -> Cells:
    return Cells(tuple(range(len(values))), {"asr": values.astype(float)})


def test_differences_are_paired_over_prompts() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(200) < 0.5
    # b fails on a subset of a's prompts: paired, the difference is certain to be negative although both rates vary widely.
    values = np.stack([[hard], [hard & (generator.random(200) < 0.8)]])
    boot = Bootstrap(_cells(values), samples=400, seed=0, confidence=0.95)
    paired = boot.estimate(lambda means: means[..., 1] - means[..., 0], "asr")
    a, b = boot.rate("asr", 0), boot.rate("asr", 1)
    assert paired.high is not None and paired.high < 0
    assert b.high is not None and a.low is not None and b.high > a.low
    assert paired.per_seed == pytest.approx((float(values[1].mean() - values[0].mean()),))


def test_seeds_are_clusters() -> None:
    # Three seeds that agree on nothing but are certain within themselves: all variance is between seeds.
    values = np.stack([[np.ones(50), np.zeros(50), np.zeros(50)]])
    boot = Bootstrap(_cells(values), samples=2000, seed=1, confidence=0.95)
    estimate = boot.rate("asr", 0)
    assert estimate.value == pytest.approx(1 / 3)
    assert (estimate.low, estimate.high) == (0, 1)
    assert estimate.per_seed == (1, 0, 0)


def test_one_seed_gives_wilson_and_the_same_bytes_every_time() -> None:
    values = (np.random.default_rng(3).random((2, 1, 60)) < 0.3).astype(float)
    first, second = (Bootstrap(_cells(values), 300, 7, 0.95) for _ in range(2))
    assert (first.rate("asr", 0).low, first.rate("asr", 0).high) == wilson(values[0].sum(), 60, 0.95)
    assert first.estimate(lambda m: m[..., 0] - m[..., 1], "asr") == second.estimate(lambda m: m[..., 0] - m[..., 1], "asr")


def _difference(values: np.ndarray, samples: int = 1000) -> Estimate:
    """The second cell less the first."""
    return Bootstrap(_cells(values), samples, 0, 0.95).estimate(lambda means: means[..., 1] - means[..., 0], "asr")


def _experiment(generator: np.random.Generator, seeds: int, prompts: int, deviation: float) -> np.ndarray:
    """0/1 outcomes [2, seeds, prompts] of two methods on prompts of differing difficulty, each seed with a shift of its own.

    Their rates differ by 0.2 in expectation, and ``deviation`` is that of the difference over seeds. Shifts are of
    probabilities, uniform, so the truth is exact.
    """
    shift = generator.uniform(-1, 1, (2, seeds, 1)) * deviation * (3 / 2) ** 0.5
    difficulty = generator.uniform(-0.15, 0.15, (2, 1, prompts))
    return generator.random((2, seeds, prompts)) < np.array([0.5, 0.3])[:, None, None] + difficulty + shift


@pytest.mark.parametrize(("seeds", "prompts", "deviation"), [(8, 330, 0.1), (8, 200, 0.05), (3, 200, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, prompts: int, deviation: float) -> None:
    generator = np.random.default_rng([seeds, prompts])
    held = 0
    for _ in range(400):
        estimate = _difference(_experiment(generator, seeds, prompts, deviation))
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= -0.2 <= estimate.high
    assert 0.92 <= held / 400 <= 0.99  # 95 % nominal; three standard errors of 400 experiments are 3 %


@given(st.integers(2, 9), st.data())
def test_the_seeds_error_of_a_mean_is_its_standard_error(seeds: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=seeds, max_size=seeds)))
    without_each = (values.sum() - values) / (seeds - 1)
    assert jackknife_error(without_each) == pytest.approx(values.std(ddof=1) / seeds**0.5, abs=1e-12)


def test_a_standard_error_is_of_prompts_and_of_seeds() -> None:
    generator = np.random.default_rng(4)
    values = _experiment(generator, 6, 4000, 0.1).astype(float)
    own = (values[1] - values[0]).mean(axis=1)
    of_prompts = (values[1] - values[0]).mean(axis=0).std() / 4000**0.5
    found = _difference(values).standard_error
    assert found == pytest.approx(np.hypot(own.std(ddof=1) / 6**0.5, of_prompts), rel=0.01)
    assert Bootstrap(_cells(np.ones((1, 1, 9))), 100, 0, 0.95).rate("asr", 0).standard_error is None


@settings(max_examples=50)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_the_order_of_training_seeds_changes_nothing(seeds: int, draw: int) -> None:
    generator = np.random.default_rng(draw)
    values = (generator.random((2, seeds, 30)) < 0.5).astype(float)
    one, other = (_difference(each, 100) for each in (values, values[:, generator.permutation(seeds)]))
    assert (one.low, one.high, one.standard_error) == pytest.approx((other.low, other.high, other.standard_error), abs=1e-9)


@given(st.integers(1, 4), st.integers(1, 30))
def test_weights_sum_to_one_and_one_seed_has_no_error(seeds: int, prompts: int) -> None:
    by_prompt, draws = resampling_weights(0, seeds, prompts, 20)
    assert by_prompt.shape == (20, prompts) and draws.shape == (20,)
    assert np.allclose(by_prompt.sum(axis=1), 1) and (draws == 0).all() == (seeds == 1)


def test_another_scale_keeps_what_is_undefined() -> None:
    estimate = Estimate(0.0, None, 800.0, (0.0, None), n=3, note="x", standard_error=0.1)
    assert estimate.mapped(np.exp) == Estimate(1.0, None, None, (1.0, None), n=3, note="x")


def test_an_interval_ends_where_its_quantity_does() -> None:
    boot = Bootstrap(_cells(np.stack([[np.ones(50), np.ones(50), np.r_[np.zeros(20), np.ones(30)]]])), 500, 0, 0.95)
    assert boot.rate("asr", 0).high == 1
    free = boot.estimate(lambda means: means[..., 0], "asr")
    assert free.high is not None and free.high > 1


def test_undefined_resamples_widen_an_interval() -> None:
    values = np.arange(100, dtype=float)
    assert percentile_interval(values, 0.9) == (4, 94)
    values[:20] = np.nan
    assert percentile_interval(values, 0.9) == (None, None)


def test_estimates_survive_json() -> None:
    estimate = Estimate(0.5, 0.25, None, (0.5, None), n=3, note="x")
    assert Estimate.from_record(estimate.as_record()) == estimate
    assert exact(float("inf")).as_record()["value"] is None
