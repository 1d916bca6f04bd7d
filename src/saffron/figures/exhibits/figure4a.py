"""Figure 4a: attack success against search width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import asked, label, prose, unit
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """Saffron-1's scaling curve beside the no-defense line; the paper's curve lightly, in relative compute."""
    from saffron.analysis import paper
    from saffron.figures import curves, style
    from saffron.figures.style import COLOURS

    curve = curves.curve(view, PROPOSED)
    scale, name = unit(curve["flops"])
    x = [flops / scale for flops in curve["flops"]]
    with style.styled():
        figure, ax = style.plt.subplots(figsize=(style.FULL * 0.62, 2.7))
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
        curves.regression(ax, view, curve, scale, PROPOSED)
        curves.draw_points(ax, curve, scale, PROPOSED)
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
            theirs = curves.curve(view, PROPOSED, judge=judge)
            ax.plot(
                x,
                theirs["asr"],
                marker="o",
                mfc="none",
                ls="none",
                color=COLOURS[PROPOSED],
                label=f"{label(PROPOSED)}, by {judge}",
            )
        curves.no_defense_line(ax, view)
        style.compute_axis(ax, [*x, *relative], f"{name} per prompt")
        style.asr_axis(ax)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=2, columnspacing=1, handletextpad=0.5)
        more = max(0, (len(labels) - 1) // 2 - 1)
        figure.subplots_adjust(left=0.13, right=0.98, top=0.97, bottom=0.31 + 0.065 * more)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    return prose(
        f"""Figure 4a. Saffron-1's attack success against compute, search widths beside the points; {asked(view, "scaling")};
        bars: 95 % intervals; dashed: logarithmic fit, shaded its 95 % band; grey: the paper's curve, its compute scaled so that
        N = 1 coincides."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    from saffron.figures import curves

    curve = curves.curve(view, PROPOSED)
    return (
        "Attack success rate, from 0 to 1, against compute per prompt on a logarithmic axis: "
        f"{curves.ends(label(PROPOSED), curve)}, for search widths {curve['budget'][0]} to {curve['budget'][-1]}. A grey line is "
        "the paper's curve, a dotted one attack success without a defense."
    )


EXHIBIT = Exhibit(
    title="Figure 4a: attack success against search width",
    about=prose(
        """Saffron-1's attack success as its search width grows, beside the line of no defense. Hollow points are the second
        judge's verdict on the same outputs: where it knows the truth, as the sandbox's oracle does, and they lie above the filled
        ones, the guard is too lenient."""
    ),
    section="scaling",
    order=30,
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("scaling",),
)
