"""Attack success by judges of one experiment alone, beside those of every table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import roles, workflow
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, judged, kinds, label, prose, rate, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Judges of the scaling figures' experiment alone beside those of every table.

    Raises:
        RecordError: if the results are missing, or there is no such judge.
    """
    from saffron.analysis import ablations
    from saffron.table import Table

    scaling = view.study.name("scaling")
    found, apart = ablations.rows_by_judges(view.study, scaling), workflow.read_apart(view.config, scaling)
    rows = [
        (label(row["method"]), str(row["budget"]), *judged(view, row), *(rate(row[judge]) for judge in apart)) for row in found
    ]
    caption = prose(
        f"""Attack success by {view.judge}, which decides it, and by other judges, n = {found[0]["n"]} prompts, {seeds(view)};
        95 % intervals. {kinds(view, apart)}"""
    )
    return Table(("method", "budget", *judge_columns(view), *(f"ASR by {judge}" for judge in apart)), tuple(rows), caption)


def _wanted(config: Config) -> bool:
    return bool(workflow.read_apart(config, roles.holder(config.search, "scaling")))


EXHIBIT = Exhibit(
    title="Attack success by further judges",
    about="A judge that no search has read cannot have been over-optimised by one.",
    section="ablations",
    order=120,
    table=table,
    needs=("scaling",),
    wanted=_wanted,
    reads=("scaling",),
    page="unmeasured",
    group="ablations",
)
