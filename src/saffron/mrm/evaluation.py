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
from saffron.mrm import agreement, card
from saffron.mrm.model import observed_rewards
from saffron.mrm.targets import Targets, collate

#: Responses read together (fewer where a GPU's memory does not hold them).
BATCH = 16


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
    record: dict[str, Any] = agreement.as_record(agreement.statistics(points))
    record["persistence"] = agreement.as_record(agreement.statistics(agreement.persistence(points)))
    record["held_out_prefixes"] = int(held_out["rewards"].map(len).sum())
    record["batch_size"], record["device"] = batch_size, device.name(model.device)
    record["confidence"] = job.confidence
    record["intervals"] = agreement.intervals(points, samples=job.bootstrap_samples, seed=seed, confidence=job.confidence)
    records.write_table(folder / "evaluation.parquet", points, records.MRM_EVALUATION)
    records.write_json(folder / "evaluation.json", record)
    records.write_json(beside(folder / "evaluation.json"), as_dict(job))
    card.write(folder, job, layout, record)


def first_reward(labels: pd.DataFrame) -> float:
    """Mean reward of a response's first token in the train split: what is known before any token (0 without that split)."""
    first = labels.loc[labels["split"] == "train", "rewards"].map(lambda rewards: rewards[0])
    return float(first.mean()) if len(first) else 0.0


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
