"""Best-of-N's compute over Saffron-1's at equal attack success: the readings that the claims and Figure 2 give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit, has_runs
from saffron.figures.words import COUNTED, prose, seeds
from saffron.workflow import match_rule

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Measured, and by the fits."""
    from saffron.analysis import claims
    from saffron.table import Table

    rows, equal = [], view.section("equal_asr")[view.judge]
    for convention, counted in COUNTED.items():
        name = f"compute_ratio/scaling/fit/{convention}"
        fitted = [claims.format_estimate(view.analysis["quantities"].get(key)) for key in (name, f"{name}/log")]
        last = equal[convention][-1]
        measured = "not reached" if last["ratio"] is None else f"{last['relation']} {last['ratio']:.2f}".strip()
        rows.append((counted, measured, *fitted))
    budget = equal["once"][-1]["best_of_n"]
    caption = prose(
        f"""Best-of-{budget}'s compute over Saffron-1's at Best-of-{budget}'s attack success, {seeds(view)}; 95 % intervals.
        Measured: between neighbouring points of Saffron-1, as the arrow of Figure 2. By the fits: where the two logarithmic laws
        reach that attack success; the claims test its logarithm against 0 and its value, counted per model, against 3."""
    )
    return Table(("compute counted", "measured", "by the fits", "its logarithm"), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Compute ratios at equal attack success",
    about="How many times more compute Best-of-N needs than Saffron-1 for the same attack success, read in two ways.",
    section="conventions",
    order=20,
    table=table,
    needs=("scaling",),
    wanted=lambda config: has_runs(config, "scaling", match_rule(config).method),
    page="table2",
    published=False,
)
