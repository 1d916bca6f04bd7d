"""How results are counted and shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from saffron.section import Section


class Ablation(Section):
    """Runs of one experiment that differ in one setting: one figure, one table."""

    experiment: str = Field("ablations", description="the experiment that holds the runs")
    runs: Annotated[list[str], Field(min_length=2)] = Field(
        ..., description="<method>-<settings_id>; the first of each method is what its others are compared with"
    )


class Analysis(Section):
    """Statistics."""

    confidence: float = Field(0.95, gt=0, lt=1, description="level of every interval")
    bootstrap_samples: int = Field(2_000, ge=100, description="resamples of every bootstrap")
    seed: int = Field(0, description="seed of every bootstrap")
    ablations: dict[str, Ablation] = Field(default_factory=dict, description="ablations by name; each has a figure and a table")


class Report(Section):
    """The HTML report."""

    show_text: bool = Field(True, description="print prompts and outputs; if false they become id, length and reward")
