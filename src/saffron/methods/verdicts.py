"""The process reward model (PRM): the guard's verdicts on growing responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saffron.engine.trie import TokenTrie
from saffron.methods.base import MethodError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from saffron.chat import ChatFormats


class Verdicts:
    """Reads R(s) = logit("safe") − logit("unsafe") of responses that grow as a trie, and counts the calls.

    The guard holds each prompt and each response token once; a verdict is a branch of its suffix, read and dropped.
    An EOS is read as the token it is, as in Safety4M's labels.

    Args:
        guard: the model; None, as a search has it whose method reads none, is refused.
        formats: its chat format, and the ids of its verdicts.
        prompts: B token-id lists, up to where the response begins.
        room: response tokens per prompt to reserve storage for.

    Attributes:
        trie: the guard's trie; its ledger holds the reward FLOPs.
        calls: int64 [B], verdicts on distinct responses so far, one entry per prompt given.

    Raises:
        MethodError: without a guard.
    """

    def __init__(
        self, guard: PreTrainedModel | None, formats: ChatFormats, prompts: Sequence[Sequence[int]], *, room: int = 0
    ) -> None:
        if guard is None:
            raise MethodError("a search asks for verdicts and its METHOD.reads names no guard; add it there")
        self.trie = TokenTrie(guard, prompts, room=room, logits=False)
        device = self.trie.device
        self._suffix = torch.tensor(formats.guard.suffix, dtype=torch.int64, device=device)
        self._verdict = torch.tensor([formats.safe_id, formats.unsafe_id], device=device)
        self._index = torch.arange(len(prompts), device=device)
        self.calls = torch.zeros(len(prompts), dtype=torch.int64, device=device)

    def read(
        self,
        parents: Tensor,
        tokens: Tensor,
        *,
        alive: Tensor,
        lengths: Tensor | None = None,
        commit: int = 0,
        room: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """One verdict per row, on the response that ends with the row's tokens.

        Args:
            parents: [B, R] guard nodes, or ROOT for the beginning of the response.
            tokens: [B, R, L] the response's next tokens.
            alive: [B, R]; verdicts of other rows are filler and not counted. Two living rows that spell the same count twice.
            lengths: [B, R] how many of the L tokens there are (default: all).
            commit: how many of the tokens stay as nodes; may exceed a row's length, whose nodes beyond it mean nothing.
            room: if storage has to grow, nodes per prompt to reserve beyond these.

        Returns:
            nodes [B, R, commit] and R as float64 [B, R].

        Raises:
            ValueError: if the suffix is too short to stand in for the tokens missing in a row that is committed.
        """
        batch, rows, longest = tokens.shape
        size = self._suffix.numel()
        if commit > size + 1:
            raise ValueError(f"{commit} tokens between two verdicts are more than the guard's suffix of {size} tokens allows")
        if lengths is None:
            chains = torch.cat([tokens, self._suffix.expand(batch, rows, size)], -1)
            total = None
        else:
            chains = torch.cat([tokens, tokens.new_zeros(batch, rows, size)], -1)
            total = lengths + size
            at = torch.arange(longest + size, device=tokens.device) - lengths[..., None]
            chains = torch.where(at >= 0, self._suffix[at.clamp(0, size - 1)], chains)
        read = self.trie.branch(parents, chains, commit=commit, alive=alive, lengths=total, select=self._verdict, room=room)
        self.calls.index_add_(0, self._index, alive.sum(1))
        return read.nodes, read.logits[..., 0].double() - read.logits[..., 1].double()

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts [B'] of the current batch."""
        self.trie.drop_prompts(keep)
        self._index = self._index[keep]
