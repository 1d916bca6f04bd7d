"""The stage: label blocks of responses in independent shards, gather them into one table with its card."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from tqdm import tqdm

from saffron import records
from saffron.config import ConfigError, as_dict
from saffron.fingerprint import fingerprint
from saffron.jobs import LabelJob, beside
from saffron.layout import Layout
from saffron.safety4m import card
from saffron.sources.conversations import Counts, Response, collect, tokenise

log = logging.getLogger(__name__)


def label(job: LabelJob, layout: Layout, shard: int) -> None:
    """Label one shard: the blocks whose index is ``shard`` modulo ``safety4m.shards``.

    Finished blocks are kept under ``.blocks/<key>/``, so that a killed job goes on where it was; the key changes with
    settings, conversations, guard, tokenizer and code. Writes ``layout.safety4m_shard(seed, shard)``, and beside it the
    batch sizes that were used, where they are not simply the config's.

    Raises:
        ConfigError: if there is no such shard.
        RecordError: if the conversations or the models are missing.
        DeviceMemoryError: if not even one response fits on the GPU.
    """
    settings, seed = job.safety4m, job.seed
    if shard not in range(settings.shards):
        raise ConfigError(f"safety4m.shards is {settings.shards}: there is no shard {shard}; use 0 to {settings.shards - 1}")
    responses, _ = _responses(job, layout)
    folder = blocks_folder(job, layout)
    blocks = [responses[start : start + settings.block_size] for start in range(0, len(responses), settings.block_size)]
    mine = list(range(shard, len(blocks), settings.shards))
    missing = [index for index in mine if not _block(folder, index).exists()]
    log.info("%d of %d blocks of shard %d are already labelled", len(mine) - len(missing), len(mine), shard)
    if missing:
        _label_blocks(job, layout, {index: blocks[index] for index in missing}, folder)
    noted = {
        path.stem: records.read_json(path) for index in mine if (path := _block(folder, index).with_suffix(".json")).exists()
    }
    if noted:
        records.write_json(layout.safety4m_shard(seed, shard).with_suffix(".batches.json"), noted)
    tables = [records.read_table(_block(folder, index), records.SAFETY4M) for index in mine]
    path = layout.safety4m_shard(seed, shard)
    records.write_json(beside(path), as_dict(job))
    records.write_table(path, _joined(tables), records.SAFETY4M)


def gather(job: LabelJob, layout: Layout) -> None:
    """Join the shards into ``labels.parquet`` in source order; write ``unseen_mask.safetensors`` and the dataset card.

    Raises:
        RecordError: if a shard is missing or holds other responses than the conversations do.
    """
    settings, seed = job.safety4m, job.seed
    responses, counts = _responses(job, layout)
    tables = [records.read_table(layout.safety4m_shard(seed, shard), records.SAFETY4M) for shard in range(settings.shards)]
    rank = {response.conversation_id: index for index, response in enumerate(responses)}
    labels = _joined(tables)
    strangers = set(labels["conversation_id"]) - set(rank)
    if strangers or labels["conversation_id"].duplicated().any():
        raise records.RecordError(
            f"{layout.safety4m(seed)}: the shards are not those of {layout.conversations} with {settings.shards} shard(s); "
            "label them again"
        )
    if labels.empty:
        raise records.RecordError(
            f"{layout.conversations}: no response could be labelled; look at the conversations' assistant turns, or raise "
            "safety4m.max_tokens"
        )
    records.check_rewards(labels, layout.safety4m(seed))
    labels = labels.sort_values("conversation_id", key=lambda ids: ids.map(rank)).reset_index(drop=True)
    guard = records.read_json(layout.model("guard", seed) / "config.json", ("vocab_size",))
    mask = unseen_mask(labels, int(guard["vocab_size"]))
    folder = layout.safety4m(seed)
    records.write_table(folder / "labels.parquet", labels, records.SAFETY4M)
    with records.replacing(folder / "unseen_mask.safetensors") as temporary:
        save_file({"unseen_mask": mask}, temporary)
    card.write(folder, card.summarise(job, layout, counts, labels, mask))


def blocks_folder(job: LabelJob, layout: Layout) -> Path:
    """Where the finished blocks of this job and these inputs lie."""
    files = [layout.conversations, layout.model("guard", job.seed), layout.tokenizer]
    if job.on_policy is not None:
        files.append(layout.model("policy", job.seed))
    return layout.safety4m(job.seed) / ".blocks" / fingerprint(job.key, files)


def _responses(job: LabelJob, layout: Layout) -> tuple[list[Response], Counts]:
    """All responses, those that the policy rewrites on the side ``on_policy``, and where the others went."""
    settings = job.safety4m
    responses, counts = collect(records.read_table(layout.conversations, records.CONVERSATIONS), settings.turns)
    return (responses if job.on_policy is None else marked(responses, settings.on_policy_share, job.seed)), counts


def marked(responses: Sequence[Response], share: float, seed: int) -> list[Response]:
    """The responses, with the side ``on_policy`` for a share of those of the train split that an attack could begin with.

    These are the rejected ones, as an attack prefills a harmful answer, or all where none is rejected. The share is taken in
    the order of sha256(seed, conversation id), so that a larger one holds every smaller one.
    """
    train = [one for one in responses if one.split == "train"]
    candidates = [one.conversation_id for one in train if one.side == "rejected"] or [one.conversation_id for one in train]
    order = sorted(candidates, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    chosen = set(order[: round(share * len(order))])
    return [replace(one, side=card.ON_POLICY) if one.conversation_id in chosen else one for one in responses]


def unseen_mask(labels: pd.DataFrame, vocab_size: int) -> np.ndarray:
    """``bool[vocab_size]``, true for tokens that are never a target in the train split (Eq. 7)."""
    mask = np.ones(vocab_size, dtype=bool)
    train = labels[labels["split"] == "train"]
    for ids, start in zip(train["input_ids"], train["response_start"], strict=True):
        mask[ids[start:]] = False
    return mask


def _label_blocks(job: LabelJob, layout: Layout, blocks: dict[int, list[Response]], folder: Path) -> None:
    import torch

    from saffron import models
    from saffron.chat import ChatFormats
    from saffron.models import device, sense
    from saffron.models.verdicts import verdicts

    settings = job.safety4m
    torch.set_num_threads(job.runtime.torch_threads)
    guard = models.load_lm(layout.model("guard", job.seed), job.runtime, device_map=job.device_map)
    tokenizer = models.load_tokenizer(layout.tokenizer)
    formats = ChatFormats.load(layout.tokenizer)
    sense.check_guard(guard, formats, tokenizer, layout.model("guard", job.seed))
    rewrite = None
    if job.on_policy is not None:  # by name: what its module can reach is part of the job's code only where it is read
        rewrite = importlib.import_module("saffron.safety4m.on_policy").Rewriter(job, layout, formats, tokenizer)
    eos_id = formats.eos_id if settings.end_of_sequence else None
    size = settings.batch_size
    for index, responses in tqdm(blocks.items(), desc="safety4m", unit="block", mininterval=1):
        tokens = tokenise(tokenizer, formats, responses, settings.max_tokens, eos_id)
        if rewrite is not None:
            tokens = rewrite(responses, tokens, first=index * settings.block_size)
        inside = [(response, item) for response, item in zip(responses, tokens, strict=True) if item.response_ids]
        texts = [item for _, item in inside]
        rewards, size = verdicts(guard, formats, texts, batch_size=settings.batch_size, at_most=size)
        if guard.device.type == "cuda" or size < settings.batch_size:
            records.write_json(
                _block(folder, index).with_suffix(".json"), {"device": device.name(guard.device), "batch_size": size}
            )
        for (response, _), values in zip(inside, rewards, strict=True):
            what = f"conversation {response.conversation_id}"
            models.require_finite(values, what, layout.model("guard", job.seed), each="response token")
        rows = [_row(response, item, values) for (response, item), values in zip(inside, rewards, strict=True)]
        records.write_table(_block(folder, index), rows, records.SAFETY4M)


def _row(response: Response, tokens: Any, rewards: np.ndarray) -> dict[str, Any]:
    return {
        "conversation_id": response.conversation_id,
        "split": response.split,
        "source_row": response.source_row,
        "side": response.side,
        "turn": response.turn,
        "input_ids": tokens.prompt_ids + tokens.response_ids,
        "response_start": len(tokens.prompt_ids),
        "rewards": rewards.astype(np.float32),
    }


def _block(folder: Path, index: int) -> Path:
    return folder / f"block{index:06d}.parquet"


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=records.SAFETY4M.names)
