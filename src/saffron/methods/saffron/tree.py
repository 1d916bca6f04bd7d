"""A recorded search, for figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TreeCandidate:
    """A scored child of a beam node; ``node`` is its id if it entered the next beam."""

    parent: int
    token: int
    probability: float
    reward: float
    node: int | None


@dataclass(frozen=True)
class TreeStep:
    """One step of a recorded search: the beam's nodes (-1 is the prompt) and all candidates in generation order."""

    beam: list[int]
    candidates: list[TreeCandidate]


@dataclass(frozen=True)
class SearchTree:
    """A recorded search. Node ``i`` is ``nodes[i] = (parent, token)``, parents before children, -1 the prompt.

    ``tokens_read`` and ``context_read`` are the engine's own count of what the policy read, prompt included: unique tokens
    and the sum of their context lengths (:class:`saffron.engine.compute.Ledger`).
    """

    nodes: list[tuple[int, int]]
    steps: list[TreeStep]
    tokens_read: int
    context_read: int
