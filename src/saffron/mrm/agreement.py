"""How well the MRM says what the guard says (Figure 4b): the one definition of every statistic, and its intervals.

Points are prefixes s with their observed next token a: ``prm_reward`` is the guard's R(sa), ``mrm_reward`` the MRM's M(s)[a].
Signed errors are M(s)[a] − R(sa).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Statistics of ``figure4b_summary.csv``, in its order; the first three have no interval.
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
RESAMPLED = STATISTICS[3:]


def persistence(points: pd.DataFrame) -> pd.DataFrame:
    """The same points with R(s) in the place of the MRM's M(s)[a]: the prediction that a token changes nothing.

    Rewards of neighbouring prefixes are alike, so that this alone is often accurate; it cannot tell next tokens apart.
    """
    return points.assign(mrm_reward=points["previous_reward"])


def conversations(frames: Iterable[pd.DataFrame]) -> pd.Index:
    """Sorted ids of the conversations of some tables of points."""
    return pd.Index(np.unique(np.concatenate([frame["conversation_id"].to_numpy() for frame in frames])))


def sums(points: pd.DataFrame, ids: pd.Index | None = None) -> Array:
    """Sums over each conversation's points from which every statistic follows, so that a resample is a weighted sum.

    Args:
        points: a table with ``conversation_id``, ``prm_reward`` and ``mrm_reward``.
        ids: conversations, one row each; the table's own, sorted, if none are given.

    Returns:
        [conversations, 12].
    """
    p, m = points["prm_reward"].to_numpy(float), points["mrm_reward"].to_numpy(float)
    error = m - p
    terms = [np.ones_like(p), p, m, p * p, m * m, p * m, error, np.abs(error), error * error]
    # An attack has succeeded where the reward is below 0: a reward of 0 counts as a positive one.
    columns = np.stack([*terms, np.abs(error) <= 1, (p < 0) == (m < 0), p < 0], axis=1)
    rows = conversations([points]) if ids is None else ids
    found = np.zeros((len(rows), columns.shape[1]))
    np.add.at(found, rows.get_indexer(points["conversation_id"]), columns)
    return found


def from_sums(found: Array) -> dict[str, Array]:
    """Statistics [...] of sums [..., 12] (:func:`sums`), but the smallest and largest reward."""
    count = found[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        _, p, m, pp, mm, pm, error, absolute, square, within, sign, negative = np.moveaxis(found, -1, 0) / count
        variance_p, variance_m = pp - p * p, mm - m * m
        return {
            "n_points": count,
            "prm_reward_mean": p,
            "fraction_prm_negative": negative,
            "mae": absolute,
            "rmse": np.sqrt(square),
            "mean_signed_error": error,
            "fraction_within_1": within,
            "pearson_r": (pm - p * m) / np.sqrt(variance_p * variance_m),
            "r_squared": 1 - square / variance_p,
            "sign_agreement": sign,
        }


def statistics(points: pd.DataFrame) -> dict[str, float]:
    """Every statistic of a table of points, in the order of ``STATISTICS``; NaN where one is undefined (a constant reward)."""
    values = {name: float(value) for name, value in from_sums(sums(points).sum(axis=0)).items()}
    values |= {"prm_reward_min": float(points["prm_reward"].min()), "prm_reward_max": float(points["prm_reward"].max())}
    return {name: values[name] for name in STATISTICS}


def as_record(values: dict[str, float]) -> dict[str, float | int | None]:
    """The same as JSON has it: a whole number of points, null for what is undefined."""
    record: dict[str, float | int | None] = {name: value if np.isfinite(value) else None for name, value in values.items()}
    return record | {"n_points": int(values["n_points"])}


def resampled(
    ids: pd.Index, frames: Iterable[pd.DataFrame], samples: int, generator: np.random.Generator
) -> list[dict[str, Array]]:
    """Statistics [samples] of each table under the same resamples: conversations are drawn whole, as their prefixes are alike."""
    weights = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=samples).astype(float)
    return [from_sums(weights @ sums(frame, ids)) for frame in frames]


def intervals(points: pd.DataFrame, *, samples: int, seed: int, confidence: float) -> dict[str, list[float] | None]:
    """Percentile bootstrap intervals of the statistics of one trained model; None where one is undefined.

    Args:
        points: as above.
        samples: resamples.
        seed: of the resamples.
        confidence: level.
    """
    (values,) = resampled(conversations([points]), [points], samples, np.random.default_rng(seed))
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    bounds = {name: np.percentile(values[name], tails) for name in RESAMPLED}
    return {name: [float(low), float(high)] if np.isfinite(low + high) else None for name, (low, high) in bounds.items()}
