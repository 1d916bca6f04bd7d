"""What judges and measurements of some experiments alone say, beside the judges of every table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from saffron import roles, workflow
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, judged, kinds, label, prose, rate, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View, name: str) -> Table:
    """Judges and measurements of one experiment alone beside the judges of every table.

    Raises:
        RecordError: if the results are missing, or nothing reads this experiment alone.
    """
    from saffron.analysis import ablations
    from saffron.table import Table

    found = ablations.rows_by_judges(view.study, name)
    apart, measured = (workflow.read_apart(view.config, name, measure=measure) for measure in (False, True))
    rows = [
        (
            label(row["method"]),
            row["settings_id"],
            str(row["budget"]),
            *judged(view, row),
            *(rate(row[judge]) for judge in (*apart, *measured)),
        )
        for row in found
    ]
    caption = prose(
        f"""Experiment {name}: attack success by {view.judge}, which decides it, and by other judges, n = {found[0]["n"]} prompts,
        {seeds(view)}; 95 % intervals. {kinds(view, [*apart, *measured])}"""
    )
    columns = (*judge_columns(view), *(f"ASR by {judge}" for judge in apart), *measured)
    return Table(("method", "settings", "budget", *columns), tuple(rows), caption)


def exhibits(config: Config) -> Mapping[str, Exhibit]:
    """One for each experiment that a judge or a measurement reads alone; measurements of the role benign stand in its table."""
    found = {}
    for i, name in enumerate(config.search.experiments):
        measured = workflow.read_apart(config, name, measure=True)
        in_table = name == roles.holder(config.search, "benign")
        if workflow.read_apart(config, name) or (measured and not in_table):
            found[f"judges_apart_{name}"] = Exhibit(
                title=f"Further judges of the experiment {name}",
                about="A judge that no search has read cannot have been over-optimised by one.",
                section="ablations",
                order=120 + i,
                table=partial(table, name=name),
                experiments=(name,),
                page="unmeasured",
                group="ablations",
            )
    return found
