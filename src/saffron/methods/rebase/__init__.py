"""Rebase: reward-balanced search (Wu et al. 2025, arXiv 2408.00724)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from saffron.methods.base import Method, Rewarded, Size
from saffron.methods.cost import grown, judged


class Settings(Rewarded):
    """Reward-balanced search (arXiv 2408.00724)."""

    step_tokens: int = Field(1, ge=1, description="tokens sampled between two reward calls")
    balance_temperature: float = Field(0.1, gt=0, description="softmax temperature of the widths (paper: 0.1)")
    widths: Literal["paper", "release"] = Field(
        "release", description="rounding of the widths: as in the paper's text or in its code"
    )
    weights: Literal["sigmoid", "logit"] = Field(
        "sigmoid", description="what enters the softmax: sigmoid(R) or the raw verdict logit"
    )


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """Each call reads a step's tokens; the last step's are not fed back."""
    length = size.new_tokens
    calls = float(size.budget * -(-int(length) // settings.step_tokens)) if size.calls is None else size.calls
    written = calls * settings.step_tokens
    fed = max(0.0, written - written / max(1.0, length))
    return (
        grown(size.policy, size.policy_prompt, fed, length - 1),
        judged(size.guard, size.guard_prompt, written, calls, length, length / 2, size.guard_suffix),
    )


METHOD = Method(
    settings=Settings,
    search="saffron.methods.rebase.search:search",
    label="Rebase",
    order=30,
    colour="#009E73",
    marker="^",
    budget="samples",
    reads=lambda settings: frozenset({"policy", "guard"}),
    cost=cost,
    draws=True,
)
