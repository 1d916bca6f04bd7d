"""Attack success at matched budgets by training seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron import roles, workflow
from saffron.config import Config
from saffron.figures.base import Exhibit
from saffron.figures.words import label

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """One column per training seed.

    Raises:
        RecordError: if no method was matched on the first benchmark.
    """
    from saffron.records import RecordError
    from saffron.table import Table

    found = {name: record for name, record in view.analysis["quantities"].items() if name.startswith("matched_asr/scaling/once/")}
    if not found:
        raise RecordError(f"config {view.config.name}: nothing is matched by compute in the experiment of the role scaling")
    rows = []
    for name, record in found.items():
        values = [value for value in record["per_seed"] if value is not None]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5
        rows.append((label(name.rsplit("/", 1)[1]), *(f"{value:.3f}" for value in values), f"{deviation:.3f}"))
    seeds = view.analysis["train_seeds"]
    n = next(iter(found.values()))["n"]
    caption = f"Attack success at matched compute on the first benchmark by training seed, n = {n} prompts each."
    return Table(("method", *(f"seed {seed}" for seed in seeds), "standard deviation"), tuple(rows), caption)


def _wanted(config: Config) -> bool:
    rule, name = workflow.match_rule(config), roles.holder(config.search, "scaling")
    if len(config.train_seeds) == 1 or name is None:
        return False
    runs = config.search.experiments[name].runs
    return any((run.method, run.settings_id) == (rule.method, "default") and rule.budget in run.budgets for run in runs)


EXHIBIT = Exhibit(
    title="Variance over training seeds",
    about="How far attack success at matched compute moves from one trained policy, guard and MRM to the next.",
    section="ablations",
    order=140,
    table=table,
    wanted=_wanted,
    page="table2",
    published=False,
)
