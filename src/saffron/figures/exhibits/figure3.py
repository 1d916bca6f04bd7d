"""Figure 3: the token trie of a real search, and what sharing leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose
from saffron.methods.discovery import ordered
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saffron.analysis.tries import Search
    from saffron.analysis.view import View


def draw(view: View, tokens: int = 9, sequences: int = 5) -> Figure:
    """The trie of a real Saffron-1 search in KV blocks, part of it with its tokens, and Proposition 2's savings."""
    from matplotlib.patches import Patch

    from saffron.figures import style
    from saffron.figures.style import PRIVATE, PROMPT, SHARED

    search = _drawn(view)
    with style.styled():
        figure = style.plt.figure(figsize=(style.FULL, 4.5))
        grid = figure.add_gridspec(2, 2, width_ratios=(1.9, 1), height_ratios=(1.5, 1), wspace=0.3, hspace=0.5)
        whole = figure.add_subplot(grid[0, :])
        _draw_blocks(whole, search, search.leaves)
        whole.set_title(f"(a) the whole trie: {len(search.leaves)} explored sequences, one block per cached token", loc="left")
        part = figure.add_subplot(grid[1, 0])
        _draw_part(part, search, tokens, sequences, view.show_text)
        part.set_title(f"(b) first {tokens} tokens of {min(sequences, len(search.leaves))} sequences", loc="left")
        savings = figure.add_subplot(grid[1, 1])
        _draw_savings(savings, view.recorded.searches)
        handles = [Patch(color=c, label=text) for c, text in ((PROMPT, "prompt"), (SHARED, "shared"), (PRIVATE, "private"))]
        figure.legend(handles=handles, loc="lower left", ncols=3, bbox_to_anchor=(0.02, 0.0), columnspacing=1, handlelength=1)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.94, bottom=0.09)
    return figure


def _drawn(view: View) -> Search:
    return next(search for search in view.recorded.searches if search.method == PROPOSED)


def _lexicographic(search: Search, leaves: Sequence[int]) -> list[int]:
    return sorted(leaves, key=lambda leaf: tuple(search.token[node] for node in search.path(leaf)))


def _rows(search: Search, leaves: Sequence[int]) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Rows (in lexicographic order) of the sequences through each node, and each node's depth."""
    through: dict[int, list[int]] = {}
    depth: dict[int, int] = {}
    for row, leaf in enumerate(_lexicographic(search, leaves)):
        for position, node in enumerate(search.path(leaf)):
            through.setdefault(node, []).append(row)
            depth[node] = position
    return through, depth


def _draw_blocks(ax: Axes, search: Search, leaves: Sequence[int]) -> None:
    import numpy as np
    from matplotlib.patches import Rectangle

    from saffron.figures.style import PRIVATE, PROMPT, SHARED

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


def _draw_part(ax: Axes, search: Search, tokens: int, sequences: int, show_text: bool) -> None:
    import numpy as np
    from matplotlib.patches import Rectangle

    from saffron.figures.style import PRIVATE, SHARED

    long = [leaf for leaf in _lexicographic(search, search.leaves) if len(search.path(leaf)) >= tokens] or search.leaves
    chosen = [long[round(i)] for i in np.linspace(0, len(long) - 1, min(sequences, len(long)))]
    through, depth = _rows(search, chosen)
    for node, rows in through.items():
        if depth[node] >= tokens:
            continue
        colour, ink = (SHARED, "white") if len(rows) > 1 else (PRIVATE, "black")
        top, height = min(rows), len(rows)
        ax.add_patch(Rectangle((depth[node], top + 0.08), 0.94, height - 0.16, fc=colour, ec="none"))
        text = search.text[node].strip() or "·"
        if show_text:
            ax.text(
                depth[node] + 0.47,
                top + height / 2,
                text,
                ha="center",
                va="center",
                fontsize=min(5.5, 40 / len(text)),  # the whole token fits its block
                color=ink,
                clip_on=True,
                parse_math=False,  # a token may be a dollar sign
            )
    ax.set_xlim(0, tokens)
    ax.set_ylim(len(chosen), 0)
    ax.axis("off")


def _shares(searches: Sequence[Search], method: str) -> dict[str, float]:
    """What remains of the unshared time and space, mean over recorded searches of a method."""
    costs = [search.cost() for search in searches if search.method == method]
    return {
        used: sum(getattr(cost, used) for cost in costs) / sum(getattr(cost, f"{used}_unshared") for cost in costs)
        for used in ("time", "space")
    }


def _draw_savings(ax: Axes, searches: Sequence[Search]) -> None:
    from saffron.figures.style import COLOURS

    compared = ordered(search.method for search in searches)
    for i, method in enumerate(compared):
        for j, share in enumerate(_shares(searches, method).values()):
            x = j + (i - (len(compared) - 1) / 2) * 0.36
            ax.bar(x, share, 0.32, color=COLOURS[method], label=label(method) if j == 0 else None)
            ax.text(x, share + 0.02, f"{share:.0%}", ha="center", va="bottom", fontsize=7)
    ax.axhline(1, color="#555555", lw=0.7, ls=":")
    ax.set_ylim(0, 1.45)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xticks([0, 1], ["time", "space"])
    ax.set_ylabel("share of unshared cost")
    ax.set_title("(c) what sharing leaves", loc="left")
    ax.legend(loc="upper left", ncols=2, handlelength=1, columnspacing=1, handletextpad=0.4)


def caption(view: View) -> str:
    """What stands below the figure."""
    search = _drawn(view)
    cost = search.cost()
    errors = {name: view.analysis["quantities"][f"proposition2/{name}_error"]["value"] for name in ("space", "time")}
    return prose(
        f"""Figure 3. The token trie of one real Saffron-1 search (prompt {search.prompt_id} of {view.recorded.dataset},
        width {search.budget}): {cost.space} cached tokens in place of {cost.space_unshared}. A block is shared if more
        than one explored sequence runs through it. (c) Proposition 2: what remains of the unshared time (sum of squared
        lengths) and space (sum of lengths), over n = {len(view.recorded.searches)} recorded searches. Against what the engine
        itself counted in them, the two formulas are off by at most {errors["space"]:g} tokens and {errors["time"]:g} pairs."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    search, searches = _drawn(view), view.recorded.searches
    shares = {method: _shares(searches, method) for method in ordered(each.method for each in searches)}
    left = "; ".join(f"{label(method)} {found['time']:.0%} and {found['space']:.0%}" for method, found in shares.items())
    return (
        f"Rows of blocks, one row per explored sequence ({len(search.leaves)}) and one block per cached token, dark where "
        f"several sequences share it; an enlarged part of it; and bars of what sharing leaves of time and space: {left}."
    )


EXHIBIT = Exhibit(
    title="Figure 3: the token trie of a real search",
    about=prose(
        """Every explored sequence runs from left to right; a dark block is cached once for all the sequences through it, a light
        one belongs to a single sequence. The bars show how much of the time and space of separate sequences remains
        (Proposition 2)."""
    ),
    section="trie",
    order=10,
    draw=draw,
    caption=caption,
    alt=alt,
)
