"""A beam of unlike parents: an elliptical bonus from the policy's states (representation-based exploration, arXiv 2510.11686)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saffron.methods.frontier import best_first, true_first
from saffron.methods.saffron.selection import Best

#: So many times the beam's width of the best candidates are chosen among: what diversity may cost in reward has a bound.
POOL = 4


def similarity(logits: Tensor) -> Tensor:
    """float64 [B, R, R] cosines of the rows' centred next-token logits [B, R, V], a linear image of the policy's last states."""
    logits = logits.double()
    finite = logits.isfinite()
    kept = torch.where(finite, logits, 0.0)
    centred = torch.where(finite, kept - kept.sum(-1, keepdim=True) / finite.sum(-1, keepdim=True), 0.0)
    states = torch.nn.functional.normalize(centred, dim=-1)
    return states @ states.transpose(1, 2)


def diverse(found: Best, alike: Tensor, count: int, weight: float) -> Best:
    """``count`` candidates, chosen one after another by score + ``weight`` * bonus, in the order they were found.

    A candidate is not read before it is chosen, so its state is its parent's. The bonus is sqrt(h' A^-1 h), where h is the state
    and A is the identity and the sum of h h' over what has been chosen: 1 at first, 1 / sqrt(1 + m) of a parent with m chosen
    children that is like no other.

    Args:
        found: [B, C] candidates, best first, at least ``count``.
        alike: [B, R, R] what :func:`similarity` says of the rows.
        count: N.
        weight: of the bonus.
    """
    left = found.valid
    for _ in range(count):
        bonus = alike.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().gather(1, found.row)
        order = best_first(found.score.double() + weight * bonus)
        place = order.gather(1, true_first(left.gather(1, order), 1))
        column = alike.gather(2, found.row.gather(1, place)[..., None].expand(-1, alike.shape[1], 1))  # [B, R, 1]
        own = column.gather(1, found.row.gather(1, place)[..., None])
        alike = alike - left.gather(1, place)[..., None] * column @ column.transpose(1, 2) / (1 + own)
        left = left.scatter(1, place, False)
    kept = found.valid & ~left
    index = true_first(kept, count)
    chosen = found.map(lambda values: values.gather(1, index))
    valid = kept.gather(1, index)
    return replace(chosen, valid=valid)
