"""Compute that Saffron-1 needs for the attack success of each Best-of-N, under either way of counting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from saffron.config import Config, Convention
from saffron.figures.base import Exhibit, has_runs
from saffron.figures.words import COUNTED, prompts_of, prose, seeds, with_unit
from saffron.workflow import match_rule

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View, convention: Convention) -> Table:
    """From measured points alone."""
    from saffron.table import Table

    rows = []
    for row in view.section("equal_asr")[view.judge][convention]:
        needs = "not reached" if row["saffron_flops"] is None else with_unit(row["saffron_flops"])
        ratio = "–" if row["ratio"] is None else f"{row['relation']} {row['ratio']:.2f}×".strip()
        rows.append((str(row["best_of_n"]), f"{row['asr']:.3f}", with_unit(row["flops"]), needs, ratio))
    caption = prose(
        f"""Compute at equal attack success, interpolated between measured points in ln(compute); nothing is extrapolated;
        n = {prompts_of(view, "scaling")} prompts, {seeds(view)}. Compute counted {COUNTED[convention]}."""
    )
    return Table(("Best-of-N", "ASR", "its compute", "Saffron-1's compute", "ratio"), tuple(rows), caption)


def exhibits(config: Config) -> Mapping[str, Exhibit]:
    """One for each way of counting."""
    return {
        f"equal_asr_{convention}": Exhibit(
            title=f"Compute at equal attack success, counted {counted}",
            about="The compute ratio at equal attack success: Best-of-N's over Saffron-1's, between measured points.",
            section="conventions",
            order=30 + i,
            table=partial(table, convention=convention),
            needs=("scaling",),
            wanted=lambda config: has_runs(config, "scaling", match_rule(config).method),
            page="table2",
            published=False,
        )
        for i, (convention, counted) in enumerate(COUNTED.items())
    }
