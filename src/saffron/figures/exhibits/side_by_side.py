"""A few prompts with DeepAlign's output beside Saffron-1's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saffron import workflow
from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View, examples: int = 5) -> Table:
    """Outputs of the first prompts; ids, lengths and rewards where text is withheld."""
    from saffron.analysis.results import Key
    from saffron.analysis.sections import section56
    from saffron.table import Table

    study = view.study
    scaled, deep = study.of("scaling"), study.of("section56")
    pair = (deep.rows(section56.deepalign_key(study)), scaled.rows(Key(PROPOSED, "default", section56.width(study))))
    first = [
        rows[(rows["train_seed"] == view.seed) & (rows["search_seed"] == view.config.search.seeds[0])].set_index("prompt_id")
        for rows in pair
    ]
    rows, guard = [], workflow.guard_judge(view.config)
    for prompt_id in scaled.prompt_ids[:examples]:
        cells = [_output(rows_of.loc[prompt_id], guard, view.show_text) for rows_of in first]
        rows.append((str(prompt_id), *cells))
    caption = prose(
        f"""Outputs for the first {len(rows)} prompts by id (training seed {view.seed}); R is the guard's reward, below 0
        unsafe. It judges the whole output, a compliant start that is taken back among them, and it can be wrong: attack success
        by other judges stands beside it in the tables."""
    )
    return Table(("prompt", label("deepalign"), f"{label(PROPOSED)}, N = {section56.width(study)}"), tuple(rows), caption)


def _output(row: Any, guard: str | None, show_text: bool) -> str:
    reward = "R not known" if guard is None else f"R = {row[f'{guard}_score']:+.2f}"
    return f"{' '.join(row['text'].split())} ({reward})" if show_text else f"{row['n_new_tokens']} tokens, {reward}"


EXHIBIT = Exhibit(
    title="Outputs side by side",
    about="What the two systems answered to the same prompts under the same attack.",
    section="variety",
    order=20,
    table=table,
    needs=("scaling", "section56"),
    page="section56",
    published=False,
)
