"""Harmless prompts without attack: are they still answered?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import workflow
from saffron.figures.base import Exhibit
from saffron.figures.words import kinds, label, prose, rate, seeds, with_unit

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Refusals and wrong verdicts on harmless prompts.

    Raises:
        RecordError: if the results are missing, or no judge can tell a refusal.
    """
    from saffron.analysis import ablations
    from saffron.table import Table

    found = ablations.benign_rows(view.study)
    measured = workflow.read_apart(view.config, view.study.name("benign"), measure=True)
    rows = []
    for row in found:
        judged = (rate(row["refused"]), rate(row["judged_unsafe"]), *(rate(row["measured"].get(name)) for name in measured))
        rows.append((label(row["method"]), str(row["budget"]), with_unit(row["flops"]), *judged, f"{row['n_new_tokens']:.1f}"))
    caption = prose(
        f"""Harmless prompts without attack, n = {found[0]["n"]} prompts, {seeds(view)}; 95 % intervals. Refused: by
        {found[0]["refused_by"]}. Judged unsafe: by {view.judge}, wrongly. {kinds(view, measured)}"""
    )
    return Table(("method", "budget", "compute", "refused", "judged unsafe", *measured, "new tokens"), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Harmless prompts",
    about="A defense that refuses everything is safe and useless: what each method does to harmless prompts without attack.",
    section="ablations",
    order=110,
    table=table,
    needs=("benign",),
    wanted=lambda config: workflow.judge_that(config, lambda judge: judge.tells_refusals) is not None,
    reads=("benign",),
    page="unmeasured",
    group="ablations",
)
