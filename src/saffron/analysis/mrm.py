"""How well the MRM predicts the PRM on held-out prefixes (Figure 4b)."""

from __future__ import annotations

import numpy as np
import pandas as pd

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
from saffron.mrm import agreement
from saffron.records import RecordError

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
    held_out = int(records.read_json(path.with_suffix(".json"), ("held_out_prefixes",))["held_out_prefixes"])
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
    summaries = [agreement.statistics(frame) for frame in frames.values()]
    resampled = agreement.resampled(agreement.conversations(frames.values()), frames.values(), samples, generator)
    draws = student_t(generator, len(frames), samples)
    result = {}
    for name in agreement.STATISTICS:
        per_seed = tuple(values[name] for values in summaries)
        low = high = error = None
        if name in agreement.RESAMPLED:
            means = np.mean([values[name] for values in resampled], axis=0)
            own = np.array(per_seed)
            with np.errstate(invalid="ignore"):  # of a single output R² is not defined
                between = jackknife_error((own.sum() - own) / max(len(own) - 1, 1))
            low, high, error = interval(means, between, draws, confidence, _WITHIN.get(name, ANY))
        n = sum(len(frame) for frame in frames.values())
        result[name] = Estimate(float(np.mean(per_seed)), low, high, per_seed, n=n, standard_error=error)
    return result
