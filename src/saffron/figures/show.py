"""What the notebooks display: heading, figure, caption and table of an exhibit."""

from __future__ import annotations

from typing import Any

from IPython.display import Image, Markdown

from saffron.analysis.view import View
from saffron.config import Ablation, Config, as_dict
from saffron.figures.base import Exhibit
from saffron.table import Table


def exhibit(view: View, shown: Exhibit) -> list[Any]:
    """An exhibit whose files are written."""
    found: list[Any] = [Markdown(f"## {shown.title}\n\n{shown.about}")]
    if shown.draw is not None and shown.caption is not None:
        alt = shown.alt_text(view)
        found += [Image(view.layout.figures / f"{shown.name}.png", alt=alt), Markdown(shown.caption(view))]
    if shown.table is not None:
        table = shown.table(view)
        found.append(Markdown(table.markdown_rows() if shown.draw is not None else table.markdown()))
    return found


def runs(config: Config, ablation: Ablation) -> Markdown:
    """The settings in which the runs of an ablation differ."""
    by_key = {run.key: run for run in config.search.experiments[ablation.experiment].runs}
    resolved = {key: as_dict(config.search.settings_of(by_key[key])) for key in ablation.runs}
    names = [
        name
        for name in dict.fromkeys(name for values in resolved.values() for name in values)
        if len({str(values.get(name)) for values in resolved.values()}) > 1
    ]
    rows = tuple((key, *(str(values.get(name, "–")) for name in names)) for key, values in resolved.items())
    caption = f"Runs of the experiment {ablation.experiment}, and the settings in which they differ."
    return Markdown(Table(("run", *names), rows, caption).markdown())
