"""Figure 4b: the multifurcation against the process reward model on held-out prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import prose
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """M(s)[a] against R(sa) on held-out prefixes, as a density where points overlap."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    from saffron.figures import style
    from saffron.mrm.agreement import persistence, statistics

    frame = view.mrm_evaluation
    r, m = frame["prm_reward"].to_numpy(float), frame["mrm_reward"].to_numpy(float)
    low, high = np.floor(min(r.min(), m.min())), np.ceil(max(r.max(), m.max()))
    with style.styled():
        figure, ax = style.plt.subplots(figsize=(style.FULL * 0.62, 2.9))
        ax.fill_between([low, high], [low - 1, high - 1], [low + 1, high + 1], color="#EEEEEE", zorder=0, label="within ±1")
        shading = ax.hexbin(
            r, m, gridsize=45, bins="log", mincnt=1, extent=(low, high, low, high), cmap="cividis_r", linewidths=0.1, zorder=2
        )
        ax.plot([low, high], [low, high], color=style.COLOURS[PROPOSED], lw=0.8, zorder=3, label="M(s)[a] = R(sa)")
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.set_xlabel("PRM reward R(sa), logits")
        ax.set_ylabel("MRM reward M(s)[a], logits")
        bar = figure.colorbar(shading, ax=ax, pad=0.02)
        bar.set_label("prefixes per cell")
        bar.outline.set_visible(False)  # type: ignore[operator]
        values, still = statistics(frame), statistics(persistence(frame))
        text = f"n = {len(frame):,}\nMAE = {values['mae']:.3f}\nR² = {values['r_squared']:.3f}\n"
        text += f"within ±1: {values['fraction_within_1']:.1%}\n"
        text += f"persistence:\nMAE = {still['mae']:.3f}\nR² = {still['r_squared']:.3f}"
        ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=7)
        ax.legend(loc="lower right")
        figure.subplots_adjust(left=0.15, right=0.93, top=0.97, bottom=0.15)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    frame = view.mrm_evaluation
    conversations = frame["conversation_id"].nunique()
    return prose(
        f"""Figure 4b. MRM reward M(s)[a] against PRM reward R(sa) on n = {len(frame):,} held-out prefixes of
        {conversations:,} conversations (training seed {view.seed}); colour: prefixes per cell. Persistence:
        M(s)[a] = R(s)."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    from saffron.mrm.agreement import statistics

    values = statistics(view.mrm_evaluation)
    return (
        f"A density of {len(view.mrm_evaluation):,} points, the MRM's reward against the PRM's, with the diagonal on which the "
        f"two agree: R² {values['r_squared']:.3f}, mean absolute error {values['mae']:.3f}, {values['fraction_within_1']:.1%} "
        "within 1."
    )


EXHIBIT = Exhibit(
    title="Figure 4b: does the MRM predict the PRM?",
    about=prose(
        """Each point is a prefix that the MRM was not trained on: its prediction for the next token against the PRM's own reward
        of that token. On the diagonal the two agree; the grey band is an error of at most 1."""
    ),
    section="mrm",
    order=10,
    draw=draw,
    caption=caption,
    alt=alt,
)
