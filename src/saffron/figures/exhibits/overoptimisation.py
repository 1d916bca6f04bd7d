"""Over-optimisation: what the searches maximise, and what other judges and the text itself say, as the budget grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saffron import roles
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import asked, kinds, label, listed, prose, rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saffron.analysis.view import View
    from saffron.table import Table

MRM, REPEATS = "MRM", "repeats itself"
#: Judges that fit beside the MRM and repetition: each has a line and a marker of its own.
SHOWN = 4


def _grows(config: Config) -> bool:
    """Whether a method is run at several budgets, so that there is a curve."""
    name = roles.holder(config.search, "scaling")
    runs = [] if name is None else config.search.experiments[name].runs
    return any(run.settings_id == "default" and len(run.budgets) > 1 for run in runs)


def _curves(view: View) -> dict[str, list[dict[str, Any]]]:
    """Rows by method, in the order of budgets, of the methods that were run at several."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in view.section("overoptimisation"):
        found.setdefault(row["method"], []).append(row)
    return {method: rows for method, rows in found.items() if len(rows) > 1}


def _rewards(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A row's rewards by who gives them: the MRM where it was read, and every guard."""
    return ({MRM: row["mrm"]} if row["mrm"] is not None else {}) | row["rewards"]


def _shares(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A row's shares of outputs: attack success by every judge, and those that repeat themselves."""
    return row["asr"] | {REPEATS: row["repeats"]}


def draw(view: View) -> Figure:
    """Rewards above, shares of outputs below, against the budget; a column per method."""
    from matplotlib.lines import Line2D

    from saffron.figures import style
    from saffron.figures.style import COLOURS, VARIANTS
    from saffron.roles import BASELINE

    curves = _curves(view)
    looks = dict(zip([MRM, *view.judges[:SHOWN], REPEATS], VARIANTS, strict=False))
    # Repetition is no judge's word: it has the last look and a colour of its own.
    looks[REPEATS] = VARIANTS[-1]
    rewarded = any(_rewards(row) for rows in curves.values() for row in rows)
    kept = [_rewards, _shares] if rewarded else [_shares]
    with style.styled():
        size = (style.FULL, 1.25 + 1.5 * len(kept))
        figure, axes = style.plt.subplots(len(kept), len(curves), figsize=size, sharex="col", sharey="row", squeeze=False)
        for place, of in enumerate(kept):
            for ax, (method, rows) in zip(axes[place], curves.items(), strict=True):
                for name, look in looks.items():
                    colour = "#111111" if name == REPEATS else COLOURS[method]
                    _line(ax, [(row["budget"], of(row).get(name)) for row in rows], look, colour)
                if of is _shares:
                    style.asr_axis(ax, "share of outputs" if ax is axes[place][0] else "")
                    ax.set_xlabel("budget N")
                else:
                    ax.grid(True, axis="y")
                    ax.axhline(0, color="#999999", lw=0.6, zorder=0)
                    ax.set_ylabel("mean reward" if ax is axes[place][0] else "")
                if place == 0:
                    ax.set_title(label(method), loc="left")
        for ax, rows in zip(axes[-1], curves.values(), strict=True):
            budgets = [row["budget"] for row in rows]
            ax.set_xscale("log", base=2)
            ax.set_xticks(budgets[:: 1 + len(budgets) // 4], [str(b) for b in budgets[:: 1 + len(budgets) // 4]])
            ax.minorticks_off()
        grey = COLOURS[BASELINE]
        handles = [
            Line2D([], [], color="#111111" if name == REPEATS else grey, ls=look[0], marker=look[1])
            for name, look in looks.items()
        ]
        names = ["repeats itself" if name == REPEATS else f"by {name}" if name != MRM else "by the MRM" for name in looks]
        figure.legend(handles, names, loc="lower center", ncols=len(names), handlelength=2.6, columnspacing=1.2)
        figure.subplots_adjust(left=0.095, right=0.985, top=0.93, bottom=0.17 if len(kept) > 1 else 0.27, wspace=0.1, hspace=0.12)
    return figure


def _line(ax: Axes, points: list[tuple[int, dict[str, Any] | None]], look: tuple[Any, str], colour: str) -> None:
    """One measure of one method, with its interval; budgets at which it is not known are left out."""
    known = [(budget, found) for budget, found in points if found is not None and found["value"] is not None]
    if not known:
        return
    budgets, values = [budget for budget, _ in known], [found["value"] for _, found in known]
    ax.plot(budgets, values, ls=look[0], marker=look[1], ms=3, color=colour)
    low, high = ([found["value"] if found[end] is None else found[end] for _, found in known] for end in ("low", "high"))
    ax.fill_between(budgets, low, high, color=colour, alpha=0.12, lw=0)


def caption(view: View) -> str:
    """What stands below the figure."""
    return prose(
        f"""Over-optimisation, as the budget of the searches grows. Above: the mean reward of their outputs, by the MRM where it
        chose them and by every guard. Below: attack success by every judge, and the share of outputs that repeat themselves (a
        run of three words twice). {asked(view, "scaling")}; shaded: 95 % intervals. {kinds(view, view.judges)} Where the MRM's
        reward rises and the guard's does not, where attack success falls by one judge alone, or where repetition rises, the
        search has found what pleases its reward model rather than what is safe."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    parts = []
    for method, rows in _curves(view).items():
        shares = [f"{found['value']:.2f} by {judge}" for judge, found in rows[-1]["asr"].items()]
        first, last = (row["repeats"]["value"] for row in (rows[0], rows[-1]))
        parts.append(
            f"{label(method)} at N = {rows[-1]['budget']}: attack success {listed(shares)}; {last:.2f} repeat themselves, "
            f"{first:.2f} at N = {rows[0]['budget']}"
        )
    return f"Mean rewards and shares of outputs against the budget, a column per method. {'. '.join(parts)}."


def table(view: View) -> Table:
    """The numbers of the figure, and those without a search."""
    from saffron.table import Table

    found = view.section("overoptimisation")
    guards = list(found[0]["rewards"])
    rows = [
        (
            label(row["method"]),
            str(row["budget"]),
            rate(row["mrm"]),
            *(rate(row["rewards"][judge]) for judge in guards),
            *(rate(row["asr"][judge]) for judge in view.judges),
            rate(row["repeats"]),
        )
        for row in found
    ]
    columns = ("reward by the MRM", *(f"reward by {judge}" for judge in guards), *(f"ASR by {judge}" for judge in view.judges))
    return Table(("method", "budget", *columns, "repeat themselves"), tuple(rows), caption(view))


EXHIBIT = Exhibit(
    title="Over-optimisation: rewards, judges and repetition as N grows",
    about=prose(
        """Each search maximises a reward, Saffron-1 the MRM's, the others the guard's. A judge that no search has read (in the
        sandbox the oracle, which knows what an output really did) and the text itself tell whether a higher reward means a
        safer answer, or only one that the reward model likes."""
    ),
    section="overoptimisation",
    draw=draw,
    caption=caption,
    alt=alt,
    table=table,
    needs=("scaling",),
    wanted=_grows,
)
