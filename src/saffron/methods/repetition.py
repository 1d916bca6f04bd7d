"""No n-gram twice: which next tokens would repeat one, as Transformers' ``no_repeat_ngram_size`` means it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Stands before the shorter prompts of a batch; equal to no token.
NOTHING = -1


class Repeats:
    """The n-grams that prompts and their growing answers hold.

    Args:
        prompts: B token-id lists as the policy reads them; their n-grams count too, as for Transformers' decoder-only models.
        size: n, at least 1.
        device: of the answers.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], size: int, device: torch.device) -> None:
        longest = max(map(len, prompts))
        padded = [[NOTHING] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        self._prompts = torch.tensor(padded, device=device)
        self._size = size

    def after(self, answers: Tensor, vocabulary: int) -> Tensor:
        """Tokens that would complete an n-gram for the second time.

        Args:
            answers: [B, R, L] tokens so far, all of one length.
            vocabulary: V.

        Returns:
            [B, R, V] bool.
        """
        prompts = self._prompts[:, None].expand(-1, answers.shape[1], -1)
        text = torch.cat([prompts, answers], -1)
        before, length = self._size - 1, text.shape[-1]
        counts = torch.zeros(*answers.shape[:2], vocabulary, dtype=torch.int32, device=answers.device)
        if length <= before:
            return counts > 0
        following = text[..., before:]
        same = following != NOTHING
        for back in range(1, before + 1):
            last = text[..., length - back, None]
            same &= (text[..., before - back : length - back] == last) & (last != NOTHING)
        return counts.scatter_add_(-1, following.clamp(min=0), same.int()) > 0

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts [B'] of the batch."""
        self._prompts = self._prompts[keep]


def without(logits: Tensor, repeating: Tensor) -> Tensor:
    """The logits [..., V] with -inf where a token would be ``repeating``; as they are where nothing else is left."""
    masked = logits.masked_fill(repeating, -torch.inf)
    return torch.where((masked > -torch.inf).any(-1, keepdim=True), masked, logits)
