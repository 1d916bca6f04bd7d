"""Every figure, in one style: functions from a :class:`View` to a matplotlib figure, and saving that is byte-stable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from saffron.analysis import ablations, paper, scaling, tries
from saffron.analysis.study import BASELINE, PROPOSED
from saffron.analysis.view import View
from saffron.captions import LABELS, unit, with_unit
from saffron.config import Convention
from saffron.methods.discovery import method as described
from saffron.methods.discovery import methods, ordered
from saffron.records import replacing

#: Width of the text of the paper's template, in inches.
FULL = 5.5

#: One colour per method in every figure (Okabe and Ito, told apart with any colour vision), and one marker.
COLOURS = {name: method.colour for name, method in methods().items()}
MARKERS = {name: method.marker for name, method in methods().items()}
#: KV blocks of Figure 3 and the PRM of Figure 1: no method's colour.
SHARED, PRIVATE, PROMPT, PRM = "#33415C", "#A8B5CC", "#999999", "#33415C"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "saffron",
    "svg.fonttype": "none",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "legend.frameon": False,
}


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Write ``<name>.pdf`` and ``<name>.png``, the same bytes for the same figure, and close it."""
    with matplotlib.rc_context(STYLE):
        with replacing(Path(folder) / f"{name}.pdf") as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with replacing(Path(folder) / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def _compute_axis(ax: Axes, values: Sequence[float], label: str) -> None:
    """A logarithmic compute axis with plain numbers."""
    ax.set_xscale("log")
    low, high = min(values), max(values)
    ax.set_xlim(low / 1.35, high * 1.35)
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel(label)


def _asr_axis(ax: Axes, label: str = "attack success rate") -> None:
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel(label)
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)


def _regression(ax: Axes, view: View, curve: dict[str, Any], scale: float, method: str) -> None:
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


def _points(ax: Axes, curve: dict[str, Any], scale: float, method: str) -> None:
    y, low, high = (np.asarray(curve[name], dtype=float) for name in ("asr", "low", "high"))
    x = np.asarray(curve["flops"], dtype=float) / scale
    errors = np.abs(np.stack([y - low, high - y]))
    ax.errorbar(
        x, y, errors, fmt=MARKERS[method], color=COLOURS[method], elinewidth=0.6, capsize=0, label=LABELS[method], zorder=3
    )


# ---------------------------------------------------------------------------------------------------------- figure 1
def figure1(view: View, most: int = 7) -> Figure:
    """Figure 1: one real step of Saffron-1, scored by PRM calls (one per candidate) and by a single MRM call."""
    step = view.recorded.step
    shown = _shown(step.candidates, most)
    left_out = len(step.candidates) - len(shown)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(FULL, 0.62 + 0.27 * (len(shown) + bool(left_out))))
        titles = (
            f"PRM: {_calls(step.prm_calls)}, {with_unit(step.prm_flops)}",
            f"MRM (Saffron-1): {_calls(step.mrm_calls)}, {with_unit(step.mrm_flops)}",
        )
        for ax, title, kind in zip(axes, titles, ("prm", "mrm"), strict=True):
            _draw_step(ax, step, shown, left_out, kind, view.show_text)
            ax.set_title(title, loc="left", fontweight="bold")
        prefix = _prefix(step.prefix, view.show_text)
        figure.text(0.01, 0.985, prefix, fontsize=7, va="top")
        figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.46 / figure.get_figheight(), bottom=0.02, wspace=0.06)
    return figure


