"""No defense: one sample, no reward call."""

from __future__ import annotations

from saffron.methods.base import Method, Size
from saffron.methods.cost import grown
from saffron.section import Section


class Settings(Section):
    """One sample, no reward call."""


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """One sample; its last token is not fed back."""
    return grown(size.policy, size.policy_prompt, size.new_tokens - 1, size.new_tokens - 1), 0.0


METHOD = Method(
    settings=Settings,
    search="saffron.methods.no_defense.search:search",
    label="No defense",
    order=10,
    colour="#555555",
    marker="x",
    budget=None,
    reads=lambda settings: frozenset({"policy"}),
    cost=cost,
    draws=True,
    may_lack_reward=lambda settings: True,
)
