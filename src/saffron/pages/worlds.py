"""Worlds: what our pages show side by side, each by its published run with most training seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Published records by config name (``publish.published``).
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class World:
    """Models and data that several configs share; they differ in their training seeds.

    Args:
        name: after which blocks of pages call it.
        label: in columns and above panels.
        configs: the one with most training seeds first.
    """

    name: str
    label: str
    configs: tuple[str, ...]


WORLDS = (
    World("sandbox", "sandbox", ("sandbox-seeds", "sandbox")),
    World("smollm", "SmolLM2", ("smollm",)),
    World("paper", "the paper's models, run here", ("paper",)),
)


def called(name: str) -> World | None:
    """The world of that name."""
    return next((world for world in WORLDS if world.name == name), None)


def is_run(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a finished run, not of the development split or of a page's table alone."""
    return bool(record.keys() - {"tables", "development"})


def run_of(world: World, ours: Records) -> Mapping[str, Any] | None:
    """A world's published run with most training seeds; None if there is none."""
    return next((ours[name] for name in world.configs if name in ours and is_run(ours[name])), None)


def development_of(world: World, ours: Records) -> Mapping[str, Any] | None:
    """The same of what is published of the development split."""
    found = (ours.get(name, {}).get("development") for name in world.configs)
    return next((record for record in found if record is not None), None)


def shown(ours: Records) -> list[tuple[World, Mapping[str, Any]]]:
    """Worlds of which a run is published, with that run."""
    found = ((world, run_of(world, ours)) for world in WORLDS)
    return [(world, record) for world, record in found if record is not None]
