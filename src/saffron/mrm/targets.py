"""What the MRM learns from: rows of tokens, and the rewards of the tokens observed after their prefixes.

Eq. 5 of the paper asks of every prefix s[0:j] only for the reward of the one token that was observed next,
``M(s[0:j])[s_j] = R(s[0:j+1])``. All prefixes of a response are prefixes of one sequence, so a causal model reads them in
one pass: a *packed* row holds a whole response and as many targets as it has tokens. The paper's own order gives each
prefix a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saffron.chat import ChatFormats

Order = Literal["packed", "paper"]


@dataclass(frozen=True)
class Row:
    """Tokens to read; each of the last ``len(tokens)`` positions has the observed next token and its reward as target."""

    input_ids: np.ndarray
    tokens: np.ndarray
    rewards: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, which a causal model needs no mask for, and their targets one after another.

    Attributes:
        input_ids: int64 [rows, longest].
        row, position: int64 [targets], the prefix a target follows: row and position of its last token.
        tokens: int64 [targets], observed next tokens.
        rewards: float32 [targets], R of prefix and token.
    """

    input_ids: Tensor
    row: Tensor
    position: Tensor
    tokens: Tensor
    rewards: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class Targets:
    """All targets of a table of labels, cut into rows on demand.

    Args:
        labels: a records.SAFETY4M table (one split of it).
        formats: the MRM's chat format is put around prompts.
        order: ``packed`` makes one row per response, ``paper`` one per prefix.
    """

    def __init__(self, labels: pd.DataFrame, formats: ChatFormats, order: Order) -> None:
        self._ids = labels["input_ids"].tolist()
        self._starts = labels["response_start"].to_numpy()
        self._rewards = labels["rewards"].tolist()
        self._format = formats.mrm
        self.order = order
        sizes = np.array([len(rewards) for rewards in self._rewards], dtype=np.int64)
        self.ends = np.cumsum(sizes)
        self.total = int(self.ends[-1]) if len(sizes) else 0
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self._sizes) if self.order == "packed" else self.total

    def size(self, index: int) -> int:
        """Targets in a row."""
        return int(self._sizes[index]) if self.order == "packed" else 1

    def locate(self, prefix: int) -> tuple[int, int]:
        """Response and position of the response token that a prefix, counted over all responses, is followed by."""
        response = int(np.searchsorted(self.ends, prefix, side="right"))
        return response, prefix - int(self.ends[response] - self._sizes[response])

    def row(self, index: int) -> Row:
        """The row: tokens read (the last target itself is not), target tokens and rewards."""
        if self.order == "packed":
            return self._cut(index, 0, int(self._sizes[index]))
        response, position = self.locate(index)
        return self._cut(response, position, position + 1)

    def _cut(self, response: int, first: int, end: int) -> Row:
        start = int(self._starts[response])
        ids = self._ids[response]
        read = [*self._format.prompt(ids[:start]), *ids[start : start + end - 1]]
        return Row(np.asarray(read), np.asarray(ids[start + first : start + end]), np.asarray(self._rewards[response][first:end]))


def collate(rows: Sequence[Row]) -> Batch:
    """Put rows into one batch."""
    longest = max(len(row.input_ids) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.input_ids)] = row.input_ids
    counts = [len(row.tokens) for row in rows]
    position = np.concatenate([np.arange(len(row.input_ids) - len(row.tokens), len(row.input_ids)) for row in rows])
    return Batch(
        input_ids=torch.from_numpy(ids),
        row=torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
        position=torch.from_numpy(position),
        tokens=torch.from_numpy(np.concatenate([row.tokens for row in rows]).astype(np.int64)),
        rewards=torch.from_numpy(np.concatenate([row.rewards for row in rows]).astype(np.float32)),
    )


def schedule(rows: int, batch_size: int, epochs: float, seed: int) -> Iterator[np.ndarray]:
    """Row indices of every step: each epoch a seeded shuffle of all rows, the last one cut short if ``epochs`` is broken."""
    left = round(rows * epochs)
    epoch = 0
    while left > 0:
        order = np.random.default_rng([seed, epoch]).permutation(rows)[:left]
        yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        left -= rows
        epoch += 1


def steps(rows: int, batch_size: int, epochs: float) -> int:
    """Number of steps of :func:`schedule`."""
    whole, broken = divmod(round(rows * epochs), rows) if rows else (0, 0)
    return whole * -(-rows // batch_size) + -(-broken // batch_size)