def _shown(candidates: Sequence[tries.Candidate], most: int) -> list[tries.Candidate]:
    """The most probable candidates, with some of those that were kept, in order of probability."""
    kept = [candidate for candidate in candidates if candidate.kept][: most // 2]
    likely = [candidate for candidate in candidates if candidate not in kept][: most - len(kept)]
    return [candidate for candidate in candidates if candidate in kept or candidate in likely]


def _signed(value: float) -> str:
    """A reward with its sign, as a proper minus."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _calls(n: int) -> str:
    return f"{n} call" + ("s" if n != 1 else "")


def _prefix(prefix: Sequence[str], show_text: bool) -> str:
    if not prefix:
        return "Beam sequence: nothing yet, the first step"
    if not show_text:
        return f"Beam sequence of {len(prefix)} tokens (text withheld)."
    text = "".join(prefix)
    return "Beam sequence: “" + (text if len(text) <= 75 else "…" + text[-74:]).strip() + "”"


def _draw_step(ax: Axes, step: tries.Step, shown: list[tries.Candidate], left_out: int, kind: str, show_text: bool) -> None:
    rows = len(shown)
    colour = PRM if kind == "prm" else COLOURS[PROPOSED]
    ax.set_xlim(0, 10)
    ax.set_ylim(-0.7 - bool(left_out), rows - 0.3)
    ax.axis("off")
    middle = (rows - 1) / 2

    def box(x: float, y: float, width: float, height: float, text: str, face: str, *, bold: bool = False) -> None:
        ax.add_patch(
            FancyBboxPatch(
                (x, y - height / 2), width, height, boxstyle="round,pad=0.02,rounding_size=0.12", fc=face, ec=colour, lw=0.7
            )
        )
        ax.text(
            x + width / 2, y, text, ha="center", va="center", fontsize=7, fontweight="bold" if bold else "normal", color="#111111"
        )

    box(0.05, middle, 1.25, 0.8, "prefix", "white")
    if kind == "mrm":
        box(2.1, middle, 1.3, 0.8, "MRM", "#FBE3D4", bold=True)
        ax.annotate("", (2.05, middle), (1.35, middle), arrowprops={"arrowstyle": "->", "lw": 0.8, "color": colour})
    for i, candidate in enumerate(shown):
        y = rows - 1 - i
        name = repr(candidate.text.strip() or candidate.text)[1:-1] if show_text else f"candidate {i + 1}"
        value = candidate.prm_reward if kind == "prm" else candidate.mrm_reward
        if kind == "prm":
            ax.annotate("", (2.05, y), (1.35, middle), arrowprops={"arrowstyle": "->", "lw": 0.7, "color": colour})
            box(2.1, y, 2.6, 0.72, name[:13], "white")
            ax.annotate("", (5.35, y), (4.75, y), arrowprops={"arrowstyle": "->", "lw": 0.7, "color": colour})
            box(5.4, y, 1.2, 0.72, "PRM", "#DEE4EE", bold=True)
            ax.annotate("", (7.25, y), (6.65, y), arrowprops={"arrowstyle": "->", "lw": 0.7, "color": colour})
            ax.text(8.7, y, _signed(value), ha="right", va="center", fontsize=7.5)
        else:
            ax.annotate("", (4.3, y), (3.45, middle), arrowprops={"arrowstyle": "->", "lw": 0.7, "color": colour})
            box(4.35, y, 2.6, 0.72, name[:13], "white")
            number = _signed(value) if candidate.seen else "unseen"
            ax.text(8.7, y, number, ha="right", va="center", fontsize=7.5)
        if kind == "mrm" and candidate.kept:
            ax.text(8.9, y, "kept", ha="left", va="center", fontsize=7, color=colour, fontweight="bold")
    if left_out:
        ax.text(5.5, -1, f"and {left_out} more", ha="center", va="center", fontsize=7, color="#555555")


# ---------------------------------------------------------------------------------------------------------- figure 2
def figure2(view: View, convention: Convention = "once") -> Figure:
    """Figure 2: attack success against compute, logarithmic fits with bands; beside it the paper's points and fits."""
    curves = {method: _curve(view, method, convention) for method in _scaled(view)}
    scale, name = unit([max(curve["flops"]) for curve in curves.values()])
    with matplotlib.rc_context(STYLE):
        figure, (ax, beside) = plt.subplots(1, 2, figsize=(FULL, 2.75), sharey=True, width_ratios=(1.55, 1))
        for method, curve in curves.items():
            _regression(ax, view, curve, scale, method)
            _points(ax, curve, scale, method)
        _no_defense_line(ax, view)
        _mark_equal_asr(ax, view, convention, scale)
        how = "" if convention == "once" else ", counted per model"
        _compute_axis(ax, [f / scale for curve in curves.values() for f in curve["flops"]], f"{name} per prompt{how}")
        _asr_axis(ax)
        ax.set_title(f"this replication ({view.config.name})", loc="left")
        _paper_curves(beside)
        beside.set_ylabel("")
        figure.legend(*ax.get_legend_handles_labels(), loc="lower center", ncols=5, columnspacing=1.2, handletextpad=0.4)
        figure.subplots_adjust(left=0.085, right=0.985, top=0.92, bottom=0.25, wspace=0.07)
    return figure


def _scaled(view: View) -> list[str]:
    """Methods that were run at budgets, in the order of legends."""
    return [method for method in ordered(view.section("curves")[view.judge]) if described(method).budget is not None]


def _curve(view: View, method: str, convention: Convention) -> dict[str, Any]:
    """A stored curve, attack success by the judge that decides it, with its compute in one convention."""
    curve = dict(view.section("curves")[view.judge][method])
    if convention == "per_model":
        curve["flops"] = [flops * described(method).multiplier() for flops in curve["flops"]]
    return curve


def _no_defense_line(ax: Axes, view: View) -> None:
    curve = view.section("curves")[view.judge].get(BASELINE)
    if curve:
        ax.axhline(curve["asr"][0], color=COLOURS[BASELINE], ls=":", lw=1, label=LABELS[BASELINE], zorder=1)


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
    label = f"↔ {row['ratio']:.2g}×: compute of Best-of-{row['best_of_n']} over\nSaffron-1's at the same attack success"
    ax.text(0.02, 0.03, label, transform=ax.transAxes, va="bottom", fontsize=7)


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
    _compute_axis(ax, points["tflop"].tolist(), "TFLOP per prompt, as printed")
    _asr_axis(ax)
    ax.set_title("the paper", loc="left")


# ---------------------------------------------------------------------------------------------------------- figure 3
def figure3(view: View, tokens: int = 9, sequences: int = 5) -> Figure:
    """Figure 3: the trie of a real Saffron-1 search in KV blocks, part of it with its tokens, and Proposition 2's savings."""
    search = next(s for s in view.recorded.searches if s.method == PROPOSED)
    with matplotlib.rc_context(STYLE):
        figure = plt.figure(figsize=(FULL, 4.5))
        grid = figure.add_gridspec(2, 2, width_ratios=(1.9, 1), height_ratios=(1.5, 1), wspace=0.3, hspace=0.5)
        whole = figure.add_subplot(grid[0, :])
        _draw_blocks(whole, search, search.leaves)
        whole.set_title(f"(a) the whole trie: {len(search.leaves)} explored sequences, one block per cached token", loc="left")
        part = figure.add_subplot(grid[1, 0])
        _draw_part(part, search, tokens, sequences, view.show_text)
        part.set_title(f"(b) first {tokens} tokens of {min(sequences, len(search.leaves))} sequences", loc="left")
        savings = figure.add_subplot(grid[1, 1])
        _draw_savings(savings, view.recorded.searches)
        handles = [Patch(color=c, label=label) for c, label in ((PROMPT, "prompt"), (SHARED, "shared"), (PRIVATE, "private"))]
        figure.legend(handles=handles, loc="lower left", ncols=3, bbox_to_anchor=(0.02, 0.0), columnspacing=1, handlelength=1)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.94, bottom=0.09)
    return figure


