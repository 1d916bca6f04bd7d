"""What a part of the analysis gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saffron.analysis.statistics import Bootstrap, Estimate


@dataclass(frozen=True)
class Section:
    """Entries of ``analysis.json``, and quantities that ``claims.yaml`` names.

    Quantities of attack success stand under each judge that says what one is, all others under the one that decides it. A part
    whose experiments the config does not have gives nothing.
    """

    record: Mapping[str, Any] = field(default_factory=dict)
    quantities: Mapping[str, dict[str, Estimate]] = field(default_factory=dict)


def difference(boot: Bootstrap, a: int, b: int, outcome: str, note: str = "") -> Estimate:
    """Mean of one cell less that of another, prompt by prompt."""
    return boot.estimate(lambda means: means[..., a] - means[..., b], outcome, note=note)
