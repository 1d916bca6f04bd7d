"""Every experiment of a config, whatever its role: its cells and, where it has several budgets, its scaling curve."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from saffron.config import Config, Experiment, Group
from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, label, listed, prose, trained, unit, with_unit
from saffron.roles import Role

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from saffron.analysis.view import View
    from saffron.table import Table

#: Page by group of experiments.
PAGES: dict[Group, str] = {
    "replicate": "experiments",
    "ablations": "experiments_of_ablations",
    "development": "experiments_on_development",
}
#: The role whose curve is Figure 2.
DRAWN: Role = "scaling"


def cells(view: View, name: str) -> pd.DataFrame:
    """One row per cell of an experiment, with every judge's rate as ``<judge>``, ``<judge>_low`` and ``<judge>_high``.

    Raises:
        RecordError: if its results are missing or incomplete.
    """
    stored = view.cells
    found = stored[stored["experiment"] == name]
    if found.empty:  # not of the replication
        found = view.study.cells(name)
    ends = ("", "_low", "_high")
    columns = view.study.asr_columns.items()
    return found.rename(columns={f"{column}{end}": f"{judge}{end}" for judge, column in columns for end in ends})


def _lines(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Method, settings and points of every line, cheapest point first."""
    groups = frame.groupby(["method", "settings_id"], sort=False)
    return [(method, settings, rows.sort_values("flops")) for (method, settings), rows in groups]


def _called(method: str, settings: str) -> str:
    return label(method) if settings == "default" else f"{label(method)}, {settings.replace('_', ' ')}"


def draw(view: View, name: str) -> Figure:
    """Attack success by every judge against compute, a line per method and setting."""
    import numpy as np

    from saffron.figures import style
    from saffron.figures.style import COLOURS, MARKERS, VARIANTS

    frame, asked = cells(view, name), view.judges
    scale, unit_name = unit(frame["flops"].tolist())
    with style.styled():
        width = style.FULL if len(asked) > 1 else style.FULL * 0.6
        figure, axes = style.plt.subplots(1, len(asked), figsize=(width, 2.6), sharey=True, squeeze=False)
        for ax, judge in zip(axes[0], asked, strict=True):
            seen: list[str] = []
            for method, settings, rows in _lines(frame):
                i = seen.count(method)
                seen.append(method)
                values, low, high = (rows[f"{judge}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
                line, marker = VARIANTS[i % len(VARIANTS)]
                ax.errorbar(
                    rows["flops"].to_numpy(float) / scale,
                    values,
                    np.abs(np.stack([values - low, high - values])),
                    linestyle=line,
                    marker=MARKERS[method] if i == 0 else marker,
                    color=COLOURS[method],
                    mfc=COLOURS[method] if i == 0 else "white",
                    elinewidth=0.5,
                    lw=0.9,
                    label=_called(method, settings),
                )
            style.compute_axis(ax, (frame["flops"] / scale).tolist(), f"{unit_name} per prompt")
            style.asr_axis(ax, "attack success rate" if judge == asked[0] else "")
            ax.set_title(f"by {judge}", loc="left")
        columns = 3 if len(asked) > 1 else 2
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=columns, columnspacing=1.2, handletextpad=0.4)
        rows_of_legend = -(-len(labels) // columns)
        height = 2.35 + 0.16 * rows_of_legend  # the axes keep their height, whatever the legend needs
        figure.set_size_inches(width, height)
        bottom = (0.42 + 0.16 * rows_of_legend) / height
        left = 0.1 if len(asked) > 1 else 0.16
        figure.subplots_adjust(left=left, right=0.98, top=1 - 0.22 / height, bottom=bottom, wspace=0.08)
    return figure


def table(view: View, name: str) -> Table:
    """Every cell: attack success by every judge, compute under either way of counting, lengths."""
    from saffron.table import Table

    rows = []
    for row in cells(view, name).to_dict("records"):
        rows.append(
            (
                label(row["method"]),
                row["settings_id"],
                str(row["budget"]),
                with_unit(row["flops"]),
                with_unit(row["flops_per_model"]),
                *(_rate(row, judge) for judge in view.judges),
                f"{row['finished']:.1%}",
                f"{row['n_new_tokens']:.1f}",
            )
        )
    columns = ("method", "settings", "budget", "compute", "compute counted per model", *judge_columns(view))
    return Table((*columns, "finished", "new tokens"), tuple(rows), _caption(view, name, "every run"))


def _rate(row: Mapping[Any, Any], judge: str) -> str:
    return f"{row[judge]:.3f} [{row[f'{judge}_low']:.3f}, {row[f'{judge}_high']:.3f}]"


def _caption(view: View, name: str, what: str) -> str:
    first = cells(view, name).iloc[0]
    return prose(
        f"""Experiment {name}: {what}, mean compute per prompt (each FLOP counted once); n = {int(first["n_prompts"])} prompts of
        {first["dataset"]}, {trained(int(first["n_seeds"]))}; 95 % intervals."""
    )


def caption(view: View, name: str) -> str:
    """What stands below the figure."""
    return _caption(view, name, "attack success rate against compute")


def alt(view: View, name: str) -> str:
    """What the figure shows, for a reader who cannot see it."""
    judge = view.judge
    parts = []
    for method, settings, rows in _lines(cells(view, name)):
        last = rows.iloc[-1]
        parts.append(f"{_called(method, settings)} {last[judge]:.2f} at {with_unit(last['flops'])}")
    return (
        "Attack success rate, from 0 to 1, against compute per prompt on a logarithmic axis, a panel per judge and a line per "
        f"method. By {judge}, at the largest compute of each: {listed(parts)}."
    )


def _has_curve(item: Experiment) -> bool:
    """Whether some run is stored at several budgets: of a run matched by compute one is."""
    return item.role != DRAWN and any(len(run.budgets) > 1 and (item.match is None or run == item.reference) for run in item.runs)


def exhibits(config: Config) -> Mapping[str, Exhibit]:
    """One for each of the config's experiments."""
    found = {}
    for i, (name, item) in enumerate(config.search.experiments.items()):
        curve = _has_curve(item)
        found[f"experiment_{name}"] = Exhibit(
            title=f"Experiment {name}",
            about=f"Every run of the experiment {name}, on the prompts of {item.dataset}.",
            section="own" if item.role is None and item.group == "replicate" else "experiments",
            order=i,
            draw=partial(draw, name=name) if curve else None,
            caption=partial(caption, name=name) if curve else None,
            alt=partial(alt, name=name) if curve else None,
            table=partial(table, name=name),
            experiments=() if item.group == "replicate" else (name,),
            page=PAGES[item.group],
            group=item.group,
            published=False,
        )
    return found
