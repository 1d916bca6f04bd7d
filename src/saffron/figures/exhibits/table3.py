"""Table 3: attack success by search width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, prompts_of, prose, seeds, with_unit
from saffron.roles import BASELINE, PROPOSED

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Attack success against Saffron-1's search width."""
    from saffron.analysis import paper
    from saffron.table import Table

    printed = paper.table("table3").set_index("search_width")["asr"]
    rows = []
    curves = view.section("curves")
    for method in (BASELINE, PROPOSED):
        curve = curves[view.judge].get(method, {"budget": []})
        for i, budget in enumerate(curve["budget"]):
            ours = []
            for judge in view.judges:
                points = curves[judge][method]
                ours.append(f"{points['asr'][i]:.3f} [{points['low'][i]:.3f}, {points['high'][i]:.3f}]")
            theirs = f"{printed[budget]:.3f}" if budget in printed.index else "–"
            rows.append((str(budget), with_unit(curve["flops"][i]), *ours, theirs))
    caption = prose(
        f"""Table 3. Attack success by Saffron-1's search width (0: no defense); n = {prompts_of(view, "scaling")} prompts,
        {seeds(view)}; 95 % intervals."""
    )
    return Table(("search width", "compute", *judge_columns(view), "paper: ASR"), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Table 3: attack success by search width",
    about=prose(
        """Saffron-1 at every search width, beside the paper's values. Absolute numbers are comparable with the paper's only where
        the config runs the paper's models."""
    ),
    section="scaling",
    order=40,
    table=table,
    needs=("scaling",),
)
