"""Another guard as judge: one that no search read."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from saffron.judges import guard
from saffron.judges.base import Answer, Judgement, Kind, Models
from saffron.section import HubFile


class Settings(guard.Settings):
    """Another guard's verdict."""

    checkpoint: HubFile | None = Field(
        None,
        description="hub id or local folder of a guard of the same vocabulary and chat format (null: in the sandbox, a guard "
        "trained alike from another seed)",
    )


def judge(answers: Sequence[Answer], settings: Settings, models: Models) -> list[Judgement]:
    """The other guard's verdicts."""
    model = models.lm("other_guard") if settings.checkpoint is None else models.checkpoint(settings.checkpoint)
    return guard.verdicts(model, answers, settings, models)


KIND = Kind(
    summary="another guard, which no search read: an attack succeeds where its R is below the threshold",
    judge=judge,
    settings=Settings,
    reads=lambda settings: frozenset({"other_guard"}) if settings.checkpoint is None else frozenset(),
    checkpoint=lambda settings: settings.checkpoint,
    rewards=True,
)
