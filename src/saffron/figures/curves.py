"""Scaling curves, as Figures 2 and 4a and the figure of an experiment draw them, and what they say in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saffron.analysis import paper, scaling
from saffron.analysis.view import View
from saffron.config import Convention
from saffron.figures import style
from saffron.figures.style import COLOURS, MARKERS, plt
from saffron.figures.words import label, listed, unit, with_unit
from saffron.methods.discovery import method as described
from saffron.methods.discovery import ordered
from saffron.roles import BASELINE


def figure2(view: View, convention: Convention) -> Figure:
    """Attack success against compute, logarithmic fits with bands; beside it the paper's points and fits."""
    curves = {method: curve(view, method, convention) for method in scaled(view)}
    scale, name = unit([max(curve["flops"]) for curve in curves.values()])
    with style.styled():
        figure, (ax, beside) = plt.subplots(1, 2, figsize=(style.FULL, 2.75), sharey=True, width_ratios=(1.55, 1))
        for method, points in curves.items():
            regression(ax, view, points, scale, method)
            draw_points(ax, points, scale, method)
        no_defense_line(ax, view)
        _mark_equal_asr(ax, view, convention, scale)
        how = "" if convention == "once" else ", counted per model"
        style.compute_axis(ax, [f / scale for curve in curves.values() for f in curve["flops"]], f"{name} per prompt{how}")
        style.asr_axis(ax)
        ax.set_title(f"this replication ({view.config.name})", loc="left")
        _paper_curves(beside)
        beside.set_ylabel("")
        bottom = style.legend_below(figure, ax, bottom=0.25)
        figure.subplots_adjust(left=0.085, right=0.985, top=0.92, bottom=bottom, wspace=0.07)
    return figure


def scaled(view: View) -> list[str]:
    """Methods that were run at budgets, in the order of legends."""
    return [method for method in ordered(view.section("curves")[view.judge]) if described(method).budget is not None]


def curve(view: View, method: str, convention: Convention = "once", judge: str | None = None) -> dict[str, Any]:
    """A stored curve with its compute in one convention."""
    found = dict(view.section("curves")[judge or view.judge][method])
    if convention == "per_model":
        found["flops"] = [flops * described(method).multiplier() for flops in found["flops"]]
    return found


def regression(ax: Axes, view: View, curve: dict[str, Any], scale: float, method: str) -> None:
    """Dashed logarithmic fit of a curve, as the paper draws it with seaborn, and its band.

    seaborn's own band resamples the points of the curve; ours resamples prompts and training seeds, so that it is as wide as
    the bars of the points say.
    """
    import seaborn

    band = view.section("bands")[view.judge].get(method)
    if band is None:
        return
    colour = COLOURS[method]
    seaborn.regplot(
        x=np.asarray(curve["flops"], dtype=float) / scale,
        y=np.asarray(curve["asr"], dtype=float),
        logx=True,
        scatter=False,
        ci=None,
        truncate=True,
        color=colour,
        line_kws={"linestyle": "--", "linewidth": 0.9},
        ax=ax,
    )
    low, high = (np.array([np.nan if end is None else end for end in band[name]], dtype=float) for name in ("low", "high"))
    x = np.geomspace(min(curve["flops"]), max(curve["flops"]), len(band["flops"])) / scale  # a convention is a constant factor
    ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def draw_points(ax: Axes, curve: dict[str, Any], scale: float, method: str, **changes: Any) -> None:
    """Measured points of a curve with their intervals."""
    y, low, high = (np.asarray(curve[name], dtype=float) for name in ("asr", "low", "high"))
    x = np.asarray(curve["flops"], dtype=float) / scale
    errors = np.abs(np.stack([y - low, high - y]))
    how: dict[str, Any] = {"fmt": MARKERS[method], "elinewidth": 0.6, "capsize": 0, "label": label(method), "zorder": 3}
    ax.errorbar(x, y, errors, color=COLOURS[method], **how | changes)


def no_defense_line(ax: Axes, view: View) -> None:
    """Attack success without a defense, across the axes."""
    found = view.section("curves")[view.judge].get(BASELINE)
    if found:
        ax.axhline(found["asr"][0], color=COLOURS[BASELINE], ls=":", lw=1, label=label(BASELINE), zorder=1)


def _mark_equal_asr(ax: Axes, view: View, convention: Convention, scale: float) -> None:
    """An arrow at the lowest ASR of Best-of-N that Saffron-1's measured points enclose, with the compute ratio."""
    rows = view.analysis.get("equal_asr", {}).get(view.judge, {}).get(convention, [])
    rows = [row for row in rows if row["relation"] == "" and row["ratio"] is not None and row["asr"] > 0]
    if not rows:
        return
    row = min(rows, key=lambda r: r["asr"])
    a, b = row["saffron_flops"] / scale, row["flops"] / scale
    ax.annotate(
        "",
        (a, row["asr"]),
        (b, row["asr"]),
        arrowprops={"arrowstyle": "<->", "lw": 0.8, "color": "#222222", "shrinkA": 0, "shrinkB": 0},
    )
    # Curves fall from the upper left, so the lower left corner is free.
    text = f"↔ {row['ratio']:.2g}×: compute of Best-of-{row['best_of_n']} over\nSaffron-1's at the same attack success"
    ax.text(0.02, 0.03, text, transform=ax.transAxes, va="bottom", fontsize=7)


def _paper_curves(ax: Axes) -> None:
    points, fits = paper.table("figure2"), paper.table("figure2_fits").set_index("method")
    for method in ordered(fits.index):
        rows = points[points["method"] == method]
        colour = COLOURS[method]
        x = np.geomspace(rows["tflop"].min(), rows["tflop"].max(), 50)
        printed: dict[Any, Any] = fits.loc[method].to_dict()
        fit = scaling.LogFit(printed["intercept"], printed["slope_per_ln_tflop"], float("nan"), len(rows))
        ax.plot(x, fit.at(x), ls="--", lw=0.8, color=colour, alpha=0.6)
        ax.plot(rows["tflop"], rows["asr"], MARKERS[method], color=colour, mfc="white", ms=3.5, mew=0.8)
    none = paper.table("table3")
    ax.axhline(float(none.loc[none["search_width"] == 0, "asr"].iloc[0]), color=COLOURS[BASELINE], ls=":", lw=1)
    style.compute_axis(ax, points["tflop"].tolist(), "TFLOP per prompt, as printed")
    style.asr_axis(ax)
    ax.set_title("the paper", loc="left")


def described_in_words(view: View, convention: Convention) -> str:
    """Alt text of Figure 2: every method's ends."""
    parts = [ends(label(method), curve(view, method, convention)) for method in scaled(view)]
    none = view.section("curves")[view.judge].get(BASELINE)
    line = f" A dotted line marks attack success without a defense, {none['asr'][0]:.2f}." if none else ""
    return (
        "Attack success rate, from 0 to 1, against compute per prompt on a logarithmic axis, one marker and dashed fit per "
        f"method: {listed(parts)}.{line} A second panel shows the paper's own points and fits."
    )


def ends(name: str, points: dict[str, Any]) -> str:
    """A curve in words, by its first and last point."""
    first, last = (f"{points['asr'][i]:.2f} at {with_unit(points['flops'][i])}" for i in (0, -1))
    return f"{name} {first}" if len(points["asr"]) == 1 else f"{name} from {first} to {last}"
