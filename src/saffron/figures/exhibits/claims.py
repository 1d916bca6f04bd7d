"""Claim by claim: did it hold?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import prose, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Every claim with the paper's value, ours and the verdict."""
    from saffron.analysis import claims
    from saffron.table import Table

    rows, others = [], claims.other_judges(view.claims)
    for record in view.claims:
        main = [q for q in record["quantities"] if not q["name"].startswith("step/")]
        theirs = "; ".join(claims.format_number(q["paper"]) for q in main if q["paper"] is not None) or "–"
        verdicts = [claims.verdict_line(record["by"][judge]) if judge in record["by"] else "–" for judge in others]
        ours = (claims.labelled(main), claims.verdict_line(record), *verdicts)
        rows.append((record["source"], claims.statement(record), theirs, *ours, record["cause"] or ""))
    counts = {verdict: sum(record["verdict"] == verdict for record in view.claims) for verdict in claims.VERDICTS}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    caption = f"Claim by claim ({summary}), {seeds(view)}; 95 % intervals."
    if any(claims.power(record) for record in view.claims):
        caption += " “Would have been seen”: with power 0.8."
    columns = ("source", "claim", "paper", "ours", "verdict", *(f"verdict by {judge}" for judge in others), "note")
    return Table(columns, tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Claim by claim: did it hold?",
    about=prose(
        """Every checkable statement of the paper with our measurement and a verdict by a rule that was written down before any
        result existed (`data/reference/paper/claims.yaml`). With one training seed an ordering is reported as “one seed”, with
        what its interval says in parentheses."""
    ),
    section=None,  # the report begins with them, verdicts in colour
    table=table,
    published=False,  # they are published as data
)
