"""The claims that are shown first: what the paper's own tables say of each, and what our worlds say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import permutations
from typing import Any

from saffron.analysis import claims, paper, scaling
from saffron.pages import worlds
from saffron.pages.worlds import Records
from saffron.table import Table

#: Columns of the paper's Table 2 by the role that its benchmark has.
_BENCHMARKS = {"scaling": "harmful_hexphi_asr", "matched": "ai2_refusals_asr"}


@cache
def printed() -> Mapping[str, float]:
    """Quantities that follow from the paper's printed tables and figures, by the names that ours have.

    Differences of Table 2, R² of the plotted points of Figure 2, the logarithm of the compute ratio at the attack success of the
    largest Best-of-N by the printed fits, statistics of Figure 4b, and differences of ScalEff in Table 1. Compute is counted the
    paper's way: every operation once for each loaded model.
    """
    table1, table2 = paper.table("table1"), paper.table("table2").set_index("method")
    found = {
        f"matched/{role}/once/{one}-{other}": float(table2.loc[one, column] - table2.loc[other, column])
        for role, column in _BENCHMARKS.items()
        for one, other in permutations(table2.index, 2)
    }
    points, fits = paper.table("figure2"), paper.table("figure2_fits").set_index("method")
    for method, rows in points.groupby("method"):
        fit = scaling.log_fit(rows["tflop"].tolist(), rows["asr"].tolist())
        found[f"fit/scaling/once/{method}/r_squared"] = fit.r_squared
    last = points[points["method"] == "best_of_n"].sort_values("tflop")["asr"].iloc[-1]
    logs = {method: (last - row["intercept"]) / row["slope_per_ln_tflop"] for method, row in fits.iterrows()}
    found["compute_ratio/scaling/fit/once/log"] = float(logs["best_of_n"] - logs["saffron"])
    found |= {f"mrm/{name}": float(value) for name, value in paper.table("figure4b_summary").itertuples(index=False)}
    for method, rows in table1.sort_values("knob_value").groupby("method"):
        name = {"mcts": "deal"}.get(str(method), method)
        found[f"exploration/scaleff/{name}"] = float(rows["scaleff"].iloc[-1] - rows["scaleff"].iloc[0])
    return found


def table(ours: Records) -> Table:
    """A row for each claim marked ``headline`` in ``claims.yaml``, a column for the paper and for every published world."""
    shown = worlds.shown(ours)
    wanted = paper.headlines()
    rows = []
    for claim in (claim for claim in paper.claims() if claim["id"] in wanted):
        cells = [_cell(claim, record) for _, record in shown]
        rows.append((claims.statement(claim), _printed(claim), *cells))
    labels = [f"{world.label}, {_seeds(record)}" for world, record in shown]
    return Table(("claim", "the paper", *labels), tuple(rows))


def _seeds(record: Mapping[str, Any]) -> str:
    count = len(record["seeds"]["train"])
    return f"{count} seed{'s' if count > 1 else ''}"


def _printed(claim: Mapping[str, Any]) -> str:
    values = [printed().get(name) for name in claim.get("quantities", ())]
    known = [claims.format_number(value) for value in values if value is not None]
    return "; ".join(known) or "–"


def _cell(claim: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Verdict and numbers of a published run."""
    found = next((one for one in record["claims"] if one["id"] == claim["id"]), None)
    if found is None:
        return "–"
    main = [quantity for quantity in found["quantities"] if not quantity["name"].startswith("step/")]
    numbers = "; ".join(claims.format_estimate(quantity["ours"]) for quantity in main)
    return f"**{claims.describe(found)}**: {numbers}"


def markdown(ours: Records) -> str:
    """The table, and how to read it."""
    if not worlds.shown(ours):
        return "Not published yet (`make publish`)."
    benchmarks = [
        f"in {world.label} {' and '.join(names)} take the places of the paper's benchmarks"
        for world, record in worlds.shown(ours)
        if (names := _benchmarks(record))
    ]
    brackets = "Brackets: 95 % intervals; below 0: the first lets fewer attacks through."
    origin = "; ".join(["The paper's numbers follow from its printed ones", *benchmarks])
    return f"{table(ours).markdown_rows()}\n{brackets} {origin}."


def _benchmarks(record: Mapping[str, Any]) -> list[str]:
    """Prompt sets of the two benchmarks, where they are not the paper's."""
    experiments = record["settings"]["search"]["experiments"].values()
    found = list(dict.fromkeys(one["dataset"] for role in _BENCHMARKS for one in experiments if one.get("role") == role))
    return [] if found == ["harmful_hexphi", "ai2_refusals"] else found
