"""Models of the hub, or of a package, that are trained further here: a tuned policy, guards of the policy's first layers.

What needs no training is linked as it is (:mod:`saffron.models.hub`).
"""

from __future__ import annotations

from typing import Any

from saffron import records
from saffron.chat import ChatFormats
from saffron.config import ConfigError, TruncatedGuard, as_dict
from saffron.jobs import ModelJob, beside
from saffron.layout import Layout
from saffron.models import hub, truncated, tuning
from saffron.models.loading import load_lm, load_tokenizer

tokenizer = hub.tokenizer


def policy(job: ModelJob, layout: Layout) -> None:
    """Write the policy's folder: the snapshot, the same for every seed, or what a refusal tuning made of it, and its losses.

    Raises:
        SourceError: if the model cannot be read, is not one in safetensors that the engine drives, or is not whole.
        ConfigError: if there is nothing to tune it on.
    """
    settings = hub.section(job).policy_safety
    if settings is None:
        return hub.link(hub.section(job).policy, job, layout)
    model, arguments = _to_train(job, layout)
    try:
        losses, declining = tuning.tune_policy(model, settings, *arguments)
    except truncated.TrainingError as error:
        raise ConfigError(f"models.hub.policy_safety: {error}") from None
    _store(model, losses, declining, job, layout)


def guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard's folder: the snapshot, the same for every seed, or a guard trained from the policy's first layers.

    Raises:
        SourceError: if the model cannot be read, is not one in safetensors that the engine drives, or is not whole.
        ConfigError: if the policy has too few layers, or there is nothing to train on.
    """
    file = hub.section(job).guard
    if isinstance(file, TruncatedGuard):
        return _train_truncated(file, job, layout)
    hub.link(file, job, layout)


def _train_truncated(settings: TruncatedGuard, job: ModelJob, layout: Layout) -> None:
    """Train a guard from the untuned policy, and store it with its losses and its held-out agreement."""
    policy, arguments = _to_train(job, layout)
    try:
        guard, losses, agreement = truncated.train_guard(policy, settings, *arguments)
    except truncated.TrainingError as error:
        raise ConfigError(f"models.hub.{job.which}: {error}") from None
    _store(guard, losses, agreement, job, layout)


def _to_train(job: ModelJob, layout: Layout) -> tuple[Any, tuple[Any, ...]]:
    """The untuned policy in float32, and what a training reads: conversations, tokenizer, formats, seed and runtime."""
    import torch

    assert job.runtime is not None and job.seed is not None  # made by jobs.model
    torch.set_num_threads(job.runtime.torch_threads)
    source = hub.whole(hub.section(job).policy, "models.hub.policy", layout)
    policy = load_lm(source, job.runtime.model_copy(update={"dtype": "float32"}))
    conversations = records.read_table(layout.conversations, records.CONVERSATIONS)
    formats = ChatFormats.load(layout.tokenizer)
    return policy, (conversations, load_tokenizer(layout.tokenizer), formats, job.seed, job.runtime)


def _store(model: Any, losses: list[dict[str, Any]], held_out: dict[str, Any], job: ModelJob, layout: Layout) -> None:
    """Write a model's folder: its weights, its losses and what it does on the test split.

    That is a guard's agreement with both labels, and how often a policy declines before and after its tuning.
    """
    assert job.seed is not None
    target = layout.model(job.which, job.seed)
    with records.replacing_folder(target) as folder:
        model.save_pretrained(folder)
        records.write_table(folder / "losses.parquet", losses, records.LOSSES)
        records.write_json(folder / layout.held_out(job.which, job.seed).name, held_out)
    records.write_json(beside(target), as_dict(job))


def other_guard(job: ModelJob, layout: Layout) -> None:
    """Write the folder of a guard that no search reads, trained as :func:`guard` says.

    Raises:
        ConfigError: if the config names none, or as of :func:`guard`.
    """
    settings = hub.section(job).other_guard
    if settings is None:
        raise ConfigError("models.hub.other_guard: null; say how to train it, or name a checkpoint in its judge's settings")
    _train_truncated(settings, job, layout)
