"""The ablations of a config: runs that differ in one setting, a figure and a table for each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import judge_columns, label, listed, prose, rate, trained, unit, with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View
    from saffron.table import Table

#: What the ablations that ship change, and how to read them; any other is known by its name alone.
KNOWN = {
    "ablation_bias": (
        "Bias of the lm_head trained, frozen at a random value, or absent",
        """The MRM's lm_head bias is trained in the paper, and never used by the released code. Lines that coincide mean that the
        bias does not matter for attack success here.""",
    ),
    "ablation_unseen": (
        "Conservative constraint (Eq. 7) on or off; EOS counted as seen or unseen",
        """With the conservative constraint (Eq. 7) a token that the MRM never saw as a target is chosen last; the released mask
        counts EOS among them, so that a search practically never ends. Compare the share of finished outputs in the table.""",
    ),
    "ablation_prefill": (
        "The reward model (MRM or PRM) reading the prefilled tokens or not; the judges as ever",
        """The prefilled tokens are kept from the reward models, as from the guard as judge. Here Saffron-1's MRM and the PRM of
        Best-of-N and Rebase read them in search, the judge does as before; a dashed line below the solid one of its method means
        that they help to tell safe answers from unsafe ones.""",
    ),
    "ablation_start": (
        "What the MRM starts from",
        """A language model's logits lie far from rewards and spread several times as wide; the recipe of small models scales the
        lm_head at the start and takes from both verdict words what is common to them. The released recipe does neither.""",
    ),
    "ablation_adapter": (
        "What of the MRM is trained",
        "Rank of LoRA, and the linear layers that it is put on.",
    ),
    "ablation_rate": (
        "Learning rate and schedule of the MRM",
        "Too high a rate leaves a small MRM at the mean reward; too low a rate does not get far in the same steps.",
    ),
    "ablation_steps": (
        "Steps and passes of the MRM's training",
        "Conversations per step, and passes over them; the time is that of the passes.",
    ),
    "ablation_top_p": (
        "Nucleus of candidates",
        """Candidates are each sequence's top-p tokens; the paper uses 0.8. A larger nucleus gives the MRM more to choose from, at
        no further reward calls.""",
    ),
    "ablation_scorer": (
        "Candidates scored by the MRM or by PRM calls, in the same search",
        """The same tree search with every candidate scored by a PRM call of its own. The horizontal distance is what the MRM
        saves, the vertical one what its errors cost.""",
    ),
    "ablation_semantics": (
        "The paper's search or the released code's",
        """In the released code a child inherits its parent's reward, and only a finished sequence carries one of its own; the
        paper's Eq. 3 ranks children by M(s)[a].""",
    ),
}


def draw(view: View, name: str) -> Figure:
    """Attack success by every judge against compute, a line per setting."""
    import numpy as np

    from saffron.analysis import ablations
    from saffron.figures import style
    from saffron.figures.style import COLOURS, VARIANTS

    rows = ablations.rows(view.study, name)
    settings = _settings(rows)
    scale, unit_name = unit([row["flops"] for row in rows])
    columns = 4 if len({method for method, _ in settings}) == 1 else 3
    asked = view.judges
    with style.styled():
        figure, axes = style.plt.subplots(
            1, len(asked), figsize=(style.FULL if len(asked) > 1 else style.FULL * 0.6, 2.6), sharey=True, squeeze=False
        )
        for ax, judge in zip(axes[0], asked, strict=True):
            for setting in settings:
                i = [other for other in settings if other[0] == setting[0]].index(setting)
                own = _points(rows, setting)
                values, low, high = (np.array([row[judge][end] for row in own], dtype=float) for end in ("value", "low", "high"))
                line, marker = VARIANTS[i % len(VARIANTS)]
                ax.errorbar(
                    [row["flops"] / scale for row in own],
                    values,
                    np.abs(np.stack([values - low, high - values])),
                    linestyle=line,
                    marker=marker,
                    color=COLOURS[setting[0]],
                    alpha=1 if i == 0 else 0.65,
                    mfc=COLOURS[setting[0]] if i == 0 else "white",
                    elinewidth=0.5,
                    lw=0.9,
                    label=_setting(setting, several=_several(settings)),
                )
            style.compute_axis(ax, [row["flops"] / scale for row in rows], f"{unit_name} per prompt")
            style.asr_axis(ax, "attack success rate" if judge == asked[0] else "")
            ax.set_title(f"by {judge}", loc="left")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=min(len(settings), columns), columnspacing=1.2)
        lines = -(-len(settings) // columns)
        figure.subplots_adjust(left=0.1, right=0.98, top=0.91, bottom=0.2 + 0.075 * lines, wspace=0.08)
    return figure


def _settings(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["method"], row["settings_id"]) for row in rows))