def _lexicographic(search: tries.Search, leaves: Sequence[int]) -> list[int]:
    return sorted(leaves, key=lambda leaf: tuple(search.token[node] for node in search.path(leaf)))


def _rows(search: tries.Search, leaves: Sequence[int]) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Rows (in lexicographic order) of the sequences through each node, and each node's depth."""
    through: dict[int, list[int]] = {}
    depth: dict[int, int] = {}
    for row, leaf in enumerate(_lexicographic(search, leaves)):
        for position, node in enumerate(search.path(leaf)):
            through.setdefault(node, []).append(row)
            depth[node] = position
    return through, depth


def _draw_blocks(ax: Axes, search: tries.Search, leaves: Sequence[int]) -> None:
    through, depth = _rows(search, leaves)
    width = 1.6
    ax.add_patch(Rectangle((-width, 0), width - 0.12, len(leaves), fc=PROMPT, ec="none"))
    ax.text(
        -width / 2 - 0.06,
        len(leaves) / 2,
        f"prompt, {search.prompt_tokens} tokens",
        rotation=90,
        ha="center",
        va="center",
        fontsize=7,
        color="white",
    )
    gap = 0.12 if len(leaves) <= 40 else 0.06
    for node, rows in through.items():
        colour = SHARED if len(rows) > 1 else PRIVATE
        ax.add_patch(Rectangle((depth[node], min(rows) + gap / 2), 0.9, len(rows) - gap, fc=colour, ec="none"))
    last = max(depth.values()) + 1
    ax.set_xlim(-width, last)
    ax.set_ylim(len(leaves), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xticks(np.arange(0, last, 4) + 0.45, [str(i + 1) for i in range(0, last, 4)])
    ax.set_xlabel("position of the new token")
    ax.set_ylabel("explored sequences", labelpad=3)


def _draw_part(ax: Axes, search: tries.Search, tokens: int, sequences: int, show_text: bool) -> None:
    long = [leaf for leaf in _lexicographic(search, search.leaves) if len(search.path(leaf)) >= tokens] or search.leaves
    chosen = [long[round(i)] for i in np.linspace(0, len(long) - 1, min(sequences, len(long)))]
    through, depth = _rows(search, chosen)
    for node, rows in through.items():
        if depth[node] >= tokens:
            continue
        colour, ink = (SHARED, "white") if len(rows) > 1 else (PRIVATE, "black")
        top, height = min(rows), len(rows)
        ax.add_patch(Rectangle((depth[node], top + 0.08), 0.94, height - 0.16, fc=colour, ec="none"))
        label = search.text[node].strip() or "·"
        if show_text:
            ax.text(
                depth[node] + 0.47,
                top + height / 2,
                label,
                ha="center",
                va="center",
                fontsize=min(5.5, 40 / len(label)),  # the whole token fits its block
                color=ink,
                clip_on=True,
            )
    ax.set_xlim(0, tokens)
    ax.set_ylim(len(chosen), 0)
    ax.axis("off")


def _draw_savings(ax: Axes, searches: Sequence[tries.Search]) -> None:
    """Share of the unshared cost that remains, mean over recorded searches of each method."""
    compared = ordered(search.method for search in searches)
    for i, method in enumerate(compared):
        costs = [s.cost() for s in searches if s.method == method]
        for j, (used, unshared) in enumerate((("time", "time_unshared"), ("space", "space_unshared"))):
            share = sum(getattr(c, used) for c in costs) / sum(getattr(c, unshared) for c in costs)
            x = j + (i - (len(compared) - 1) / 2) * 0.36
            ax.bar(x, share, 0.32, color=COLOURS[method], label=LABELS[method] if j == 0 else None)
            ax.text(x, share + 0.02, f"{share:.0%}", ha="center", va="bottom", fontsize=7)
    ax.axhline(1, color="#555555", lw=0.7, ls=":")
    ax.set_ylim(0, 1.45)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xticks([0, 1], ["time", "space"])
    ax.set_ylabel("share of unshared cost")
    ax.set_title("(c) what sharing leaves", loc="left")
    ax.legend(loc="upper left", ncols=2, handlelength=1, columnspacing=1, handletextpad=0.4)


# --------------------------------------------------------------------------------------------------------- figure 4
def figure4a(view: View) -> Figure:
    """Figure 4a: Saffron-1's scaling curve beside the no-defense line; the paper's curve lightly, in relative compute."""
    curve = _curve(view, PROPOSED, "once")
    scale, name = unit(curve["flops"])
    x = [flops / scale for flops in curve["flops"]]
    with matplotlib.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(FULL * 0.62, 2.7))
        points = paper.table("figure2")
        points = points[points["method"] == PROPOSED]
        relative = points["tflop"] / points["tflop"].iloc[0] * x[0]
        ax.plot(
            relative,
            points["asr"],
            "-",
            color="#BBBBBB",
            marker="o",
            mfc="white",
            ms=3.5,
            lw=0.8,
            label="the paper (compute scaled to N = 1)",
            zorder=1,
        )
        _regression(ax, view, curve, scale, PROPOSED)
        _points(ax, curve, scale, PROPOSED)
        for flops, asr, budget in zip(x, curve["asr"], curve["budget"], strict=True):
            ax.annotate(
                f"{budget}",
                (flops, asr),
                (-2, -4),
                textcoords="offset points",
                fontsize=6.5,
                color=COLOURS[PROPOSED],
                ha="right",
                va="top",
            )
        for judge in view.judges[1:2]:
            other, label = view.section("curves")[judge][PROPOSED], f"Saffron-1, by {judge}"
            ax.plot(x, other["asr"], marker="o", mfc="none", ls="none", color=COLOURS[PROPOSED], label=label)
        _no_defense_line(ax, view)
        _compute_axis(ax, [*x, *relative], f"{name} per prompt")
        _asr_axis(ax)
        figure.legend(*ax.get_legend_handles_labels(), loc="lower center", ncols=2, columnspacing=1, handletextpad=0.5)
        figure.subplots_adjust(left=0.13, right=0.98, top=0.97, bottom=0.31)
    return figure


