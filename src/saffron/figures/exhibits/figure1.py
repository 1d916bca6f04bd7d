"""Figure 1: one step of a search, scored by a process and by the multifurcation reward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import prose, with_unit
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saffron.analysis.tries import Candidate
    from saffron.analysis.view import View


def draw(view: View, most: int = 7) -> Figure:
    """One real step of Saffron-1, scored by PRM calls (one per candidate) and by a single MRM call."""
    from saffron.figures import style

    step = view.recorded.step
    shown = _shown(step.candidates, most)
    left_out = len(step.candidates) - len(shown)
    with style.styled():
        figure, axes = style.plt.subplots(1, 2, figsize=(style.FULL, 0.62 + 0.27 * (len(shown) + bool(left_out))))
        titles = (
            f"PRM: {_calls(step.prm_calls)}, {with_unit(step.prm_flops)}",
            f"MRM (Saffron-1): {_calls(step.mrm_calls)}, {with_unit(step.mrm_flops)}",
        )
        for ax, title, kind in zip(axes, titles, ("prm", "mrm"), strict=True):
            _draw_step(ax, shown, left_out, kind, view.show_text)
            ax.set_title(title, loc="left", fontweight="bold")
        prefix = _prefix(step.prefix, view.show_text)
        figure.text(0.01, 0.985, prefix, fontsize=7, va="top", parse_math=False)
        figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.46 / figure.get_figheight(), bottom=0.02, wspace=0.06)
    return figure


def _shown(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
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


def _draw_step(ax: Axes, shown: list[Candidate], left_out: int, kind: str, show_text: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    from saffron.figures.style import COLOURS, PRM

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
            x + width / 2,
            y,
            text,
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold" if bold else "normal",
            color="#111111",
            parse_math=False,  # a token may be a dollar sign
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


def caption(view: View) -> str:
    """What stands below the figure."""
    step = view.recorded.step
    kept = sum(candidate.kept for candidate in step.candidates)
    none = "none of them entered the next beam, other sequences' were better"
    fate = f"{kept} of them entered the next beam (“kept”)" if kept else none
    return prose(
        f"""Figure 1. One step of a real search (prompt {step.prompt_id} of {view.recorded.dataset}, step {step.step},
        training seed {view.seed}): a process reward model reads every candidate ({step.prm_calls} calls), the
        multifurcation reward model scores all of them in {step.mrm_calls} call. A PRM call reads the candidate and the guard's
        verdict question, with the conversation before them cached; the MRM's call reads the last token of the beam sequence.
        Numbers are rewards (logits), R(sa) on the left, M(s)[a] on the right, which approximates it; n =
        {len(step.candidates)} candidates; {fate}."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    step = view.recorded.step
    prm, mrm = with_unit(step.prm_flops), with_unit(step.mrm_flops)
    return (
        f"Two diagrams of one search step with {len(step.candidates)} candidate tokens. Left: the prefix leads to every "
        f"candidate, and each goes through a PRM of its own, {_calls(step.prm_calls)} and {prm}. Right: the "
        f"prefix goes through the MRM once, which scores all candidates, {_calls(step.mrm_calls)} and {mrm}."
    )


EXHIBIT = Exhibit(
    title="Figure 1: one search step, scored both ways",
    about=prose(
        """A real step of a recorded Saffron-1 search. On the left a process reward model (PRM) reads every candidate on its
        own; on the right the multifurcation reward model (MRM) scores all of them in one call. Read it line by line: a candidate
        has R(sa) on the left and what the MRM predicts for it on the right, at very different cost. How far the two agree is
        measured in Figure 4b on held-out prefixes and, where searches read it, in the table of the MRM in search; a single step
        shows single errors."""
    ),
    section="exploration",
    order=10,
    draw=draw,
    caption=caption,
    alt=alt,
)
