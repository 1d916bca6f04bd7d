"""Every other search at its largest budget, beside Saffron-1 at the same compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prompts_of, prose, seeds, with_unit
from saffron.roles import BASELINE, PROPOSED

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Interpolated between Saffron-1's measured points."""
    import numpy as np

    from saffron.table import Table

    rows = []
    curves = view.section("curves")
    for method, curve in curves[view.judge].items():
        if method in (BASELINE, PROPOSED):
            continue
        ours = []
        for judge in view.judges:
            points = curves[judge]
            flops, saffron = points[method]["flops"][-1], points[PROPOSED]
            inside = saffron["flops"][0] <= flops <= saffron["flops"][-1]
            here = f"{np.interp(np.log(flops), np.log(saffron['flops']), saffron['asr']):.3f}" if inside else "–"
            ours += [f"{points[method]['asr'][-1]:.3f}", here]
        rows.append((label(method), str(curve["budget"][-1]), with_unit(curve["flops"][-1]), *ours))
    columns = [f"{who} ({judge})" for judge in view.judges for who in ("its ASR", "Saffron-1's")]
    caption = prose(
        f"""Beyond matched budgets: every other search at the largest budget that was run, and Saffron-1 at the same compute (each
        FLOP counted once), interpolated between its measured points in ln(compute), “–” outside of them;
        n = {prompts_of(view, "scaling")} prompts, {seeds(view)}."""
    )
    return Table(("method", "budget", "compute", *columns), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Beyond matched budgets",
    about="Every other search at its largest budget, beside Saffron-1 at the same compute.",
    section="conventions",
    order=10,
    table=table,
    needs=("scaling",),
    page="table2",
    published=False,
)
