"""The ablation of sharing: a search's trie read once, or every sequence on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose, unit
from saffron.methods.discovery import ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """Policy FLOPs of the recorded searches with their trie shared and with every sequence read on its own."""
    import numpy as np

    from saffron.figures import style
    from saffron.figures.style import COLOURS

    searches = view.section("tries")[str(view.seed)]
    methods = ordered(search["method"] for search in searches)
    scale, unit_name = unit([search["flops_unshared"] for search in searches])
    with style.styled():
        figure, axes = style.plt.subplots(1, len(methods), figsize=(style.FULL, 2.3), sharey=True, squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            own = [search for search in searches if search["method"] == method]
            places = np.arange(len(own))
            bars = (
                ("flops_unshared", -0.2, "#CCCCCC", "each sequence on its own"),
                ("flops", 0.2, COLOURS[method], "shared trie"),
            )
            for name, shift, colour, text in bars:
                ax.bar(places + shift, [search[name] / scale for search in own], 0.38, color=colour, label=text)
            for place, search in zip(places, own, strict=True):
                text = f"{search['flops'] / search['flops_unshared']:.0%}"
                ax.text(place + 0.2, search["flops"] / scale, text, ha="center", va="bottom", fontsize=6.5)
            ax.set_xticks(places, [str(search["prompt_id"]) for search in own])
            ax.set_xlabel("prompt")
            ax.set_ylabel(f"policy, {unit_name}" if ax is axes[0][0] else "")
            ax.set_title(f"{label(method)}, N = {own[0]['budget']}", loc="left")
            ax.margins(y=0.3)
            ax.legend(loc="upper right", handlelength=1)
        figure.tight_layout(pad=0.8)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    searches = view.section("tries")[str(view.seed)]
    return prose(
        f"""Trie sharing on or off, compute only: outputs are the same. Nominal FLOPs with which the policy reads what a search
        explored, each token of the trie once or every explored sequence on its own (Proposition 2); above the bars: what sharing
        leaves. n = {len(searches)} recorded searches, training seed {view.seed}."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    searches = view.section("tries")[str(view.seed)]
    parts = []
    for method in ordered(search["method"] for search in searches):
        shares = [search["flops"] / search["flops_unshared"] for search in searches if search["method"] == method]
        parts.append(f"{label(method)} {min(shares):.0%} to {max(shares):.0%}")
    return (
        "Pairs of bars, one pair per recorded search and a panel per method: the policy's FLOPs with every sequence read on its "
        f"own and with the trie shared. Sharing leaves: {'; '.join(parts)}."
    )


EXHIBIT = Exhibit(
    title="Trie sharing, on or off",
    about=prose(
        """What the recorded searches cost the policy with a shared trie, and what they would cost if every explored sequence were
        read on its own. Outputs are the same either way; the percentage above a bar is what sharing leaves."""
    ),
    section="trie",
    order=20,
    draw=draw,
    caption=caption,
    alt=alt,
    page="figure3",
)
