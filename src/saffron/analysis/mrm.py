"""How well the MRM predicts the PRM on held-out prefixes (Figure 4b)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saffron import records
from saffron.analysis.statistics import (
    ANY,
    AT_MOST_1,
    NOT_NEGATIVE,
    SHARE,
    Estimate,
    Range,
    interval,
    jackknife_error,
    student_t,
)
from saffron.config import Config
from saffron.layout import Layout
from saffron.records import RecordError

Array = NDArray[np.float64]

#: Statistics of ``figure4b_summary.csv``.
STATISTICS = (
    "n_points",
    "prm_reward_min",
    "prm_reward_max",
    "prm_reward_mean",
    "fraction_prm_negative",
    "mae",
    "rmse",
    "mean_signed_error",
    "fraction_within_1",
    "pearson_r",
    "r_squared",
    "sign_agreement",
)

_RESAMPLED = STATISTICS[3:]

#: Where an interval ends: what each statistic can be.
_WITHIN: dict[str, Range] = {
    "fraction_prm_negative": SHARE,
    "mae": NOT_NEGATIVE,
    "rmse": NOT_NEGATIVE,
    "fraction_within_1": SHARE,
    "pearson_r": (-1.0, 1.0),
    "r_squared": AT_MOST_1,
    "sign_agreement": SHARE,
}


def load(config: Config, layout: Layout, seed: int, variant: str = "default") -> pd.DataFrame:
    """Held-out prefixes with both rewards (records.MRM_EVALUATION).

    Raises:
        RecordError: if the table is missing, holds fewer prefixes than there should be, or a reward that is not finite.
    """
    path = layout.mrm(seed, variant) / "evaluation.parquet"
    frame = records.read_table(path, records.MRM_EVALUATION)
    held_out = int(records.read_json(path.with_suffix(".json"))["held_out_prefixes"])
    wanted = min(config.mrm.evaluation_prefixes, held_out)
    if len(frame) != wanted or not wanted:
        raise RecordError(
            f"{path}: column mrm_reward: {len(frame)} prefixes, expected {wanted} (mrm.evaluation_prefixes is "
            f"{config.mrm.evaluation_prefixes}, {held_out} are held out); delete it and run the mrm stage again"
        )
    for column in ("prm_reward", "mrm_reward", "previous_reward"):
        bad = int((~np.isfinite(frame[column])).sum())
        if bad:
            raise RecordError(f"{path}: column {column}: not a finite number in {bad} rows; run the mrm stage again")
    return frame


def _sums(frame: pd.DataFrame, conversations: pd.Index | None = None) -> Array:
    """Sufficient statistics per conversation, [conversations, 10]; the frame's own, sorted, if none are given."""
    p, m = frame["prm_reward"].to_numpy(float), frame["mrm_reward"].to_numpy(float)
    columns = np.stack(
        [np.ones_like(p), p, m, p * p, m * m, p * m, np.abs(m - p), np.abs(m - p) <= 1, np.sign(p) == np.sign(m), p < 0], axis=1
    )
    ids = _conversations([frame]) if conversations is None else conversations
    groups = ids.get_indexer(frame["conversation_id"])
    sums = np.zeros((len(ids), columns.shape[1]))
    np.add.at(sums, groups, columns)
    return sums


def _conversations(frames: Iterable[pd.DataFrame]) -> pd.Index:
    return pd.Index(np.unique(np.concatenate([frame["conversation_id"].to_numpy() for frame in frames])))


def _from_sums(sums: Array) -> dict[str, Array]:
    n, p, m, pp, mm, pm, absolute, within, agree, negative = np.moveaxis(sums, -1, 0) / sums[..., 0]
    count = sums[..., 0]
    square = pp + mm - 2 * pm
    variance_p, variance_m, covariance = pp - p * p, mm - m * m, pm - p * m
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "n_points": count * n,
            "prm_reward_mean": p,
            "fraction_prm_negative": negative,
            "mae": absolute,
            "rmse": np.sqrt(np.maximum(square, 0)),
            "mean_signed_error": m - p,
            "fraction_within_1": within,
            "pearson_r": covariance / np.sqrt(variance_p * variance_m),
            "r_squared": 1 - square / variance_p,
            "sign_agreement": agree,
        }


def summary(frame: pd.DataFrame) -> dict[str, float]:
    """Every statistic of Figure 4b of one table; signed errors are M(s)[a] - R(sa)."""
    values = {name: float(value) for name, value in _from_sums(_sums(frame).sum(axis=0)).items()}
    values["prm_reward_min"] = float(frame["prm_reward"].min())
    values["prm_reward_max"] = float(frame["prm_reward"].max())
    return {name: values[name] for name in STATISTICS}


def persistence(frame: pd.DataFrame) -> pd.DataFrame:
    """The same prefixes with R(s) in the place of M(s)[a]: what predicting that a token changes nothing gives."""
    return frame.assign(mrm_reward=frame["previous_reward"])


def at_outputs(rows: pd.DataFrame, guard: str) -> pd.DataFrame:
    """Both rewards at the last token of Saffron-1's outputs, in the columns of held-out prefixes.

    The MRM's reward chose these outputs, so it is too high where it errs: agreement here is what the search rests on, and
    lower than on held-out text.

    Args:
        rows: judged search rows of one training seed at one width.
        guard: their column that holds the guard's reward.
    """
    frame = rows.rename(columns={"reward": "mrm_reward", guard: "prm_reward", "prompt_id": "conversation_id"})
    return frame[["conversation_id", "mrm_reward", "prm_reward"]]


def estimates(frames: dict[int, pd.DataFrame], *, samples: int, seed: int, confidence: float) -> dict[str, Estimate]:
    """Statistics with intervals: conversations resampled, the same for every training seed, and seeds as clusters."""
    generator = np.random.default_rng([seed, len(frames)])
    summaries = [summary(frame) for frame in frames.values()]
    ids = _conversations(frames.values())
    weights = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=samples).astype(float)
    resampled = [_from_sums(weights @ _sums(frame, ids)) for frame in frames.values()]
    draws = student_t(generator, len(frames), samples)
    result = {}
    for name in STATISTICS:
        per_seed = tuple(values[name] for values in summaries)
        low = high = error = None
        if name in _RESAMPLED:
            means = np.mean([values[name] for values in resampled], axis=0)
            own = np.array(per_seed)
            with np.errstate(invalid="ignore"):  # of a single output R² is not defined
                between = jackknife_error((own.sum() - own) / max(len(own) - 1, 1))
            low, high, error = interval(means, between, draws, confidence, _WITHIN.get(name, ANY))
        n = sum(len(frame) for frame in frames.values())
        result[name] = Estimate(float(np.mean(per_seed)), low, high, per_seed, n=n, standard_error=error)
    return result
