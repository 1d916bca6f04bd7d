"""Table 2: attack success at matched compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import roles
from saffron.figures.base import Exhibit
from saffron.figures.words import COUNTED, judge_columns, judged, label, prose, rate, seeds, with_unit
from saffron.roles import Role

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table

#: Columns of the published Table 2 by role.
BENCHMARKS: dict[Role, str] = {"scaling": "harmful_hexphi", "matched": "ai2_refusals"}


def table(view: View) -> Table:
    """Attack success at matched compute, under both ways of counting compute."""
    from saffron.analysis import paper
    from saffron.analysis.matching import FLOPS
    from saffron.table import Table

    printed = paper.table("table2").set_index("method")
    rows = []
    for role, column in BENCHMARKS.items():
        tables = view.section("matched").get(role, {})
        _, title = roles.PAPER_BENCHMARKS[role]
        dataset = view.config.search.experiments[view.study.name(role)].dataset if tables else title
        title = dataset if roles.on_paper_benchmark(view.config, role) else f"{dataset} ({title})"
        for convention, counted in COUNTED.items():
            for row in tables.get(convention, []):
                method = row["method"]
                ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}" + ("" if row["within_tolerance"] else " (over)")
                theirs = f"{printed.loc[method, f'{column}_asr']:.3f}" if method in printed.index else "–"
                compute = with_unit(row[FLOPS[convention]])
                reference = view.study.match_rule().method
                difference = "–" if method == reference else rate(row[f"{view.judge}_difference"])
                rows.append(
                    (title, counted, label(method), row["budget"], compute, ratio, *judged(view, row), difference, theirs)
                )
    columns = (
        "benchmark (role of)",
        "compute counted",
        "method",
        "budget",
        "compute",
        "ratio to Best-of-N",
        *judge_columns(view),
    )
    columns += ("difference to Best-of-N", "paper: ASR")
    ns = sorted(
        {row["n"] for tables in view.section("matched").values() for found in tables.values() for row in found}, reverse=True
    )
    caption = prose(
        f"""Table 2. Attack success at compute matched to Best-of-N's (largest budget within 1.05 times, chosen on compute
        alone, by training seed where budgets are joined by “/”); n = {" and ".join(map(str, ns))} prompts, {seeds(view)};
        95 % intervals, differences paired over prompts. “over”: even the smallest budget costs more."""
    )
    return Table(columns, tuple(rows), caption, groups=2)


EXHIBIT = Exhibit(
    title="Table 2: attack success at matched compute",
    about=prose(
        """Every method at its largest budget that costs at most 1.05 times Best-of-32's mean compute, chosen without looking at
        attack success. A difference below 0 whose interval excludes 0 means fewer attacks pass than with Best-of-N. Below: the
        compute that Saffron-1 needs for each Best-of-N's attack success."""
    ),
    section="matched",
    table=table,
    needs=("scaling", "matched"),
)