def figure4b(view: View) -> Figure:
    """Figure 4b: M(s)[a] against R(sa) on held-out prefixes, as a density where points overlap."""
    frame = view.mrm_evaluation
    r, m = frame["prm_reward"].to_numpy(float), frame["mrm_reward"].to_numpy(float)
    low, high = np.floor(min(r.min(), m.min())), np.ceil(max(r.max(), m.max()))
    with matplotlib.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(FULL * 0.62, 2.9))
        ax.fill_between([low, high], [low - 1, high - 1], [low + 1, high + 1], color="#EEEEEE", zorder=0, label="within ±1")
        shading = ax.hexbin(
            r, m, gridsize=45, bins="log", mincnt=1, extent=(low, high, low, high), cmap="cividis_r", linewidths=0.1, zorder=2
        )
        ax.plot([low, high], [low, high], color=COLOURS[PROPOSED], lw=0.8, zorder=3, label="M(s)[a] = R(sa)")
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.set_xlabel("PRM reward R(sa), logits")
        ax.set_ylabel("MRM reward M(s)[a], logits")
        bar = figure.colorbar(shading, ax=ax, pad=0.02)
        bar.set_label("prefixes per cell")
        bar.outline.set_visible(False)  # type: ignore[operator]
        from saffron.analysis.mrm import persistence, summary

        values, still = summary(frame), summary(persistence(frame))
        text = f"n = {len(frame):,}\nMAE = {values['mae']:.3f}\nR² = {values['r_squared']:.3f}\n"
        text += f"within ±1: {values['fraction_within_1']:.1%}\n"
        text += f"persistence:\nMAE = {still['mae']:.3f}\nR² = {still['r_squared']:.3f}"
        ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=7)
        ax.legend(loc="lower right")
        figure.subplots_adjust(left=0.15, right=0.93, top=0.97, bottom=0.15)
    return figure


