"""Attack success by a judge that no search read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import workflow
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, judged, label, prose, rate, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """The independent judge beside those of every table.

    Raises:
        RecordError: if the results are missing, or there is no such judge.
    """
    from saffron.analysis import ablations
    from saffron.table import Table

    found = ablations.independent_rows(view.study, "scaling")
    rows = [(label(row["method"]), str(row["budget"]), *judged(view, row), rate(row["independent"])) for row in found]
    caption = prose(
        f"""Attack success by the guard, whose reward the searches maximise, and by judges that no search read, n =
        {found[0]["n"]} prompts, {seeds(view)}; 95 % intervals. The independent judge differs from the guard in what the config
        says (models.hub.judge); in the sandbox it is a guard trained alike from another seed."""
    )
    return Table(("method", "budget", *judge_columns(view), "ASR by the independent judge"), tuple(rows), caption)


def _wanted(config: Config) -> bool:
    return "scaling" in workflow.assessed(config) and workflow.has_judge(config)


EXHIBIT = Exhibit(
    title="Attack success by an independent judge",
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
