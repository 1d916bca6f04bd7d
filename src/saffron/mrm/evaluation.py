"""Held-out agreement of the MRM with the guard (Figure 4b): M(s)[a] against R(sa) for observed prefixes s and tokens a."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from saffron import models, records
from saffron.chat import ChatFormats
from saffron.config import as_dict
from saffron.engine.compute import ModelShape
from saffron.jobs import EvaluateJob, beside
from saffron.layout import Layout
from saffron.models import device
from saffron.mrm import card
from saffron.mrm.model import observed_rewards
from saffron.mrm.targets import Targets, collate

#: Responses read together (fewer where a GPU's memory does not hold them).
BATCH = 16
RESAMPLES = 1000


def evaluate(job: EvaluateJob, layout: Layout) -> None:
    """Compare MRM and guard on prefixes of the test split: ``evaluation.parquet``, ``evaluation.json`` and the model card.

    The prefixes are a seeded choice of ``mrm.evaluation_prefixes`` (or all, if there are fewer), the same for every
    variant.

    Raises:
        RecordError: if labels or weights are missing, or the labels have no test split.
        ModelError: if the MRM gives a reward that is not finite.
        DeviceMemoryError: if not even one response fits on the GPU.
    """
    seed = job.seed
    torch.set_num_threads(job.runtime.torch_threads)
    path = layout.safety4m(seed) / "labels.parquet"
    labels = records.read_table(path, records.SAFETY4M)
    held_out = labels[labels["split"] == "test"].reset_index(drop=True)
    if not len(held_out):
        raise records.RecordError(f"{path}: no labels in the test split; nothing to evaluate the MRM on")
    folder = layout.mrm(seed, job.variant)
    model, _ = models.load_mrm(folder, job.runtime, device_map=job.device_map)
    formats, count = ChatFormats.load(layout.tokenizer), job.mrm.evaluation_prefixes
    points, batch_size = predictions(model, held_out, formats, count, seed, first_reward(labels))
    for conversation, part in points.groupby("conversation_id", sort=False):
        models.require_finite(part["mrm_reward"], f"conversation {conversation}", folder, each="held-out prefix")
    record = statistics(points)
    record["persistence"] = statistics(persistence(points))
    record["held_out_prefixes"] = int(held_out["rewards"].map(len).sum())
    record["batch_size"], record["device"] = batch_size, device.name(model.device)
    record["confidence"] = job.confidence
    record["intervals"] = intervals(points, job.confidence, seed)
    records.write_table(folder / "evaluation.parquet", points, records.MRM_EVALUATION)
    records.write_json(folder / "evaluation.json", record)
    records.write_json(beside(folder / "evaluation.json"), as_dict(job))
    card.write(folder, job, layout, record)


def first_reward(labels: pd.DataFrame) -> float:
    """Mean reward of a response's first token in the train split: what is known before any token (0 without that split)."""
    first = labels.loc[labels["split"] == "train", "rewards"].map(lambda rewards: rewards[0])
    return float(first.mean()) if len(first) else 0.0


def persistence(points: pd.DataFrame) -> pd.DataFrame:
    """The same points with R(s) in the place of the MRM's M(s)[a]: the prediction that a token changes nothing.

    Rewards of neighbouring prefixes are alike, so that this alone is often accurate; it cannot tell next tokens apart.
    """
    return points.assign(mrm_reward=points["previous_reward"])


