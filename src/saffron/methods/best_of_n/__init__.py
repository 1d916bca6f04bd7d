"""Best-of-N: N independent samples, one PRM call each, the one with the highest reward."""

from __future__ import annotations

from saffron.methods.base import Method, Rewarded, Size
from saffron.methods.cost import grown, judged


class Settings(Rewarded):
    """N samples, one reward call each."""


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Samples that share nothing but the prompt; the last token of each is not fed back."""
    length, calls = size.new_tokens, float(size.budget) if size.calls is None else size.calls
    return (
        grown(size.policy, size.policy_prompt, calls * (length - 1), length - 1),
        judged(size.guard, size.guard_prompt, calls * length, calls, length, length, size.guard_suffix),
    )


METHOD = Method(
    settings=Settings,
    search="saffron.methods.best_of_n.search:search",
    label="Best-of-N",
    order=50,
    colour="#0072B2",
    marker="s",
    budget="samples",
    reads=lambda settings: frozenset({"policy", "guard"}),
    cost=cost,
    draws=True,
    shared_budgets=True,
)
