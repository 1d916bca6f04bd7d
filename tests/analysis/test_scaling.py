from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.analysis import paper, scaling

positive = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("method", ["saffron", "best_of_n", "rebase", "deal"])
def test_the_papers_points_give_back_the_papers_fits(method: str) -> None:
    points, printed = paper.table("figure2"), paper.table("figure2_fits").set_index("method").loc[method]
    points = points[points["method"] == method]
    fit = scaling.log_fit(points["tflop"].tolist(), points["asr"].tolist())
    assert fit.intercept == pytest.approx(printed["intercept"], abs=1e-3)
    assert fit.slope == pytest.approx(printed["slope_per_ln_tflop"], abs=1e-3)
    assert fit.r_squared > 0.9


def test_table_1_gives_back_its_printed_scaleff() -> None:
    for _, row in paper.table("table1").iterrows():
        assert scaling.scaleff(row["tflop"], row["asr"], row["tflop_limit"]) == pytest.approx(row["scaleff"], abs=1e-3)


def test_the_papers_fits_give_its_threefold_reduction() -> None:
    points = paper.table("figure2").set_index("method")
    best, saffron = points.loc["best_of_n"], points.loc["saffron"]
    ratio = scaling.log_compute_ratio(
        best["tflop"].to_numpy(),
        best["asr"].to_numpy(),
        saffron["tflop"].to_numpy(),
        saffron["asr"].to_numpy(),
        best["asr"].to_numpy()[-1],
    )
    assert np.exp(ratio) == pytest.approx(3.0, abs=0.05)


def test_scaleff_of_no_attack_success_is_undefined() -> None:
    assert scaling.scaleff(10, 0, 100) is None


@given(positive, st.floats(0.01, 1), positive, st.floats(0.01, 1), positive)
def test_sign_quantity_has_the_sign_of_the_difference(
    cost_a: float, asr_a: float, cost_b: float, asr_b: float, limit: float
) -> None:
    a, b = scaling.scaleff(cost_a, asr_a, limit), scaling.scaleff(cost_b, asr_b, limit)
    assert a is not None and b is not None
    sign = scaling.scaleff_difference_sign(*(np.array(x) for x in (cost_a, asr_a, cost_b, asr_b)), limit)
    assert float(sign) == pytest.approx((b - a) * asr_a * asr_b, abs=1e-9)


@given(st.floats(-1, 1), st.floats(-1, 1), st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True))
def test_a_log_law_is_found_exactly(intercept: float, slope: float, compute: list[int]) -> None:
    x = np.array(compute, dtype=float)
    fit = scaling.log_fit(x.tolist(), (intercept + slope * np.log(x)).tolist())
    assert fit.intercept == pytest.approx(intercept, abs=1e-6) and fit.slope == pytest.approx(slope, abs=1e-6)


def test_a_fit_needs_two_points_of_positive_and_different_compute() -> None:
    for compute in ([1.0], [0.0, 1.0], [2.0, 2.0, 2.0]):
        with pytest.raises(ValueError, match="two points or more"):
            scaling.log_fit(compute, [0.5] * len(compute))


def test_compute_at_equal_asr_is_interpolated_or_a_bound() -> None:
    compute, asr = [1.0, 10.0, 100.0], [0.8, 0.6, 0.2]
    assert scaling.measured_compute_at(compute, asr, 0.7) == scaling.Crossing(pytest.approx(np.sqrt(10)), "")
    assert scaling.measured_compute_at(compute, asr, 0.6) == scaling.Crossing(pytest.approx(10), "")
    assert scaling.measured_compute_at(compute, asr, 0.9) == scaling.Crossing(1.0, "at most")
    assert scaling.measured_compute_at(compute, asr, 0.1) == scaling.Crossing(None, "not reached")


def test_a_rising_fit_has_no_compute_at_an_asr() -> None:
    ratio = scaling.log_compute_ratio(
        np.array([1.0, 2]), np.array([0.1, 0.2]), np.array([1.0, 2]), np.array([0.2, 0.1]), np.array(0.1)
    )
    assert np.isnan(ratio)
