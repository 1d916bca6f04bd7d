"""Section 5.6: lexical variety of outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose, rate, seeds
from saffron.methods.discovery import method as described
from saffron.methods.discovery import methods
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table

#: Shares as printed in the paper.
PRINTED = {"deepalign": ("0.770", "0.809")}


def table(view: View) -> Table:
    """Lexical variety of DeepAlign's outputs and Saffron-1's."""
    from saffron.analysis.sections import section56
    from saffron.table import Table

    quality = view.section("quality")
    rows = []
    for system, values in quality["systems"].items():
        name = label(system)
        if system in methods() and described(system).budget is not None:
            name += f", N = {section56.width(view.study, system)}"
        phrases = (
            [values["most_common_start"][0], values["most_common_phrase"][0]] if view.show_text else ["withheld", "withheld"]
        )
        theirs = PRINTED.get(system, ("–", "–"))
        row = [
            name,
            phrases[0],
            rate(values["starts_with_most_common"]),
            theirs[0],
            phrases[1],
            rate(values["contains_most_common"]),
            theirs[1],
        ]
        variety = [values[measure] for measure in ("distinct_1", "distinct_2", "distinct_3", "self_bleu")]
        row += ["–" if value is None else f"{value:.3f}" for value in variety]
        rows.append(tuple(row))
    columns = (
        *("system", "most common start", "share that start so", "paper: start"),
        *("most common phrase", "share that contain it", "paper: contain"),
        *("distinct-1", "distinct-2", "distinct-3", "self-BLEU"),
    )
    ours, other = quality["systems"][PROPOSED], quality["systems"]["deepalign"]
    measures = [ours[name] > other[name] for name in ("distinct_1", "distinct_2", "distinct_3")]
    if ours["self_bleu"] is not None:  # of one output there is none
        measures.append(ours["self_bleu"] < other["self_bleu"])
    more, less = sum(measures), len(measures) - sum(measures)
    caption = prose(
        f"""Section 5.6. Variety of outputs under attack, n = {ours["n"]} prompts, {seeds(view)}; phrases of
        {quality["phrase_words"]} words or punctuation marks, those printed are the first training seed's; 95 % intervals. The
        claim is about the shares. Higher distinct-n and lower self-BLEU mean more varied outputs too, and need not agree: by
        {more} of these {len(measures)} measures Saffron-1's outputs are the more varied, by {less} DeepAlign's."""
    )
    return Table(columns, tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Section 5.6: variety of outputs",
    about=prose(
        """DeepAlign is trained to recover from an attack and tends to say the same thing; Saffron-1 searches among the policy's
        own answers. Lower shares, higher distinct-n and lower self-BLEU mean more varied outputs."""
    ),
    section="variety",
    order=10,
    table=table,
    needs=("scaling", "section56"),
)
