"""A run beside the published one: is a number what another seed, machine or version is expected to give?

A trained model is a draw: of its training seed, and, for one seed, of the order in which a machine or a version sums. Published
records hold every headline number by training seed, and records of redraws how far the same seeds move when only the MRM, or the
order of summation in its labels, is drawn again. Both spreads together say how far a user's number may lie from ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from saffron.analysis.study import LABELS
from saffron.config import Config, Models, Sources, as_dict
from saffron.methods.discovery import methods
from saffron.roles import BASELINE

#: Standard deviations within which a number is as expected.
WITHIN = 2.0

BENCHMARKS = {"scaling": "first benchmark", "matched": "second benchmark"}

#: Where to look if a number is off.
_POLICY = "the gates on the development split, and the policy's training (models)"
_MRM = "Safety4M's labels and the MRM's losses"
_SEARCH = "No defense and the MRM's R² in this table first, then the guard (attack success by the oracle)"
_PARTS = "the two attack successes it is made of"

#: Headline numbers in their order: name of the quantity, what it is called, and where to look. Searches stand at the budget
#: matched to Best-of-N's, each FLOP counted once.
HEADLINES: tuple[tuple[str, str, str], ...] = (
    *((f"matched_asr/{name}/once/no_defense", f"{LABELS['no_defense']}, {where}", _POLICY) for name, where in BENCHMARKS.items()),
    ("refused/benign/no_defense", "harmless prompts refused, no defense", _POLICY),
    ("mrm/r_squared", "R² of the MRM, held-out prefixes", _MRM),
    *(
        (f"matched_asr/{name}/once/{method}", f"{LABELS[method]}, {where}", _SEARCH)
        for name, where in BENCHMARKS.items()
        for method in methods()
        if method != BASELINE
    ),
    *(
        (f"matched/{name}/once/saffron-best_of_n", f"{LABELS['saffron']} less {LABELS['best_of_n']}, {where}", _PARTS)
        for name, where in BENCHMARKS.items()
    ),
)


@dataclass(frozen=True)
class Spread:
    """A published number: its mean over training seeds, their standard deviation and range, and the deviation of redraws.

    ``seeds`` is None for one training seed, ``draws`` where no redraws are published.
    """

    mean: float
    seeds: float | None
    lowest: float
    highest: float
    draws: float | None

    def expected(self, seeds: int) -> tuple[float, float] | None:
        """Where the mean of a run with so many training seeds is expected: 2 standard deviations of seeds and draws about ours.

        None if ours is of one training seed, which shows no spread.
        """
        if self.seeds is None:
            return None
        half = WITHIN * math.hypot(self.seeds, self.draws or 0.0) / seeds**0.5
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Row:
    """One headline number of a run, with the published one where it has it."""

    label: str
    ours: float
    published: Spread
    expected: tuple[float, float] | None
    check: str

    @property
    def within(self) -> bool | None:
        """Whether it lies where it is expected (None: nothing is expected)."""
        if self.expected is None:
            return None
        low, high = self.expected
        return low - 1e-9 <= self.ours <= high + 1e-9


def by_seed(analysis: Mapping[str, Any], name: str) -> list[float] | None:
    """A quantity's values by training seed; None if the analysis lacks it or a seed leaves it undefined."""
    found = analysis["quantities"].get(name)
    if found is None or not found["per_seed"] or None in found["per_seed"]:
        return None
    return [float(value) for value in found["per_seed"]]


def headline_values(analysis: Mapping[str, Any]) -> dict[str, list[float]]:
    """The headline numbers of an analysis, each by training seed."""
    found = {name: by_seed(analysis, name) for name, _, _ in HEADLINES}
    return {name: values for name, values in found.items() if values is not None}


