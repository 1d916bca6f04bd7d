"""How many training seeds show a difference: the parts of a spread, and a power that is checked by repeating experiments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic_results
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from saffron import cli
from saffron.analysis import power
from saffron.analysis.claims import sign_verdict
from saffron.analysis.power import Spread
from saffron.analysis.statistics import Bootstrap, Cells, Estimate, detectable
from saffron.analysis.study import Study
from saffron.config import ConfigError


def _differences(generator: np.random.Generator, parts: Spread, seeds: int, prompts: int) -> np.ndarray:
    own, shared = generator.normal(0, parts.seeds, (seeds, 1)), generator.normal(0, parts.prompts, prompts)
    return parts.mean + own + shared + generator.normal(0, parts.within, (seeds, prompts))


def _estimate(differences: np.ndarray) -> Estimate:
    cells = Cells(("difference",), {"asr": differences[None]})
    return Bootstrap(cells, 400, 0, 0.95).estimate(lambda means: means[..., 0], "asr")


def test_a_spread_is_found_again() -> None:
    made = Spread(-0.1, 0.08, 0.3, 0.4)
    found = power.spread(_differences(np.random.default_rng(0), made, 400, 400))
    assert (found.seeds, found.prompts, found.within) == pytest.approx((0.08, 0.3, 0.4), rel=0.1)
    assert found.mean == pytest.approx(-0.1, abs=0.05)


def test_parts_that_are_not_there_are_zero() -> None:
    rows = np.random.default_rng(1).normal(size=(1, 50)).repeat(4, axis=0)
    assert power.spread(rows) == Spread(float(rows.mean()), 0.0, pytest.approx(rows[0].std(ddof=1)), pytest.approx(0, abs=1e-9))
    with pytest.raises(ValueError, match="1 training seeds and 50 prompts"):
        power.spread(rows[:1])


@pytest.mark.parametrize(("seeds", "prompts", "between"), [(8, 200, 0.1), (8, 330, 0.04), (4, 200, 0.06)])
def test_a_detectable_difference_is_seen_four_times_in_five(seeds: int, prompts: int, between: float) -> None:
    parts = Spread(0.0, between, 0.4, 0.45)
    planned = power.detectable(parts, seeds, prompts)
    generator = np.random.default_rng([seeds, prompts])
    true = Spread(planned, parts.seeds, parts.prompts, parts.within)
    found = [_estimate(_differences(generator, true, seeds, prompts)) for _ in range(400)]
    seen = np.mean([sign_verdict(estimate, 1)[0] == "reproduced" for estimate in found])
    assert seen == pytest.approx(0.8, abs=0.06)  # three standard errors of 400 experiments
    assert np.mean([detectable(estimate) for estimate in found]) == pytest.approx(planned, rel=0.1)


def test_with_many_seeds_it_is_2_8_standard_errors() -> None:
    estimate = Estimate(0.0, -1.96, 1.96, (0.0,) * 50, standard_error=1.0)
    assert detectable(estimate) == pytest.approx(1.96 + 0.84, abs=0.005)
    assert power.detectable(Spread(0, 0.1, 0, 0), 2000, 100) == pytest.approx(2.8 * 0.1 / 2000**0.5, rel=0.02)
    assert detectable(Estimate(0.1, 0.0, 0.2, (0.1,))) is None


@settings(max_examples=15)
@given(st.floats(0, 0.2), st.floats(0, 0.5), st.floats(0.1, 0.5))
def test_more_seeds_and_more_prompts_show_less(seeds: float, prompts: float, within: float) -> None:
    parts = Spread(0.0, seeds, prompts, within)
    few, many = power.detectable(parts, 4, 200), power.detectable(parts, 8, 200)
    assert many < few and power.detectable(parts, 4, 400) < few
    needed = power.seeds_needed(parts, 200, few)
    assert needed is not None and needed <= 4


def test_a_difference_below_what_prompts_alone_allow_needs_more_seeds_than_there_are() -> None:
    assert power.seeds_needed(Spread(0.0, 0.05, 1.0, 0.4), 100, 0.1, most=30) is None


def test_differences_are_of_the_two_cells_by_the_guard(three_seeds: Study) -> None:
    config, layout = three_seeds.config, three_seeds.layout
    found = power.differences(config, layout, "scaling/saffron-default/32", "scaling/best_of_n-default/32")
    assert found.shape == (3, len(three_seeds.results("scaling").prompt_ids))
    frame = three_seeds.results("scaling").frame
    rate = frame[frame["budget"] == 32].groupby(["method", "train_seed"])["asr"].mean()
    assert found.mean(axis=1) == pytest.approx((rate["saffron"] - rate["best_of_n"]).to_numpy())


def test_cells_may_stand_in_two_experiments_on_the_same_prompts(three_seeds: Study) -> None:
    config, layout = three_seeds.config, three_seeds.layout
    found = power.differences(config, layout, "deepalign/no_defense-deepalign/0", "scaling/no_defense-default/0")
    assert found.shape[0] == 3 and (found != 0).any()
    for other in ("matched", "exploration"):  # other prompts, and the first of the same ones
        cell = "no_defense-default/0" if other == "matched" else "beam_search-children2/8"
        with pytest.raises(ConfigError, match=f"scaling and {other} are on different prompts"):
            power.differences(config, layout, "scaling/saffron-default/32", f"{other}/{cell}")


@pytest.mark.parametrize(
    "cell", ["scaling", "scaling/saffron/32", "saffron-default/32", "scaling/saffron-default/x", "scaling/-/1"]
)
def test_a_cell_that_is_not_written_so_is_refused(three_seeds: Study, cell: str) -> None:
    with pytest.raises(ConfigError, match="EXPERIMENT/METHOD-SETTINGS/BUDGET, like development/best_of_n-default/32"):
        power.differences(three_seeds.config, three_seeds.layout, cell, "scaling/best_of_n-default/32")


def test_one_training_seed_shows_no_spread(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli.app, ["power", "a/b-c/1", "a/d-e/1", "--config", str(synthetic_results.PROJECT / "config/smoke.yaml")]
    )
    assert isinstance(result.exception, ConfigError) and "train_seeds has one seed" in str(result.exception)


def test_the_table_has_a_line_per_number_of_seeds() -> None:
    found = _differences(np.random.default_rng(2), Spread(-0.2, 0.05, 0.3, 0.4), 8, 200)
    lines = power.render(found, "x less y", 330, 0.1, 0.95).splitlines()
    assert lines[0].startswith("x less y: -0.") and "on 8 training seeds and 200 prompts" in lines[0]
    table = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [int(seeds) for seeds, _ in table] == list(power.SEEDS)
    falling = [float(seen) for _, seen in table]
    assert falling == sorted(falling, reverse=True)
    assert (
        lines[-1]
        == f"least number of training seeds for a difference of 0.1: {power.seeds_needed(power.spread(found), 330, 0.1)}"
    )
