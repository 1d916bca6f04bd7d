"""Budgets matched by compute alone, under either convention of counting it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saffron.analysis.results import ExperimentResults, Key
from saffron.config import Convention, Match

#: Outcome that holds a convention's FLOPs.
FLOPS: dict[Convention, str] = {"once": "flops", "per_model": "flops_per_model"}


@dataclass(frozen=True)
class Matched:
    """A method's matched budget: by training seed, with the ratio of its mean compute to the reference's."""

    method: str
    settings_id: str
    budgets: dict[int, int]
    ratios: dict[int, float]
    within: bool  # whether every ratio is at most the tolerance (false: even the smallest budget costs more)

    @property
    def key(self) -> Key:
        """The cell: with a budget if all seeds have the same one."""
        values = set(self.budgets.values())
        return Key(self.method, self.settings_id, values.pop() if len(values) == 1 else None)

    @property
    def label(self) -> str:
        """The budget, or each seed's."""
        values = list(self.budgets.values())
        return str(values[0]) if len(set(values)) == 1 else "/".join(map(str, values))


def largest_within(compute: dict[int, float], limit: float) -> int:
    """The largest budget whose compute is at most the limit; the cheapest one if none is."""
    fitting = [budget for budget, cost in compute.items() if cost <= limit]
    return max(fitting) if fitting else min(compute, key=lambda budget: compute[budget])


def match(results: ExperimentResults, rule: Match, convention: Convention = "once") -> dict[str, Matched]:
    """Each method's largest budget with mean compute at most ``tolerance`` × the reference's, chosen on compute alone.

    Attack success is not read. Chosen per training seed, since compute depends on what the policies say.
    """
    settings = {key.method: key.settings_id for key in results.cell_keys() if key.settings_id == "default"}
    column = FLOPS[convention]
    mean = results.frame.groupby(["method", "settings_id", "train_seed", "budget"])[column].mean()
    chosen = {}
    for method, settings_id in settings.items():
        budgets, ratios = {}, {}
        for seed in results.seeds:
            reference = float(mean[rule.method, "default", seed, rule.budget])
            compute = {int(budget): float(cost) for budget, cost in mean[method, settings_id, seed].items()}
            budget = rule.budget if method == rule.method else largest_within(compute, rule.tolerance * reference)
            budgets[seed], ratios[seed] = budget, compute[budget] / reference
        within = bool(np.all(np.array(list(ratios.values())) <= rule.tolerance))
        chosen[method] = Matched(method, settings_id, budgets, ratios, within)
    return chosen
