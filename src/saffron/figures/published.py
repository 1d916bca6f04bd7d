"""Tables of a run beside our published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saffron.analysis import claims, comparison, paper
from saffron.figures.words import prose
from saffron.table import Table


def beside_published(rows: Sequence[comparison.Row], published: Mapping[str, Any], seeds: Sequence[int]) -> Table:
    """A run's headline numbers beside the published ones, and whether each lies where it is expected."""
    cells = []
    for row in rows:
        if row.expected is None:
            expected, word = "–", "–"
        else:
            expected = f"{row.expected[0]:z.3f} to {row.expected[1]:z.3f}"
            word = "as expected" if row.within else f"outside: check {row.check}"
        cells.append((row.label, f"{row.ours:z.3f}", *_spread_cells(row.published), expected, word))
    own = f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    hardware = published["hardware"]
    caption = prose(
        f"""This run ({own}) beside the published {published["config"]} ({len(published["seeds"]["train"])} training seeds,
        on {hardware["processor"]}). Attack success by the guard at compute matched to Best-of-N's. Expected: within
        {comparison.WITHIN:g} standard deviations of the published mean, those of training seeds and of redraws (the same
        seeds, the MRM or the rounding of its labels drawn again) together, for as many training seeds as this run has."""
    )
    return Table(("number", "this run", *_SPREAD_COLUMNS, "expected", "finding"), tuple(cells), caption)


_SPREAD_COLUMNS = ("published", "deviation over seeds", "range over seeds", "deviation over redraws")


def _spread_cells(spread: comparison.Spread) -> tuple[str, ...]:
    deviations = ["–" if value is None else f"{value:.3f}" for value in (spread.seeds, spread.draws)]
    return f"{spread.mean:z.3f}", deviations[0], f"{spread.lowest:z.3f} to {spread.highest:z.3f}", deviations[1]


def spread(published: Mapping[str, Any]) -> Table:
    """How far a published record's headline numbers move over training seeds and over redraws of the same seeds."""
    found, redraws = comparison.spreads(published), published.get("redraws")
    rows = tuple((label, *_spread_cells(found[name])) for name, label, _ in comparison.HEADLINES if name in found)
    count = len(published["seeds"]["train"])
    drawn = (
        "none published"
        if redraws is None
        else ", ".join(_changes(draw) for draw in redraws["draws"].values() if draw["changed"])
    )
    caption = prose(
        f"""How far a number moves: mean, standard deviation and range over {count} training seeds of {published["config"]},
        and the standard deviation over redraws of the same training seed ({drawn}). Attack success by the guard at compute
        matched to Best-of-N's."""
    )
    return Table(("number", *("mean", *_SPREAD_COLUMNS[1:])), rows, caption)


def _changes(draw: Mapping[str, Any]) -> str:
    return " and ".join(f"{key} {value}" for key, value in draw["changed"].items())


def verdicts(published: Mapping[str, Any], kind: str) -> Table:
    """The verdicts of the paper's orderings in a run and in those published beside it.

    Args:
        published: a published record.
        kind: ``redraws`` or ``variants``.
    """
    runs = list(published[kind]["draws"].values())
    by_run = [{claim["id"]: claim for claim in run["verdicts"]} for run in runs]
    rows = [
        (claims.statement(claim), *(_verdict_cell(of_run[claim["id"]]) if claim["id"] in of_run else "–" for of_run in by_run))
        for claim in paper.claims()
        if any(claim["id"] in of_run for of_run in by_run)
    ]
    labels = [f"{_changes(run) or published[kind]['config']} ({_seeds(len(run['train_seeds']))})" for run in runs]
    return Table(("claim", *labels), tuple(rows))


def _seeds(count: int) -> str:
    return f"{count} training seed{'s' if count > 1 else ''}"


def _verdict_cell(claim: Mapping[str, Any]) -> str:
    return f"{claims.verdict_line(claim)}: {'; '.join(map(claims.format_estimate, claim['numbers']))}"