def _several(settings: list[tuple[str, str]]) -> bool:
    return len({method for method, _ in settings}) > 1


def _points(rows: list[dict[str, Any]], setting: tuple[str, str]) -> list[dict[str, Any]]:
    return sorted((row for row in rows if (row["method"], row["settings_id"]) == setting), key=lambda row: row["flops"])


def _setting(setting: tuple[str, str], *, several: bool) -> str:
    """A setting in a legend, with its method where there are several."""
    method, name = setting[0], setting[1].replace("_", " ")
    return f"{label(method)}, {name}" if several else name


def table(view: View, name: str) -> Table:
    """Every run at every budget, with its paired difference to the first run of its method."""
    from saffron.analysis import ablations
    from saffron.table import Table

    found = ablations.rows(view.study, name)
    compared = {(row["method"], row["budget"]) for row in found if f"{view.judge}_difference" in row}
    rows = []
    for row in found:
        if (row["method"], row["budget"]) not in compared:
            continue  # a budget of the first run alone compares nothing
        run = f"{label(row['method'])}, {row['settings_id'].replace('_', ' ')}"
        finished, tokens = f"{row['finished']:.1%}", f"{row['n_new_tokens']:.1f}"
        judged = [rate(row[judge]) for judge in view.judges]
        differences = [rate(row.get(f"{judge}_difference")) for judge in view.judges]
        rows.append((run, str(row["budget"]), with_unit(row["flops"]), *judged, *differences, finished, tokens))
    differences_to = [f"difference ({judge})" for judge in view.judges]
    columns = ("run", "budget", "compute", *judge_columns(view), *differences_to, "finished", "new tokens")
    return Table(columns, tuple(rows), caption(view, name))


def caption(view: View, name: str) -> str:
    """What stands below the figure."""
    described = view.config.analysis.ablations[name]
    results = view.study.results(described.experiment)
    title, _ = KNOWN.get(name, (name, ""))
    return prose(
        f"""{title}. n = {len(results.prompt_ids)} prompts of {results.dataset}, {trained(len(results.seeds))}; 95 % intervals;
        differences are paired, to {described.runs[0].partition("-")[2]} of the same method."""
    )


def alt(view: View, name: str) -> str:
    """What the figure shows, for a reader who cannot see it."""
    from saffron.analysis import ablations

    rows, judge = ablations.rows(view.study, name), view.judge
    settings = _settings(rows)
    parts = []
    for setting in settings:
        last = _points(rows, setting)[-1]
        parts.append(f"{_setting(setting, several=_several(settings))} {last[judge]['value']:.2f} at {with_unit(last['flops'])}")
    return (
        "Attack success rate, from 0 to 1, against compute per prompt on a logarithmic axis, a panel per judge and a line per "
        f"setting. By {judge}, at each setting's largest compute: {listed(parts)}."
    )


def exhibits(config: Config) -> Mapping[str, Exhibit]:
    """One for each of the config's ablations."""
    return {
        name: Exhibit(
            title=f"Ablation: {KNOWN.get(name, (name, ''))[0]}",
            about=prose(KNOWN[name][1]) if name in KNOWN else f"Runs compared: {listed(ablation.runs)}.",
            section="ablations",
            order=i,
            draw=partial(draw, name=name),
            caption=partial(caption, name=name),
            alt=partial(alt, name=name),
            table=partial(table, name=name),
            experiments=(ablation.experiment,),
            notebook="ablation",
            group="ablations",
        )
        for i, (name, ablation) in enumerate(config.analysis.ablations.items())
    }
