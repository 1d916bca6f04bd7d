"""Whether the multifurcation reward model agrees with the guard where the search has used it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import workflow
from saffron.figures.base import Exhibit
from saffron.figures.words import prose, rate, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table

MEASURES = ("mae", "mean_signed_error", "r_squared", "sign_agreement")


def table(view: View) -> Table:
    """How far the MRM's reward can be trusted where the search has used it."""
    from saffron.table import Table

    found = view.section("mrm_in_search")
    rows = [
        ("held-out prefixes", *(rate(view.analysis["mrm"][name]) for name in MEASURES)),
        ("the same, by persistence", *(rate(view.analysis["persistence"][name]) for name in MEASURES)),
    ]
    rows += [(f"outputs of Saffron-1, N = {row['budget']}", *(rate(row[name]) for name in MEASURES)) for row in found]
    caption = prose(
        f"""Agreement of the MRM with the guard, on held-out prefixes of Safety4M and at the last token of Saffron-1's outputs
        (n = {found[0]["n"]:,} per width, {seeds(view)}; 95 % intervals). Signed error: MRM less guard. Outputs were chosen for a
        high MRM reward, so errors there lean upwards, and little of the reward's spread is left for R² to explain. Persistence
        predicts that a token changes nothing, M(s)[a] = R(s), which costs no model and cannot tell next tokens apart."""
    )
    return Table(("where", "MAE", "signed error", "R²", "sign agreement"), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Does the MRM agree with the guard where the search has used it?",
    about=prose(
        """Figure 4b asks on text that the MRM did not choose. Here: the MRM's reward and the guard's at the end of Saffron-1's
        outputs. A search finds the places where its reward model errs upwards, so a positive signed error is expected; how large
        it is tells how far the search can be trusted."""
    ),
    section="mrm",
    order=20,
    table=table,
    needs=("scaling",),
    wanted=lambda config: workflow.guard_judge(config) is not None,
)