# ----------------------------------------------------------------------------------------------------------- table 1
def scaleff_against_limit(view: View) -> Figure:
    """ScalEff of Table 1's rows as a function of the compute limit, with the limits that were fixed beforehand."""
    rows = view.section("exploration")
    methods = sorted({row["method"] for row in rows})
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(methods), figsize=(FULL, 2.3), squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            own = [row for row in rows if row["method"] == method]
            scale, name = unit([row["flops"] for row in own])
            limits = np.geomspace(max(row["flops"] for row in own), 40 * own[0]["flops"], 200)
            undefined = [row for row in own if scaling.scaleff(row["flops"], row[view.judge]["value"], limits[0]) is None]
            if undefined:
                names = " and ".join(f"{row['knob']} = {row['value']}" for row in undefined)
                ax.text(
                    *(0.03, 0.96),
                    f"undefined for\n{names}:\nattack success 0",
                    transform=ax.transAxes,
                    va="top",
                    fontsize=7,
                    bbox={"fc": "white", "ec": "none", "pad": 1},
                )
            for row, style in zip(own, ("-", "--", ":"), strict=False):
                values = [scaling.scaleff(row["flops"], row[view.judge]["value"], limit) for limit in limits]
                if values[0] is not None:
                    ax.plot(
                        limits / scale,
                        np.array(values, dtype=float),
                        style,
                        color=COLOURS[method],
                        label=f"{row['knob']} = {row['value']}",
                    )
            ax.axvline(own[0]["limit"] / scale, color="#555555", lw=0.7, ls=":")
            ax.annotate(
                "limit used",
                (own[0]["limit"] / scale, 0.02),
                (3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=6.5,
            )
            _compute_axis(ax, (limits / scale).tolist(), f"compute limit, {name} per prompt")
            ax.set_ylabel("ScalEff")
            ax.grid(True, axis="y")
            ax.set_title(LABELS[method], loc="left")
            ax.legend(loc="lower right")
        figure.tight_layout(pad=0.4)
    return figure


# --------------------------------------------------------------------------------------------------------- ablations
#: Line and marker of the runs of an ablation, in order: the first is the setting used everywhere else.
VARIANTS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1)), "v"), ((0, (1, 1)), "P"))