def orderings(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims that compare and can be decided on any model, each with its verdict and the numbers behind it."""
    keys = ("id", "verdict", "leaning", "seeds_as_claimed", "difference_seen")
    return [
        {key: claim[key] for key in keys}
        | {"numbers": [_bare(item["ours"]) for item in claim["quantities"] if not item["name"].startswith("step/")]}
        for claim in claims
        if claim["leaning"] is not None
    ]


def _bare(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {key: estimate[key] for key in ("value", "low", "high", "exact")}


def deviation_of_draws(redraws: Mapping[str, Any] | None, name: str) -> float | None:
    """Standard deviation over draws at a fixed training seed, root mean square over the seeds.

    Args:
        redraws: a published record of redraws.
        name: of a headline number.
    """
    values = [draw["values"].get(name) for draw in redraws["draws"].values()] if redraws else []
    if len(values) < 2 or None in values:
        return None
    return float(np.sqrt(np.var(np.array(values, dtype=float), axis=0, ddof=1).mean()))


def spreads(published: Mapping[str, Any]) -> dict[str, Spread]:
    """Every headline number of a published record, with the redraws that stand in it."""
    found = {}
    for name, values in headline_values(published["analysis"]).items():
        seeds = float(np.std(values, ddof=1)) if len(values) > 1 else None
        draws = deviation_of_draws(published.get("redraws"), name)
        found[name] = Spread(float(np.mean(values)), seeds, min(values), max(values), draws)
    return found


def compare(analysis: Mapping[str, Any], published: Mapping[str, Any]) -> list[Row]:
    """Every headline number that a run and a published record both have."""
    ours, theirs = headline_values(analysis), spreads(published)
    rows = []
    for name, label, check in HEADLINES:
        if name in ours and name in theirs:
            expected = theirs[name].expected(len(ours[name]))
            rows.append(Row(label, float(np.mean(ours[name])), theirs[name], expected, check))
    return rows


# --------------------------------------------------------------------------------------------- which record is comparable
def same_world(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether the sections sources and models of two configs are the same, seeds left aside.

    Args:
        one: sections of a config as plain values, defaults among them; None where a record has none.
        other: the same.
    """
    if one is None or other is None:
        return False
    try:
        return _world(one) == _world(other)
    except (KeyError, ValidationError):  # of a version whose config had other keys
        return False


def _world(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sections with the defaults of this version, without the seeds."""
    found = Sources.model_validate(settings["sources"])
    sources = as_dict(found)
    for key in ("world_seed", "benchmark_seed"):
        (sources["sandbox"] or {}).pop(key, None)
    if all(rows.origin == "sandbox" for _, rows in found.all_rows()):  # what its prompt sets are called moves no number
        sources = {"sandbox": sources["sandbox"]}
    return sources, as_dict(Models.model_validate(settings["models"]))


def published_beside(config: Config, published: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the published record of a config's world with the most training seeds, None if there is none."""
    fitting = [name for name, record in published.items() if same_world(as_dict(config), record.get("settings"))]
    return max(fitting, key=lambda name: (len(published[name]["seeds"]["train"]), name), default=None)


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of two configs, dotted, whose values differ, among those that both have."""
    ours, theirs = dict(_flat(one)), dict(_flat(other))
    return {key: (ours[key], theirs[key]) for key in ours if key in theirs and ours[key] != theirs[key]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


#: Sections whose values move the headline numbers, beside sources and models; which runs there are does not.
_READ = ("safety4m.", "mrm.", "search.", "runtime.")


def notes(config: Config, name: str, published: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """What a reader of a comparison must know, in sentences.

    Args:
        config: of the run.
        name: of the published record.
        published: the record.
        rows: what :func:`compare` gave.
    """
    judged = [row for row in rows if row.within is not None]
    outside = sum(not row.within for row in judged)
    found = []
    if not judged:
        found.append(f"{name} has one training seed, whose spread is not known: nothing can be said of these numbers.")
    elif outside:
        found.append(
            f"{len(judged) - outside} of {len(judged)} numbers are as expected. One or two in {len(judged)} may lie outside by "
            "chance; where more do, or one lies far outside, look where its line says."
        )
    else:
        found.append(f"All {len(judged)} numbers are as expected.")
    if judged and all(row.published.draws is None for row in rows):
        found.append("No redraws are published for these sources and models: expected is the spread over training seeds alone.")
    ours, theirs = (settings["judges"][0] for settings in (as_dict(config), published["settings"]))
    if any(ours[key] != theirs[key] for key in ("kind", "settings")):
        found.append(f"Attack success is judged otherwise: by {ours['name']} ({ours['kind']}), published by {theirs['name']}.")
    differing = changed(as_dict(config), published["settings"])
    seeds = [f"{key} {a} (published {b})" for key, (a, b) in differing.items() if key.startswith("sources.")]
    if seeds:
        found.append(f"Other prompts than the published ones, which move numbers further: {', '.join(seeds)}.")
    others = [key for key in differing if key.startswith(_READ) and not key.startswith("search.experiments.")]
    if others:
        values = ", ".join(f"{key} {differing[key][0]} (published {differing[key][1]})" for key in others)
        found.append(f"This config differs from the published one: {values}.")
    return found
