"""Table 1: exploration against scaling efficiency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, judged, label, prose, seeds, with_unit
from saffron.methods.discovery import method as described

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """More exploration, worse ScalEff."""
    from saffron.analysis import paper
    from saffron.table import Table

    printed = paper.table("table1").set_index(["method", "knob_value"])
    rows = []
    found = sorted(view.section("exploration"), key=lambda row: (row["method"], row["value"]))
    for row in found:
        explored = described(row["method"]).exploration
        key = (explored.name_in_paper if explored else row["method"], row["value"])
        theirs = printed.loc[key] if key in printed.index else None
        printed_values = (
            ["–"] * 3 if theirs is None else [f"{theirs['tflop']:.2f}", f"{theirs['asr']:.3f}", f"{theirs['scaleff']:.3f}"]
        )
        efficiency = row[f"scaleff_{view.judge}"]
        ours = [
            with_unit(row["flops"]),
            with_unit(row["flops_per_model"]),
            *judged(view, row),
            "undefined" if efficiency is None else f"{efficiency:.3f}",
        ]
        rows.append((label(row["method"]), f"{row['knob']} = {row['value']}", *ours, with_unit(row["limit"]), *printed_values))
    columns = ("method", "exploration", "compute", "compute counted per model", *judge_columns(view), "ScalEff", "limit")
    columns += ("paper: TFLOP", "paper: ASR", "paper: ScalEff")
    caption = prose(
        f"""Table 1. Exploration against scaling efficiency (Eq. 1) on the first {found[0]["n"]} prompts by id,
        {seeds(view)}; 95 % intervals. Limits were fixed beforehand: the paper's limit over its cheaper row, times our
        cheaper row. “DeAL” is the paper's “MCTS”. ScalEff is by {view.judge}, which decides attack success: where another judge
        parts from it, the search may have found what {view.judge} wrongly takes for safe, and ScalEff measures that."""
    )
    return Table(columns, tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Table 1: exploration against efficiency",
    about=prose(
        """ScalEff (Eq. 1) is the compute saved against a limit, in logarithms, per unit of attack success: higher is better. If
        more children or deeper lookahead lower it, a token explored by PRM calls costs more than it gains."""
    ),
    section="exploration",
    order=30,
    table=table,
    needs=("exploration",),
)
