"""Over-optimisation: attack success by the judge that searches maximise, and by those that they never see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import asked, decides, judges, label, listed, others, prose
from saffron.methods.discovery import BASELINE, ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View

#: Line of each judge, the first one's whole.
LINES = ("-", "--", ":", "-.")


def _methods(view: View) -> list[str]:
    curves = view.section("curves")[decides(view)]
    return [method for method in ordered(curves) if len(curves[method]["budget"]) > 1]


def draw(view: View) -> Figure:
    """Attack success by every judge as the budget grows, for every method."""
    from matplotlib.lines import Line2D

    from saffron.figures import style
    from saffron.figures.style import COLOURS, MARKERS

    curves, asked_judges = view.section("curves"), judges(view)
    first, methods = decides(view), _methods(view)
    with style.styled():
        figure, axes = style.plt.subplots(1, len(methods), figsize=(style.FULL, 2.35), sharey=True, squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            for i, judge in enumerate(asked_judges):
                curve = curves[judge][method]
                ax.plot(
                    curve["budget"],
                    curve["asr"],
                    LINES[i % len(LINES)],
                    marker=MARKERS[method],
                    color=COLOURS[method],
                    mfc=COLOURS[method] if judge == first else "white",
                )
                ax.fill_between(curve["budget"], curve["low"], curve["high"], color=COLOURS[method], alpha=0.12, lw=0)
            ax.set_xscale("log", base=2)
            budgets = curves[first][method]["budget"]
            ax.set_xticks(budgets[:: 1 + len(budgets) // 4], [str(b) for b in budgets[:: 1 + len(budgets) // 4]])
            ax.minorticks_off()
            ax.set_xlabel("budget N")
            style.asr_axis(ax, "attack success rate" if ax is axes[0][0] else "")
            ax.set_title(label(method), loc="left")
        grey = COLOURS[BASELINE]
        lines = [
            Line2D([], [], color=grey, ls=LINES[i % len(LINES)], marker="o", mfc=grey if judge == first else "white")
            for i, judge in enumerate(asked_judges)
        ]
        figure.legend(lines, [f"by the {judge}" for judge in asked_judges], loc="lower center", ncols=max(2, len(lines)))
        figure.subplots_adjust(left=0.095, right=0.985, top=0.9, bottom=0.29, wspace=0.1)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    names = {"oracle": "text oracle"}
    theirs = listed([f"the {names.get(judge, judge)}" for judge in others(view)])
    beside = f", and by {theirs}, which they never see" if others(view) else ""
    return prose(
        f"""Over-optimisation: attack success by the {decides(view)}, whose reward the searches maximise{beside};
        {asked(view, "scaling")}; shaded: 95 % intervals. A gap that widens with N is reward without safety."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    curves, parts = view.section("curves"), []
    for method in _methods(view):
        at_last = [f"{curves[judge][method]['asr'][-1]:.2f} by the {judge}" for judge in judges(view)]
        parts.append(f"{label(method)} {listed(at_last)} at N = {curves[decides(view)][method]['budget'][-1]}")
    return (
        "Attack success rate against the budget, a panel per method and a line per judge. At the largest budgets: "
        f"{'; '.join(parts)}."
    )


EXHIBIT = Exhibit(
    title="Over-optimisation of the guard",
    about=prose(
        """Each search maximises the guard's reward; the text oracle knows what an output really did. Where the lines part as N
        grows, the search finds outputs that please the guard without being safe."""
    ),
    section="overoptimisation",
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("scaling",),
)