def ablation(view: View, name: str) -> Figure:
    """One ablation: attack success by each judge against compute, a line per setting."""
    rows = ablations.rows(view.study, name)
    settings = list(dict.fromkeys((row["method"], row["settings_id"]) for row in rows))
    scale, unit_name = unit([row["flops"] for row in rows])
    judges = view.study.judges
    columns = 4 if len({method for method, _ in settings}) == 1 else 3
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(judges), figsize=(FULL if len(judges) > 1 else FULL * 0.6, 2.6), sharey=True, squeeze=False
        )
        for ax, judge in zip(axes[0], judges, strict=True):
            for setting in settings:
                i = [other for other in settings if other[0] == setting[0]].index(setting)
                own = sorted(
                    (row for row in rows if (row["method"], row["settings_id"]) == setting), key=lambda row: row["flops"]
                )
                values, low, high = (np.array([row[judge][end] for row in own], dtype=float) for end in ("value", "low", "high"))
                style, marker = VARIANTS[i % len(VARIANTS)]
                ax.errorbar(
                    [row["flops"] / scale for row in own],
                    values,
                    np.abs(np.stack([values - low, high - values])),
                    linestyle=style,
                    marker=marker,
                    color=COLOURS[setting[0]],
                    alpha=1 if i == 0 else 0.65,
                    mfc=COLOURS[setting[0]] if i == 0 else "white",
                    elinewidth=0.5,
                    lw=0.9,
                    label=_setting(setting, several=len({method for method, _ in settings}) > 1),
                )
            _compute_axis(ax, [row["flops"] / scale for row in rows], f"{unit_name} per prompt")
            _asr_axis(ax, "attack success rate" if judge == judges[0] else "")
            ax.set_title(f"by {judge}", loc="left")
        figure.legend(
            *axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=min(len(settings), columns), columnspacing=1.2
        )
        lines = -(-len(settings) // columns)
        figure.subplots_adjust(left=0.1, right=0.98, top=0.91, bottom=0.2 + 0.075 * lines, wspace=0.08)
    return figure


def sharing(view: View) -> Figure:
    """Policy FLOPs of the recorded searches with their trie shared and with every sequence read on its own."""
    searches = view.section("tries")[str(view.seed)]
    methods = ordered(search["method"] for search in searches)
    scale, unit_name = unit([search["flops_unshared"] for search in searches])
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(methods), figsize=(FULL, 2.3), sharey=True, squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            own = [search for search in searches if search["method"] == method]
            places = np.arange(len(own))
            bars = (
                ("flops_unshared", -0.2, "#CCCCCC", "each sequence on its own"),
                ("flops", 0.2, COLOURS[method], "shared trie"),
            )
            for name, shift, colour, label in bars:
                ax.bar(places + shift, [search[name] / scale for search in own], 0.38, color=colour, label=label)
            for place, search in zip(places, own, strict=True):
                text = f"{search['flops'] / search['flops_unshared']:.0%}"
                ax.text(place + 0.2, search["flops"] / scale, text, ha="center", va="bottom", fontsize=6.5)
            ax.set_xticks(places, [str(search["prompt_id"]) for search in own])
            ax.set_xlabel("prompt")
            ax.set_ylabel(f"policy, {unit_name}" if ax is axes[0][0] else "")
            ax.set_title(f"{LABELS[method]}, N = {own[0]['budget']}", loc="left")
            ax.margins(y=0.3)
            ax.legend(loc="upper right", handlelength=1)
        figure.tight_layout(pad=0.8)
    return figure


def _setting(setting: tuple[str, str], *, several: bool) -> str:
    """A setting in a legend, with its method where there are several."""
    method, name = setting[0], setting[1].replace("_", " ")
    return f"{LABELS[method]}, {name}" if several else name


def overoptimisation(view: View) -> Figure:
    """Attack success by the first two judges as the budget grows, for every method."""
    curves, judges = view.section("curves"), view.judges[:2]
    methods = [method for method in ordered(curves[view.judge]) if len(curves[view.judge][method]["budget"]) > 1]
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(methods), figsize=(FULL, 2.35), sharey=True, squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            for judge, style in zip(judges, ("-", "--"), strict=False):
                curve = curves[judge][method]
                fill = COLOURS[method] if judge == view.judge else "white"
                ax.plot(curve["budget"], curve["asr"], style, marker=MARKERS[method], color=COLOURS[method], mfc=fill)
                ax.fill_between(curve["budget"], curve["low"], curve["high"], color=COLOURS[method], alpha=0.12, lw=0)
            ax.set_xscale("log", base=2)
            budgets = curves[view.judge][method]["budget"]
            ax.set_xticks(budgets[:: 1 + len(budgets) // 4], [str(b) for b in budgets[:: 1 + len(budgets) // 4]])
            ax.minorticks_off()
            ax.set_xlabel("budget N")
            _asr_axis(ax, "attack success rate" if ax is axes[0][0] else "")
            ax.set_title(LABELS[method], loc="left")
        grey = COLOURS[BASELINE]
        figure.legend(
            [Line2D([], [], color=grey, marker="o"), Line2D([], [], color=grey, ls="--", marker="o", mfc="white")][: len(judges)],
            [f"by {judge}" for judge in judges],
            loc="lower center",
            ncols=2,
        )
        figure.subplots_adjust(left=0.095, right=0.985, top=0.9, bottom=0.29, wspace=0.1)
    return figure
