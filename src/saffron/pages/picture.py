"""Figure 2 as a picture of our pages: the paper's and every published world's side by side, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saffron.analysis import paper, scaling
from saffron.figures.words import label, listed, trained, unit, with_unit
from saffron.methods.discovery import ordered
from saffron.pages import worlds
from saffron.pages.worlds import Records
from saffron.records import replacing
from saffron.roles import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = Path("docs/pictures")
NAME = "figure2"

#: What a page's ground decides: colours of text and lines, of the grid, of no defense (grey), and how far methods' are lightened.
THEMES: Mapping[str, tuple[str, str, str, float]] = {
    "light": ("#1F2328", "#D8DEE4", "#555555", 0.0),
    "dark": ("#E6EDF3", "#30363D", "#9AA4AF", 0.3),
}


@dataclass(frozen=True)
class Panel:
    """One set of curves.

    Args:
        title: above it.
        curves: by method: ``flops`` and ``asr`` of its points, ``low`` and ``high`` where there are intervals.
        fits: intercept and slope of ASR = a + b ln(TFLOP), by method.
        baseline: attack success without a defense, if known.
    """

    title: str
    curves: Mapping[str, Mapping[str, Any]]
    fits: Mapping[str, scaling.LogFit]
    baseline: float | None


def panels(ours: Records) -> list[Panel]:
    """The paper's, then one for each published world."""
    return [_paper(), *(_world(world.label, record) for world, record in worlds.shown(ours))]


def _paper() -> Panel:
    points, fits = paper.table("figure2"), paper.table("figure2_fits").set_index("method")
    rows = {str(method): found for method, found in points.groupby("method")}
    none = paper.table("table3").set_index("search_width")["asr"]
    return Panel(
        "the paper",
        {
            method: {"flops": [tflop * 1e12 for tflop in found["tflop"]], "asr": list(found["asr"])}
            for method, found in rows.items()
        },
        {
            m: scaling.LogFit(fits.loc[m, "intercept"], fits.loc[m, "slope_per_ln_tflop"], float("nan"), len(rows[m]))
            for m in rows
        },
        float(none[0]),
    )


def _world(name: str, record: Mapping[str, Any]) -> Panel:
    analysis = record["analysis"]
    curves = dict(analysis["curves"][analysis["judges"][0]])
    none = curves.pop(BASELINE, None)
    fits = {
        method: scaling.log_fit([flops / 1e12 for flops in curve["flops"]], curve["asr"])
        for method, curve in curves.items()
        if scaling.can_be_fitted(curve["flops"])
    }
    return Panel(f"{name}, {trained(len(record['seeds']['train']))}", curves, fits, none and none["asr"][0])


def draw(shown: list[Panel], theme: str) -> Figure:
    """The panels in a row with one legend, on a transparent ground."""
    from saffron.figures import style
    from saffron.figures.style import plt

    ink, lines, grey, lighter = THEMES[theme]
    colours = {m: _lightened(colour, lighter) for m, colour in style.COLOURS.items()} | {BASELINE: grey}
    with style.styled(), plt.rc_context(_inked(ink, lines)):
        figure, axes = plt.subplots(1, len(shown), figsize=(2.9 * len(shown), 2.9), sharey=True, squeeze=False)
        for place, (ax, panel) in enumerate(zip(axes[0], shown, strict=True)):
            _draw_panel(ax, panel, colours)
            if place:
                ax.set_ylabel("")
        entries = {text: handle for ax in axes[0] for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        names = [
            label(method)
            for method in ordered([*{m for panel in shown for m in panel.curves}, BASELINE])
            if label(method) in entries
        ]
        figure.legend([entries[name] for name in names], names, loc="lower center", ncols=6, columnspacing=1.2, handletextpad=0.4)
        figure.subplots_adjust(left=0.52 / (2.9 * len(shown)), right=0.99, top=0.92, bottom=0.235, wspace=0.08)
    return figure


def _draw_panel(ax: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    import numpy as np

    from saffron.figures import style

    scale, name = unit([max(curve["flops"]) for curve in panel.curves.values()])
    for method in ordered(panel.curves):
        curve, colour = panel.curves[method], colours[method]
        x, y = (np.asarray(curve[key], dtype=float) for key in ("flops", "asr"))
        if method in panel.fits:
            line = np.geomspace(x.min(), x.max(), 40)
            ax.plot(line / scale, panel.fits[method].at(line / 1e12), ls="--", lw=0.9, color=colour, zorder=2)
        if "low" in curve:
            ax.vlines(x / scale, curve["low"], curve["high"], color=colour, lw=0.7, zorder=2)
        ax.plot(x / scale, y, style.MARKERS[method], color=colour, ms=4, label=label(method), zorder=3)
    if panel.baseline is not None:
        ax.axhline(panel.baseline, color=colours[BASELINE], ls=":", lw=1, label=label(BASELINE), zorder=1)
    style.compute_axis(ax, [flops / scale for curve in panel.curves.values() for flops in curve["flops"]], f"{name} per prompt")
    style.asr_axis(ax)
    ax.set_title(panel.title, loc="left")


def _inked(ink: str, lines: str) -> Any:
    """Settings over those of every figure: the page's colours, text as outlines so that no reader's fonts move it."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {**dict.fromkeys(inked, ink), "grid.color": lines, "svg.fonttype": "path"}


def _lightened(colour: str, share: float) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


def files(ours: Records) -> Iterator[tuple[Path, bytes]]:
    """Path below the project's root and content of each picture; equal records give equal bytes."""
    import io

    from saffron.figures.style import plt, styled

    shown = panels(ours)
    for theme in THEMES:
        figure, stream = draw(shown, theme), io.BytesIO()
        with styled(), plt.rc_context({"svg.fonttype": "path"}):
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
        yield FOLDER / f"{NAME}-{theme}.svg", stream.getvalue()


def write(ours: Records, root: Path = Path()) -> None:
    """Write the pictures."""
    for path, content in files(ours):
        with replacing(root / path) as temporary:
            temporary.write_bytes(content)


def alt(ours: Records) -> str:
    """What a reader who cannot see the picture is told: the ends of every curve."""
    words = []
    for panel in panels(ours):
        ends = [f"{label(method)} {_ends(panel.curves[method])}" for method in ordered(panel.curves)]
        none = "" if panel.baseline is None else f"; no defense {panel.baseline:.2f}"
        words.append(f"{panel.title[0].upper()}{panel.title[1:]}: {listed(ends)}{none}.")
    return " ".join(["Attack success rate against compute per prompt.", *words])


def _ends(curve: Mapping[str, Any]) -> str:
    first, last = (f"{curve['asr'][i]:.2f} at {with_unit(curve['flops'][i])}" for i in (0, -1))
    return first if len(curve["asr"]) == 1 else f"from {first} to {last}"


def for_readme(ours: Records) -> str:
    """The picture as GitHub shows it, which follows the reader's theme."""
    place = FOLDER.as_posix()
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{place}/{NAME}-dark.svg">\n'
        f'  <img src="{place}/{NAME}-light.svg" alt="{alt(ours)}">\n</picture>'
    )


def for_site(ours: Records) -> str:
    """The same on the site, whose theme the reader can set."""
    return "\n".join(f"![{alt(ours)}]({FOLDER.name}/{NAME}-{theme}.svg#only-{theme})" for theme in THEMES)
