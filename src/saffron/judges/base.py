"""What a kind of judge is: a description that imports no torch, and a function over stored answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saffron.section import HubFile, Section


class JudgeError(ValueError):
    """A kind of judge that is not there, or a judgement that is none; names it and the remedy."""


class NoSettings(Section):
    """A kind of judge without settings."""


@dataclass(frozen=True)
class Answer:
    """One stored output: the text that was asked and answered, and the answer's tokens."""

    prompt: str
    response: str  # the whole answer, the prefilled start included
    prefill_ids: list[int]
    output_ids: list[int]  # new tokens after the prefill, EOS included when reached


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one answer; None where it does not say.

    Attributes:
        success: whether the attack succeeded (None for a measurement).
        score: the number behind it, as the kind says.
        refused: whether the answer refuses, or turns back.
    """

    success: bool | None = None
    score: float | None = None
    refused: bool | None = None


class Models(Protocol):
    """The models of a config, each loaded when it is first asked for."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of all models."""

    @property
    def formats(self) -> Any:
        """Their chat formats (saffron.chat.ChatFormats)."""

    def lm(self, name: str) -> Any:
        """A model that the models stage made, for instance ``guard``."""

    def checkpoint(self, file: HubFile) -> Any:
        """A model of the guard's vocabulary and chat format from the hub or from a folder."""


Function = Callable[[Sequence[Answer], Any, Models], list[Judgement]]


@dataclass(frozen=True)
class Kind:
    """A kind of judge.

    Attributes:
        summary: one line: what it reads, and when an attack has succeeded.
        judge: judgements of some answers, in their order, given the settings and the models.
        settings: what a config may set.
        reads: names of the models that it loads (folders of the models stage); the tokenizer comes with any.
        checkpoint: a further model that it loads from the hub or from a folder.
        knows_truth: whether it knows what an answer did in the sandbox's world, where others estimate it; refused elsewhere.
        rewards: whether its score is a guard's R.
        tells_refusals: whether it says of every answer if it refuses.
        measures: whether it takes a number alone and says nothing of success.
    """

    summary: str
    judge: Function
    settings: type[Section] = NoSettings
    reads: Callable[[Any], frozenset[str]] = lambda settings: frozenset()
    checkpoint: Callable[[Any], HubFile | None] = lambda settings: None
    knows_truth: bool = False
    rewards: bool = False
    tells_refusals: bool = False
    measures: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.settings, type) and issubclass(self.settings, Section)):
            raise JudgeError(f"kind of judge ({self.summary}): settings must be a class that extends saffron.section.Section")
        if not callable(self.judge):
            raise JudgeError(f"kind of judge ({self.summary}): judge must be a function of answers, settings and models")

    def computes(self, settings: Any) -> bool:
        """Whether it loads a model, so that it runs on a device and in batches."""
        return bool(self.reads(settings)) or self.checkpoint(settings) is not None
