"""DeAL: beam search with lookahead (Huang et al. 2024, arXiv 2402.06147), Table 1's MCTS."""

from __future__ import annotations

from pydantic import Field

from saffron.methods.base import Exploration, Method, Rewarded, Size
from saffron.methods.cost import beam


class Settings(Rewarded):
    """Beam search with lookahead (arXiv 2402.06147), Table 1's MCTS."""

    children: int = Field(2, ge=1, description="most likely next tokens proposed by each beam node")
    lookahead: int = Field(2, ge=0, description="greedy rollout tokens before a candidate is scored")
    reward_weight: float = Field(1.0, ge=0, description="lambda, weight of the reward against the log probability")


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Every node's children are read by the PRM after their rollouts."""
    return beam(size, settings.children, settings.lookahead)


METHOD = Method(
    settings=Settings,
    search="saffron.methods.deal.search:search",
    label="DeAL",
    order=20,
    colour="#CC79A7",
    marker="D",
    budget="width",
    reads=lambda settings: frozenset({"policy", "guard"}),
    cost=cost,
    exploration=Exploration(knob="lookahead", limit_ratio=100 / 80.70, name_in_paper="mcts"),
)
