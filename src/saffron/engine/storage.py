"""Where a trie's keys and values lie: one class per layout, behind the same calls.

- :class:`Packed`: one sequence per prompt that holds all nodes. Best where branches share much (beams).
- :class:`Rows`: the shared prompt plus one private row per sample. Best where they share little (Best-of-N), as no sample then
  attends over the others' masked tokens.

Nodes have slots, the same for all prompts. Both layouts grow where nodes do not fit, and move what stays to the front when dead
nodes are dropped; one head of one layer's keys or values is moved at a time (on a GPU all heads), so that little is held twice.

Shapes: B prompts, H key heads, R rows, P longest prompt, D numbers of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.engine.forward import Decoder, KeysValues, Place, TrieError


class Storage:
    """What the layouts share.

    Attributes:
        keys, values: per layer, of the prompt; in the packed layout of all nodes behind it as well.
        capacity: nodes per prompt that fit.
        moves: how often tensors were replaced by others.
    """

    def __init__(self, decoder: Decoder, ledger: Ledger, batch: int, prompt_width: int, capacity: int) -> None:
        self._ledger, self._prompt_width = ledger, prompt_width
        self._heads, self._dim = decoder.shape.kv_heads, decoder.shape.head_dim
        self._dtype, self._device = decoder.dtype, decoder.device
        self._layers = decoder.shape.layers
        self.capacity = capacity
        self.moves = 0
        self.keys: list[Tensor]
        self.values: list[Tensor]

    @property
    def stores(self) -> tuple[list[Tensor], ...]:
        """All lists of tensors, one tensor per layer each."""
        return self.keys, self.values

    @property
    def kv_bytes(self) -> int:
        """Bytes of all tensors now allocated."""
        return sum(tensor.nbytes for store in self.stores for tensor in store)

    def prompt(self) -> Place:
        """Stores the prompts, whose tokens attend to each other."""
        width = self._prompt_width

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            self.keys[layer][:, :, :width] = k[:, 0].transpose(1, 2)
            self.values[layer][:, :, :width] = v[:, 0].transpose(1, 2)
            return None, (k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4))

        return place

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts [B'] of the batch."""
        for store in self.stores:
            for layer, old in enumerate(store):
                store[layer] = self._replaced(old, old.index_select(0, keep))

    def _replaced(self, old: Tensor, new: Tensor, aside: int = 0) -> Tensor:
        """``new``, which takes the place of ``old`` in a store: until then both are held, and so many bytes aside."""
        self._ledger.note_kv(self.kv_bytes + (new.nbytes if new is not old else 0) + aside)
        self.moves += new is not old
        return new


