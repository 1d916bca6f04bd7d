from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_results

from saffron import records
from saffron.analysis import mrm
from saffron.layout import Layout
from saffron.mrm import agreement
from saffron.records import RecordError


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    layout = Layout("made", tmp_path)
    (layout.mrm(0)).mkdir(parents=True)
    synthetic_results.write_mrm(layout, 0, points=400)
    return mrm.load(synthetic_results.config(), layout, 0)


def test_every_statistic_by_its_definition(frame: pd.DataFrame) -> None:
    r, m = frame["prm_reward"].to_numpy(float), frame["mrm_reward"].to_numpy(float)
    found = agreement.statistics(frame)
    assert found["n_points"] == 400
    assert found["mae"] == pytest.approx(np.abs(m - r).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(((m - r) ** 2).mean()))
    assert found["mean_signed_error"] == pytest.approx((m - r).mean())
    assert found["fraction_within_1"] == pytest.approx((np.abs(m - r) <= 1).mean())
    assert found["pearson_r"] == pytest.approx(np.corrcoef(r, m)[0, 1])
    assert found["r_squared"] == pytest.approx(1 - ((m - r) ** 2).sum() / ((r - r.mean()) ** 2).sum())
    assert found["sign_agreement"] == pytest.approx(((r < 0) == (m < 0)).mean())
    assert found["fraction_prm_negative"] == pytest.approx((r < 0).mean())
    assert (found["prm_reward_min"], found["prm_reward_max"]) == (pytest.approx(r.min()), pytest.approx(r.max()))


def test_the_summary_holds_what_the_papers_does(frame: pd.DataFrame) -> None:
    from saffron.analysis import paper

    assert list(agreement.statistics(frame)) == paper.table("figure4b_summary")["statistic"].tolist()


def test_intervals_hold_the_value_and_conversations_are_the_unit(frame: pd.DataFrame) -> None:
    found = mrm.estimates({0: frame, 1: frame}, samples=200, seed=0, confidence=0.95)
    for name in ("mae", "r_squared", "sign_agreement"):
        estimate = found[name]
        assert estimate.low is not None and estimate.high is not None and estimate.value is not None
        assert estimate.low <= estimate.value <= estimate.high and len(estimate.per_seed) == 2
    # The same rows in fewer conversations know less.
    coarse = frame.assign(conversation_id=["a", "b"] * 200)
    wide = mrm.estimates({0: coarse}, samples=200, seed=0, confidence=0.95)
    assert wide["mae"].n == 400


def test_seeds_on_the_same_conversations_do_not_make_them_more(frame: pd.DataFrame) -> None:
    one, many = (
        mrm.estimates({seed: frame for seed in range(seeds)}, samples=2000, seed=0, confidence=0.95)["mae"] for seeds in (1, 6)
    )
    assert many.standard_error == pytest.approx(one.standard_error, rel=0.1)


def test_conversations_that_one_seed_lacks_are_drawn_with_the_others(frame: pd.DataFrame) -> None:
    ids = frame["conversation_id"].unique()
    parts = {seed: frame[frame["conversation_id"].isin(half)] for seed, half in enumerate((ids[: len(ids) // 2], ids[1:]))}
    found = mrm.estimates(parts, samples=200, seed=0, confidence=0.95)["mae"]
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert found.per_seed == pytest.approx([agreement.statistics(part)["mae"] for part in parts.values()])


def test_persistence_is_the_reward_before_the_token(frame: pd.DataFrame) -> None:
    still = agreement.statistics(agreement.persistence(frame))
    assert still["mae"] == pytest.approx(np.abs(frame["previous_reward"] - frame["prm_reward"]).mean())
    assert still["prm_reward_mean"] == agreement.statistics(frame)["prm_reward_mean"]


def test_a_reward_that_is_not_finite_is_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    layout = Layout("made", tmp_path)
    frame.loc[5, "mrm_reward"] = float("nan")
    records.write_table(layout.mrm(0) / "evaluation.parquet", frame, records.MRM_EVALUATION)
    with pytest.raises(RecordError, match=r"evaluation\.parquet: column mrm_reward: not a finite number in 1 rows"):
        mrm.load(synthetic_results.config(), layout, 0)
