from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.analysis.statistics import Bootstrap, Cells, Estimate, exact, percentile_interval, resampling_weights, wilson


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


def test_seeds_are_resampled_as_clusters() -> None:
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


@given(st.integers(1, 4), st.integers(1, 30))
def test_weights_sum_to_one(seeds: int, prompts: int) -> None:
    by_seed, by_prompt = resampling_weights(0, seeds, prompts, 20)
    assert by_seed.shape == (20, seeds) and by_prompt.shape == (20, prompts)
    assert np.allclose(by_seed.sum(axis=1), 1) and np.allclose(by_prompt.sum(axis=1), 1)


def test_undefined_resamples_widen_an_interval() -> None:
    values = np.arange(100, dtype=float)
    assert percentile_interval(values, 0.9) == (4, 94)
    values[:20] = np.nan
    assert percentile_interval(values, 0.9) == (None, None)


def test_estimates_survive_json() -> None:
    estimate = Estimate(0.5, 0.25, None, (0.5, None), n=3, note="x")
    assert Estimate.from_record(estimate.as_record()) == estimate
    assert exact(float("inf")).as_record()["value"] is None