@torch.inference_mode()
def predictions(
    model: Any, labels: pd.DataFrame, formats: ChatFormats, count: int, seed: int, first: float = 0.0
) -> tuple[pd.DataFrame, int]:
    """M(s)[a] and R(sa) at ``count`` prefixes of ``labels``, chosen by seed, as records.MRM_EVALUATION in source order.

    Args:
        model: as models.load_mrm gives it, its bias within the lm_head.
        labels: a records.SAFETY4M table.
        formats: chat formats.
        count: prefixes (all, if there are fewer).
        seed: of the choice.
        first: stands for R(s) where s is empty, which has no label.

    Returns:
        The points, and the smallest batch size (responses) that was used.
    """
    targets = Targets(labels, formats, "packed")
    chosen = np.sort(np.random.default_rng(seed).permutation(targets.total)[:count])
    places = [targets.locate(int(prefix)) for prefix in chosen]
    responses = sorted({response for response, _ in places})
    head = model.get_output_embeddings()
    bar = tqdm(total=len(responses), desc="mrm evaluation", unit="response", mininterval=1)

    def read(part: Sequence[int]) -> list[np.ndarray]:
        batch = collate([targets.row(response) for response in part]).to(model.device)
        rewards = observed_rewards(model.model, head.weight, head.bias, batch).float().cpu().numpy()
        bar.update(len(part))
        return np.split(rewards, np.cumsum([targets.size(response) for response in part])[:-1])

    longest = max((len(targets.row(response).input_ids) for response in responses), default=0)
    needed = device.reading_bytes(ModelShape.from_config(model.config), 0, longest, model.dtype)
    size = device.batch_size(BATCH, needed, device.free_bytes(model.device))
    with bar:
        found, size = device.in_batches(read, responses, size, what="safety4m.max_tokens")
    predicted = dict(zip(responses, found, strict=True))
    rows = [targets.row(response) for response, _ in places]
    points = pd.DataFrame(
        {
            "conversation_id": labels["conversation_id"].to_numpy()[[response for response, _ in places]],
            "position": np.array([position for _, position in places], dtype=np.int32),
            "token": np.array([row.tokens[position] for row, (_, position) in zip(rows, places, strict=True)], dtype=np.int32),
            "prm_reward": np.array([row.rewards[i] for row, (_, i) in zip(rows, places, strict=True)], dtype=np.float32),
            "mrm_reward": np.array([predicted[response][i] for response, i in places], dtype=np.float32),
            "previous_reward": np.array(
                [row.rewards[i - 1] if i else first for row, (_, i) in zip(rows, places, strict=True)], dtype=np.float32
            ),
        }
    )
    return points, size


def statistics(points: pd.DataFrame) -> dict[str, Any]:
    """The statistics of ``figure4b_summary.csv`` under its names; null where one is undefined (a constant reward)."""
    prm = points["prm_reward"].to_numpy(np.float64)
    mrm = points["mrm_reward"].to_numpy(np.float64)
    return {
        "n_points": len(prm),
        "prm_reward_min": float(prm.min()),
        "prm_reward_max": float(prm.max()),
        "prm_reward_mean": float(prm.mean()),
        "fraction_prm_negative": float((prm < 0).mean()),
        **{name: _defined(value) for name, value in _agreement(_moments(prm, mrm)[None]).items()},
    }


def intervals(points: pd.DataFrame, confidence: float, seed: int, resamples: int = RESAMPLES) -> dict[str, list[float] | None]:
    """Percentile bootstrap intervals of the agreement; responses are resampled whole, as their prefixes are alike.

    Args:
        points: a records.MRM_EVALUATION table.
        confidence: level.
        seed: of the resamples.
        resamples: how many.
    """
    prm, mrm = points["prm_reward"].to_numpy(np.float64), points["mrm_reward"].to_numpy(np.float64)
    clusters = points.groupby("conversation_id", sort=True).indices.values()
    moments = np.stack([_moments(prm[index], mrm[index]) for index in clusters])
    drawn = np.random.default_rng(seed).multinomial(len(moments), np.full(len(moments), 1 / len(moments)), size=resamples)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    bounds = {name: np.percentile(values, tails) for name, values in _agreement(drawn @ moments).items()}
    return {name: [float(low), float(high)] if np.isfinite(low + high) else None for name, (low, high) in bounds.items()}


def _moments(prm: np.ndarray, mrm: np.ndarray) -> np.ndarray:
    """Sums over points from which every statistic of the agreement follows, so that a resample is a weighted sum."""
    error = mrm - prm
    terms = [np.ones_like(prm), prm, mrm, prm**2, mrm**2, prm * mrm, error, np.abs(error), error**2]
    terms += [(np.abs(error) <= 1).astype(float), ((prm < 0) == (mrm < 0)).astype(float)]
    return np.array([term.sum() for term in terms])


def _agreement(moments: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics [...] of sums [..., 11] as :func:`_moments` gives them."""
    n, p, m, pp, mm, pm, error, absolute, square, within, sign = np.moveaxis(moments, -1, 0)
    spread_p, spread_m = pp - p**2 / n, mm - m**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mae": absolute / n,
            "rmse": np.sqrt(square / n),
            "mean_signed_error": error / n,
            "fraction_within_1": within / n,
            "pearson_r": (pm - p * m / n) / np.sqrt(spread_p * spread_m),
            "r_squared": 1 - square / spread_p,
            "sign_agreement": sign / n,
        }


def _defined(value: np.ndarray) -> float | None:
    number = float(value.item())
    return number if np.isfinite(number) else None
