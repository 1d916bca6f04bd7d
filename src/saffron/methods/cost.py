"""Nominal cost of searches by their size alone, for the descriptions' ``cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saffron.engine.compute import ModelShape
    from saffron.methods.base import Size


def grown(shape: ModelShape, prompt: float, nodes: float, depth: float) -> float:
    """FLOPs of a prompt and of ``nodes`` tokens after it, spread evenly over depths 1 to ``depth``."""
    context = prompt * (prompt + 1) / 2 + nodes * (prompt + (depth + 1) / 2)
    return float(shape.nominal(prompt + nodes, context))


def judged(shape: ModelShape, prompt: float, nodes: float, calls: float, depth: float, read_at: float, suffix: int) -> float:
    """FLOPs of what a guard reads: a prompt, ``nodes`` response tokens, ``calls`` suffixes at mean depth ``read_at``."""
    context = calls * suffix * (prompt + read_at + (suffix + 1) / 2)
    return grown(shape, prompt, nodes, depth) + float(shape.nominal(calls * suffix, context))


def full_beam(size: Size, children: int) -> int:
    """Reward calls of a beam that fills up step by step, each node of which has ``children`` calls."""
    nodes, front = 0, 1
    for _ in range(int(size.new_tokens)):
        nodes += front
        front = min(size.budget, front * children)
    return nodes * children


def beam(size: Size, children: int, lookahead: int = 0) -> tuple[float, float]:
    """FLOPs (policy, PRM) of a beam whose nodes have ``children``, each read by the PRM with its rollout.

    Of a node's children, one continues the rollout that stands already, the others begin their own.
    """
    length = size.new_tokens
    calls = float(full_beam(size, children)) if size.calls is None else size.calls
    nodes = calls / children
    fed, written = nodes - 1, calls
    if lookahead:
        fed, written = nodes * (1 + (children - 1) * lookahead), nodes * (1 + (children - 1) * (1 + lookahead))
    return (
        grown(size.policy, size.policy_prompt, fed, length - 1),
        judged(size.guard, size.guard_prompt, written, calls, length, length / 2, size.guard_suffix),
    )
