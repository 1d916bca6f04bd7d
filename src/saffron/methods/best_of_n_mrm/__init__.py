"""Best-of-N by MRMs: Best-of-N whose samples are rewarded by one multifurcation reward model or an ensemble of them."""

from __future__ import annotations

from saffron.methods.base import Method, Size
from saffron.methods.cost import grown
from saffron.methods.ensemble import Ensemble


class Settings(Ensemble):
    """The best of N samples, rewarded by one MRM or several (arXiv 2310.02743)."""


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Samples that share nothing but the prompt; policy and MRMs read all but the last token of each."""
    length, calls = size.new_tokens, float(size.budget) if size.calls is None else size.calls / settings.members
    return (
        grown(size.policy, size.policy_prompt, calls * (length - 1), length - 1),
        settings.members * grown(size.guard, size.mrm_prompt, calls * (length - 1), length - 1),
    )


METHOD = Method(
    settings=Settings,
    search="saffron.methods.best_of_n_mrm.search:search",
    label="Best-of-N by MRM",
    order=55,
    colour="#117733",
    marker=">",
    budget="samples",
    reads=lambda settings: frozenset({"policy", "mrm"}),
    cost=cost,
    draws=True,
    shared_budgets=True,
)