class Packed(Storage):
    """One sequence per prompt: its tokens, then all nodes; keys and values [B, H, P + capacity, D] per layer.

    Args:
        capacity: nodes per prompt to reserve.
        step: storage grows to multiples of so many nodes per prompt.
        fixed_shapes: attend over all of storage, taken or not, and write through device indices.
    """

    def __init__(
        self, decoder: Decoder, ledger: Ledger, batch: int, prompt_width: int, capacity: int, *, step: int, fixed_shapes: bool
    ) -> None:
        super().__init__(decoder, ledger, batch, prompt_width, capacity)
        self._step, self._fixed_shapes = step, fixed_shapes
        size = (batch, self._heads, prompt_width + capacity, self._dim)
        new = torch.zeros if fixed_shapes else torch.empty  # what is masked must still be a number
        self.keys = [new(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
        self.values = [new(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
        ledger.note_kv(self.kv_bytes)

    def holds(self, nodes: int) -> bool:
        """Whether so many nodes fit."""
        return nodes <= self.capacity

    def extent(self, slots: slice) -> int:
        """Slots that are attended over once nodes were stored in ``slots``, prompt included."""
        return self._prompt_width + (self.capacity if self._fixed_shapes else slots.stop)

    def nodes(self, written: slice | Tensor, extent: int) -> Place:
        """Stores one new node per row where :meth:`written` says; all attend to the first ``extent`` slots."""
        stored = slice(0, extent)

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self.keys[layer], self.values[layer]
            keys[:, :, written] = k.squeeze(2).transpose(1, 2)
            values[:, :, written] = v.squeeze(2).transpose(1, 2)
            return (keys[:, :, stored], values[:, :, stored]), None

        return place

    def chains(self, slots: slice, stored: slice, commit: int) -> Place:
        """Stores the first ``commit`` tokens of each row in ``slots``; a row attends to ``stored`` and to its own tokens."""
        written = self.written(slots)

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self.keys[layer], self.values[layer]
            if commit:
                keys[:, :, written] = k[:, :, :commit].flatten(1, 2).transpose(1, 2)
                values[:, :, written] = v[:, :, :commit].flatten(1, 2).transpose(1, 2)
            own = (k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4))
            return (keys[:, :, stored], values[:, :, stored]), own

        return place

    def grown(self, nodes: int) -> int:
        """Capacity that holds so many nodes; never less than now."""
        return max(self.capacity, -(-nodes // self._step) * self._step)

    def move(self, order: Tensor, capacity: int) -> None:
        """Gather the nodes ``order`` [B, width] to the front of storage of so many nodes; of the same size, in place."""
        width = order.shape[1]
        first, last = self._prompt_width, self._prompt_width + width
        batch, heads, held, dim = self.keys[0].shape
        starts = torch.arange(batch * heads, device=self._device).view(batch, heads, 1) * held
        slots = starts + first + order[:, None]  # [B, H, width], in rows of D numbers
        at_once = heads if self._device.type == "cuda" else 1  # there each copy is a launch, and a layer beside itself is little
        for store in self.stores:
            for layer, old in enumerate(store):
                new = old
                if capacity != self.capacity:
                    new = old.new_empty(batch, heads, self._prompt_width + capacity, dim)
                    new[:, :, :first] = old[:, :, :first]
                    if self._fixed_shapes:
                        new[:, :, last:] = 0
                for some in (slice(head, head + at_once) for head in range(0, heads, at_once)):
                    wanted = slots[:, some]
                    moved = old.view(-1, dim).index_select(0, wanted.reshape(-1)).view(*wanted.shape, dim)
                    new[:, some, first:last] = moved
                    aside = moved.nbytes
                    del moved  # else the next head's would be built beside it
                store[layer] = self._replaced(old, new, aside=aside)
        self.capacity = capacity

    def written(self, slots: slice) -> slice | Tensor:
        """Where nodes lie, after the prompt; with fixed shapes as data, not as numbers of the program."""
        start, stop = self._prompt_width + slots.start, self._prompt_width + slots.stop
        return torch.arange(start, stop, device=self._device) if self._fixed_shapes else slice(start, stop)


class Rows(Storage):
    """The prompt [B, H, P, D] and, once there are some, rows of their own [B, H, R, capacity / R, D] per layer.

    Attributes:
        rows: rows per prompt (None before the first extension).
    """

    def __init__(self, decoder: Decoder, ledger: Ledger, batch: int, prompt_width: int, capacity: int) -> None:
        super().__init__(decoder, ledger, batch, prompt_width, capacity)
        size = (batch, self._heads, prompt_width, self._dim)
        self.keys = [torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
        self.values = [torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
        self.rows: int | None = None
        self._row_keys: list[Tensor] = []
        self._row_values: list[Tensor] = []
        ledger.note_kv(self.kv_bytes)

    @property
    def stores(self) -> tuple[list[Tensor], ...]:
        """Prompts and rows."""
        return self.keys, self.values, self._row_keys, self._row_values

    def open(self, rows: int) -> None:
        """Begin with so many rows per prompt, or go on with them.

        Raises:
            TrieError: if there are others already.
        """
        if self.rows is None:
            self.rows = rows
            size = (self.keys[0].shape[0], self._heads, rows, 0, self._dim)
            self._row_keys = [torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
            self._row_values = [torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(self._layers)]
        if rows != self.rows:
            raise TrieError(f"the rows layout holds {self.rows} rows per prompt, {rows} tokens were given")

    def holds(self, nodes: int) -> bool:
        """Whether so many nodes fit."""
        return bool(self._row_keys) and nodes // (self.rows or 1) <= self._row_keys[0].shape[3]

    def nodes(self, slots: slice) -> tuple[Place, int]:
        """Stores one new token per row; each attends to the prompt and to its row, and so to so many slots."""
        step = slots.start // (self.rows or 1)

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self._row_keys[layer], self._row_values[layer]
            keys[:, :, :, step] = k[:, :, 0].transpose(1, 2)
            values[:, :, :, step] = v[:, :, 0].transpose(1, 2)
            own = (keys[:, :, :, : step + 1], values[:, :, :, : step + 1])
            return (self.keys[layer], self.values[layer]), own

        return place, self._prompt_width + step + 1

    def move(self, rows: Tensor, steps: int, capacity: int) -> None:
        """Gather the first ``steps`` tokens of ``rows`` [B, R'] into storage of so many nodes per prompt."""
        length = capacity // rows.shape[1]
        for store in (self._row_keys, self._row_values):
            for layer, old in enumerate(store):
                batch, heads, _, _, dim = old.shape
                index = rows[:, :, None, None].expand(-1, -1, steps, dim)
                new = old.new_empty(batch, heads, rows.shape[1], length, dim)
                aside = 0
                for head in range(heads):
                    moved = old[:, head, :, :steps].gather(1, index)
                    new[:, head, :, :steps] = moved
                    aside = moved.nbytes
                    del moved
                store[layer] = self._replaced(old, new, aside=aside)
        self.rows, self.capacity = rows.shape[1], length * rows.shape[1]
