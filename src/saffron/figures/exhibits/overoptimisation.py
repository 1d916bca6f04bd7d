"""Over-optimisation: attack success by the judge that decides it and by the next one, as the budget grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import roles, workflow
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import asked, label, listed, prose
from saffron.judges.discovery import kind
from saffron.methods.discovery import ordered
from saffron.roles import BASELINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View

#: Line of each judge that is shown, the deciding one's whole.
LINES = ("-", "--")


def _grows(config: Config) -> bool:
    """Whether a method is run at several budgets, so that there is a curve."""
    name = roles.holder(config.search, "scaling")
    runs = [] if name is None else config.search.experiments[name].runs
    return any(run.settings_id == "default" and len(run.budgets) > 1 for run in runs)


def _shown(view: View) -> list[str]:
    return view.judges[: len(LINES)]


def _methods(view: View) -> list[str]:
    curves = view.section("curves")[view.judge]
    return [method for method in ordered(curves) if len(curves[method]["budget"]) > 1]


def draw(view: View) -> Figure:
    """Attack success by the first two judges as the budget grows, for every method."""
    from matplotlib.lines import Line2D

    from saffron.figures import style
    from saffron.figures.style import COLOURS, MARKERS

    curves, judges = view.section("curves"), _shown(view)
    first, methods = view.judge, _methods(view)
    with style.styled():
        figure, axes = style.plt.subplots(1, len(methods), figsize=(style.FULL, 2.35), sharey=True, squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            for judge, line in zip(judges, LINES, strict=False):
                curve = curves[judge][method]
                ax.plot(
                    curve["budget"],
                    curve["asr"],
                    line,
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
            Line2D([], [], color=grey, ls=line, marker="o", mfc=grey if judge == first else "white")
            for judge, line in zip(judges, LINES, strict=False)
        ]
        figure.legend(lines, [f"by {judge}" for judge in judges], loc="lower center", ncols=2)
        figure.subplots_adjust(left=0.095, right=0.985, top=0.9, bottom=0.29, wspace=0.1)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    first, *others = (workflow.judge_of(view.config, judge) for judge in _shown(view))
    other = f" and by {others[0].name} ({kind(others[0].kind).summary})" if others else ""
    return prose(
        f"""Over-optimisation: attack success by {first.name}{other}, as the budget of the searches, which maximise the guard's
        reward, grows; {asked(view, "scaling")}; shaded: 95 % intervals. A gap that widens with N is reward without safety."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    curves, parts = view.section("curves"), []
    for method in _methods(view):
        at_last = [f"{curves[judge][method]['asr'][-1]:.2f} by {judge}" for judge in _shown(view)]
        parts.append(f"{label(method)} {listed(at_last)} at N = {curves[view.judge][method]['budget'][-1]}")
    return (
        "Attack success rate against the budget, a panel per method and a line per judge. At the largest budgets: "
        f"{'; '.join(parts)}."
    )


EXHIBIT = Exhibit(
    title="Over-optimisation of the guard",
    about=prose(
        """Each search maximises the guard's reward; the second judge, in the sandbox the oracle, which knows what an output
        really did, is not read by any. Where the two lines part as N grows, the search finds outputs that please the guard
        without being safe."""
    ),
    section="overoptimisation",
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("scaling",),
    wanted=_grows,
)
