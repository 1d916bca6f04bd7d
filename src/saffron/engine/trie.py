"""The engine: a token trie over a causal language model.

A :class:`TokenTrie` reads a batch of prompts once and then holds nodes, each a token with a parent. One call extends all
prompts of the batch by many nodes at once: **a token's position is its depth, and its attention mask is its ancestry**.
Everything in this project that reads a language model (sampling, beam search, lookahead, a guard's verdict on each
candidate, labelling every prefix of a conversation) is such an extension.

The decoder layers of the stock Hugging Face modules are driven directly, so any checkpoint of the Llama, Mistral, Qwen2
or Qwen3 class works as it is; what differs from ``model.forward`` is only where keys and values are stored and what
attends to what. Grouped-query attention multiplies all query heads of a group with the one stored key at once; repeated
keys are never materialised.

Two physical layouts stand behind the same calls:

- ``packed``: one sequence per prompt that holds all nodes, with a mask. Best where branches share much (beams).
- ``rows``: the shared prompt plus one private row per sample. Best where they share little (Best-of-N), as no sample
  then attends over the others' masked tokens.

Shapes: B prompts, R rows (new nodes or chains per prompt), L tokens per chain, V vocabulary, P longest prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from saffron.engine.compute import Ledger, ModelShape

#: Parent id of first-level nodes: the prompt's last token. ``ROOT - k`` is the token k before it.
ROOT = -1

#: Stored per node: position, prompt tokens it sees, token, hash of its path.
NODE_FIELDS = ("_depth", "_stem", "_token", "_hash")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
#: Attention scores of two-part attention held at once, on a GPU and on a CPU (there: what stays in a core's cache).
SCORES_AT_ONCE = (1 << 28, 1 << 18)
#: Tokens of chains that go through an MLP at once on a CPU. Larger intermediate tensors leave the caches, and the C library may
#: return their memory to the system after every layer, so that the next layer pays for page faults.
CHAIN_TOKENS_AT_ONCE = 512
KeysValues = tuple[Tensor, Tensor]
#: (layer, keys [B, R, L, H, D], values) -> (shared part [B, H, S, D], each row's own part [B, H, R, L', D])
Place = Callable[[int, Tensor, Tensor], tuple[KeysValues | None, KeysValues | None]]

ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # the others rescale with the length of the sequence
MERGE = "merge the adapter first (merge_and_unload())"


class TrieError(ValueError):
    """A model, a prompt or a call the engine cannot serve; the message says why."""


@dataclass(frozen=True)
class Extension:
    """New nodes.

    Attributes:
        nodes: [B, R] ids of the new nodes.
        logits: [B, R, V] next-token logits after each (V or the K selected vocabulary ids).
    """

    nodes: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Branch:
    """Chains read under their parents.

    Attributes:
        nodes: [B, R, commit] ids of the tokens that stay.
        logits: [B, R, V] next-token logits at each chain's last token (V or the K selected vocabulary ids).
    """

    nodes: Tensor
    logits: Tensor


class TokenTrie:
    """A growing trie of tokens over one causal language model, for a batch of prompts.

    Args:
        model: a loaded causal LM of the Llama, Mistral, Qwen2 or Qwen3 class, in eval mode.
        prompts: B token-id lists, each of at least one token; lengths may differ.
        room: nodes per prompt to reserve after the prompt. Storage grows where nodes do not fit, which copies it; a caller that
            knows what comes reserves it here, in :meth:`extend` or in :meth:`compact`.
        layout: see the module's docstring.
        fixed_shapes: attend over all of storage, taken or not, and write through device indices, so that extensions by equally
            many rows do the same operations on the same shapes and the same storage from one compaction to the next, as
            CUDA graphs and ``torch.compile`` want (``packed`` only). Costs the masked entries.
        step: storage grows to multiples of so many nodes per prompt (``packed`` only). Large ones give it few sizes: a step of
            fixed shapes is compiled anew for each.
        logits: whether to compute ``root_logits``.

    Attributes:
        root_logits: [B, V] logits at each prompt's last token (None if ``logits`` is false).
        ledger: compute so far, one entry per prompt given to the constructor.

    Raises:
        TrieError: if the model cannot be driven, or an argument is out of range, before anything is computed.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        room: int = 0,
        layout: Literal["packed", "rows"] = "packed",
        logits: bool = True,
        fixed_shapes: bool = False,
        step: int = 1,
    ) -> None:
        self._keys: list[Tensor]  # per layer [B, H, P + capacity, D] (rows layout: the prompt only)
        self._values: list[Tensor]
        self._row_keys: list[Tensor]  # per layer [B, H, R, capacity / R, D] in the rows layout
        self._row_values: list[Tensor]
        check_model(model)
        if layout not in ("packed", "rows") or (fixed_shapes and layout == "rows"):
            raise TrieError(f"layout must be packed or rows, and packed for fixed shapes, not {layout!r}")
        if room < 0 or step < 1:
            raise TrieError(f"room must be at least 0 and step at least 1, not {room} and {step}")
        if not prompts or any(len(prompt) == 0 for prompt in prompts):
            raise TrieError("every prompt needs at least one token")
        self._decoder: Any = model.model
        self._lm_head: Any = model.get_output_embeddings()
        self._layers = list(self._decoder.layers)
        self._window = sliding_window(model.config)
        self.shape = ModelShape.from_config(model.config)
        weight = self._decoder.embed_tokens.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.layout = layout
        self.fixed_shapes = fixed_shapes
        self.batch = len(prompts)
        self.capacity = room  # nodes per prompt that storage holds
        self.used = 0  # node slots taken; the same for all prompts
        lengths = [len(prompt) for prompt in prompts]
        self._prompt_width = max(lengths)
        self._deepest = self._prompt_width  # upper bound of any node's depth + 1, kept on the host: as if each call went deeper
        self._rows: int | None = None  # rows layout: rows per prompt, set by the first extension
        self._cos = self._sin = torch.empty(0, device=self.device)
        self._prompt_length = torch.tensor(lengths, device=self.device)
        self._prompt_index = torch.arange(self.batch, device=self.device)
        counts = torch.zeros(3, self.batch, dtype=torch.float64, device=self.device)
        self.ledger = Ledger(self.shape, tokens=counts[0], context=counts[1], executed=counts[2])
        self._step = step
        self._allocate()
        self.root_logits: Tensor | None = self._prefill(prompts, lengths, logits)

    # ------------------------------------------------------------------------------------------------------- public
    def extend(
        self,
        parents: Tensor,
        tokens: Tensor,
        *,
        alive: Tensor | None = None,
        select: Tensor | None = None,
        room: int = 0,
    ) -> Extension:
        """Add one node per row under ``parents``, in one forward pass for the whole batch.

        Args:
            parents: [B, R] node ids, :data:`ROOT`, or ``ROOT - k`` for the prompt token k before its last. In the rows
                layout row i's parent is row i's last node.
            tokens: [B, R] token ids.
            alive: [B, R] bool; entries that are false are computed as filler, never counted and never to be used as parents.
            select: [K] vocabulary ids to restrict the logits to.
            room: if storage has to grow, nodes per prompt to reserve beyond these.

        Raises:
            TrieError: if a sliding window would bite, or the rows layout is given another number of rows.
        """
        if self.layout == "rows":
            return self._extend_rows(parents, tokens, alive, select, room)
        rows = tokens.shape[1]
        self._reserve(rows, 1, parents, alive, room=room)
        start = self.used
        depth, stem = self._depth_after(parents), self._stem_of(parents)
        slots = slice(start, start + rows)
        ancestry = self._ancestry_of(parents)
        self._ancestry[:, slots, : ancestry.shape[2]] = ancestry
        self._ancestry[:, slots, slots] = torch.eye(rows, dtype=torch.bool, device=self.device)
        self._record(parents, stem, tokens[..., None], depth[..., None], alive, None, commit=1)
        self.used = start + rows
        mask = self._mask(stem, self._ancestry[:, slots, : self._extent])
        stored = slice(0, self._prompt_width + self._extent)
        written = self._written(slots)

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self._keys[layer], self._values[layer]
            keys[:, :, written] = k.squeeze(2).transpose(1, 2)
            values[:, :, written] = v.squeeze(2).transpose(1, 2)
            return (keys[:, :, stored], values[:, :, stored]), None

        hidden = self._forward(tokens[..., None], depth[..., None], place, mask=mask)
        self._executed(self._layer_flops(rows, 1, 1, stored.stop))
        return Extension(self._ids(slots), self._unembed(hidden[:, :, 0], select))

    def branch(
        self,
        parents: Tensor,
        tokens: Tensor,
        *,
        commit: int = 0,
        alive: Tensor | None = None,
        lengths: Tensor | None = None,
        select: Tensor | None = None,
        room: int = 0,
        within: int | None = None,
    ) -> Branch:
        """Read R chains of L tokens, each hung under its parent; chains do not see each other.

        A verdict is read this way: the chain is ``[candidate, *suffix]``, ``commit`` is 1 and ``select`` holds the verdict ids.

        Args:
            parents: [B, R] as in :meth:`extend`.
            tokens: [B, R, L] token ids.
            commit: the first ``commit`` tokens of each chain stay as nodes, the rest is read and dropped.
            alive: [B, R] bool; rows that are false are filler.
            lengths: [B, R] tokens of each chain that count (default: all L, at least ``commit``); the rest is padding.
            select: [K] vocabulary ids to restrict the logits to.
            room: as in :meth:`extend`.
            within: the parents of all living rows lie within the first so many tokens of their prompts, and only those are
                attended over (default: all). Only while the trie has no nodes, and not with fixed shapes.

        Raises:
            TrieError: if a sliding window would bite, in the rows layout, if ``commit`` is more than a chain has, or if
                ``within`` is given beside nodes.
        """
        if self.layout == "rows":
            raise TrieError("branch needs the packed layout")
        if within is not None and (self.used or self.fixed_shapes):
            raise TrieError("branch takes within only while the trie has no nodes, and not with fixed shapes")
        rows, length = tokens.shape[1:]
        if not 0 <= commit <= length:
            raise TrieError(f"commit must lie in 0 to {length}, the length of the chains, not {commit}")
        if length == 1 and commit == 1 and lengths is None:
            extension = self.extend(parents, tokens[..., 0], alive=alive, select=select, room=room)
            return Branch(extension.nodes[..., None], extension.logits)
        self._reserve(rows * commit, length, parents, alive, lengths, commit=commit, room=room)
        start = self.used
        positions = self._depth_after(parents)[..., None] + torch.arange(length, device=self.device)
        stem, ancestry = self._stem_of(parents), self._ancestry_of(parents)
        stored = slice(0, self._prompt_width + self._extent if within is None else min(within, self._prompt_width))
        mask = self._mask(stem, ancestry)[..., stored]
        slots = slice(start, start + rows * commit)
        if commit:
            own = torch.tril(torch.ones(commit, commit, dtype=torch.bool, device=self.device))
            chains = torch.einsum("rs,ij->risj", torch.eye(rows, dtype=torch.bool, device=self.device), own)
            self._ancestry[:, slots, : ancestry.shape[2]] = ancestry.repeat_interleave(commit, dim=1)
            self._ancestry[:, slots, slots] = chains.reshape(rows * commit, rows * commit)
        self._record(parents, stem, tokens, positions, alive, lengths, commit=commit)
        self.used = slots.stop
        last = (lengths if lengths is not None else torch.full_like(parents, length)) - 1
        written = self._written(slots)

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self._keys[layer], self._values[layer]
            if commit:
                keys[:, :, written] = k[:, :, :commit].flatten(1, 2).transpose(1, 2)
                values[:, :, written] = v[:, :, :commit].flatten(1, 2).transpose(1, 2)
            own = (k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4))
            return (keys[:, :, stored], values[:, :, stored]), own

        hidden = self._forward(tokens, positions, place, mask=mask, last=last)
        self._executed(self._layer_flops(rows, length, 1, stored.stop + length))
        return Branch(self._ids(slots).view(self.batch, rows, commit), self._unembed(hidden[:, :, 0], select))

    def live_nodes(self, keep: Tensor, alive: Tensor | None = None) -> Tensor:
        """[] int64, on the device: most nodes of any prompt that :meth:`compact` of the same arguments keeps."""
        if self.layout == "rows" or not self.used:
            return torch.zeros((), dtype=torch.int64, device=self.device)
        return self._live(keep, alive).sum(1).amax()

    def compact(self, keep: Tensor, alive: Tensor | None = None, *, room: int = 0, live_nodes: int | None = None) -> Tensor:
        """Keep only these nodes and their ancestors.

        Args:
            keep: [B, R] node ids (or, in packed storage, ROOT).
            alive: [B, R] bool; entries that are false keep nothing.
            room: nodes per prompt to reserve beyond what is kept.
            live_nodes: the number :meth:`live_nodes` gives, for a caller that has read it together with others. Without it
                one device-to-host copy is made here, the engine's only one.

        Returns:
            [B, R] their new ids. In the rows layout these are the rows, in the order given.
        """
        if self.layout == "rows":
            return self._compact_rows(keep, room)
        width = int(self.live_nodes(keep, alive)) if live_nodes is None else live_nodes
        live = self._live(keep, alive)
        order = torch.argsort(~live, dim=1, stable=True)[:, :width]
        new_ids = live.cumsum(1) - 1
        self._move_nodes(order, width, self._grown(width + room))
        moved = new_ids.gather(1, keep.clamp(min=0)) if width else torch.full_like(keep, ROOT)
        return torch.where(keep >= 0, moved, keep)

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts in the batch.

        Args:
            keep: [B'] indices into the current batch, increasing.
        """
        for store in self._stores:
            for layer, old in enumerate(store):
                store[layer] = self._replaced(old, old.index_select(0, keep))
        for name in ("_ancestry", *NODE_FIELDS, "_prompt_length", "_prompt_index", "_root_hash"):
            setattr(self, name, getattr(self, name).index_select(0, keep))
        self.batch = int(keep.shape[0])

    def path(self, nodes: Tensor) -> list[list[list[int]]]:
        """Tokens from below the prompt to each node, for reading sequences back at the end (host side).

        Args:
            nodes: [B, R] node ids (or ROOT: an empty path).
        """
        ids, tokens = nodes.tolist(), self._token[:, : self.used].tolist()
        if self.layout == "rows":
            rows = self._rows or 1
            return [[[tokens[b][n] for n in range(node % rows, node + 1, rows)] for node in row] for b, row in enumerate(ids)]
        ancestry = self._ancestry[:, : self.used, : self.used].tolist()
        return [
            [[tokens[b][n] for n, above in enumerate(ancestry[b][node]) if above] if node >= 0 else [] for node in row]
            for b, row in enumerate(ids)
        ]

    @property
    def kv_bytes(self) -> int:
        """Bytes of all key and value storage now allocated."""
        return sum(tensor.nbytes for store in self._stores for tensor in store)

    # ------------------------------------------------------------------------------------------------------ storage
    @property
    def _stores(self) -> tuple[list[Tensor], ...]:
        return self._keys, self._values, self._row_keys, self._row_values

    def _replaced(self, old: Tensor, new: Tensor, aside: int = 0) -> Tensor:
        """``new``, which takes the place of ``old`` in a store: until then both are held, and so many bytes aside."""
        self.ledger.note_kv(self.kv_bytes + (new.nbytes if new is not old else 0) + aside)
        return new

    def _allocate(self) -> None:
        shape, packed, nodes = self.shape, self.layout == "packed", self.capacity
        slots = self._prompt_width + (nodes if packed else 0)
        size = (self.batch, shape.kv_heads, slots, shape.head_dim)
        new = torch.zeros if self.fixed_shapes else torch.empty  # what is masked must still be a number
        self._keys = [new(size, dtype=self.dtype, device=self.device) for _ in self._layers]
        self._values = [new(size, dtype=self.dtype, device=self.device) for _ in self._layers]
        self._row_keys = []
        self._row_values = []
        self.ledger.note_kv(self.kv_bytes)
        square = nodes if packed else 0
        self._ancestry = torch.zeros(self.batch, square, square, dtype=torch.bool, device=self.device)
        self._depth = torch.zeros(self.batch, nodes, dtype=torch.int64, device=self.device)
        self._stem = torch.zeros(self.batch, nodes, dtype=torch.int64, device=self.device)
        self._token = torch.zeros(self.batch, nodes, dtype=torch.int64, device=self.device)
        self._hash = torch.zeros(self.batch, nodes, dtype=torch.int64, device=self.device)
        self._root_hash = torch.zeros(self.batch, self._prompt_width, dtype=torch.int64, device=self.device)

    def _reserve(
        self,
        nodes: int,
        length: int,
        parents: Tensor,
        alive: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        commit: int = 1,
        room: int = 0,
    ) -> None:
        """Make sure that so many nodes fit, of chains under ``parents``, and that the model reads as deep."""
        if room < 0:
            raise TrieError(f"room must be at least 0, not {room}")
        reached = self._deepest + length
        if self._window is not None and reached > self._window:  # only then is it worth a copy to the host to know better
            depths = self._depth_after(parents) + (length if lengths is None else lengths)
            self._refuse_beyond(int((depths if alive is None else depths * alive).amax()))
        self._lengthen(reached)
        self._deepest += commit
        if self.layout == "packed" and self.used + nodes > self.capacity:
            every = torch.arange(self.used, device=self.device).expand(self.batch, -1)
            self._move_nodes(every, self.used, self._grown(self.used + nodes + room))

    def _refuse_beyond(self, depth: int) -> None:
        if self._window is not None and depth > self._window:
            raise TrieError(f"sequences of up to {depth} tokens exceed the model's sliding window of {self._window}")

    def _lengthen(self, depth: int) -> None:
        """Make the rotary table long enough."""
        if self._cos.shape[0] < depth:
            table = torch.arange(2 * depth, device=self.device)[None]
            cos, sin = self._decoder.rotary_emb(self._keys[0], table)
            half = sin.shape[-1] // 2
            self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    @property
    def _extent(self) -> int:
        """Node slots that are attended over."""
        return self.capacity if self.fixed_shapes else self.used

    def _written(self, nodes: slice) -> slice | Tensor:
        """Where nodes lie in packed storage, after the prompt; with fixed shapes as data, not as numbers of the program."""
        start, stop = self._prompt_width + nodes.start, self._prompt_width + nodes.stop
        return torch.arange(start, stop, device=self.device) if self.fixed_shapes else slice(start, stop)

    def _ids(self, slots: slice) -> Tensor:
        return torch.arange(slots.start, slots.stop, device=self.device).expand(self.batch, -1)

    def _live(self, keep: Tensor, alive: Tensor | None) -> Tensor:
        """[B, used] bool (with fixed shapes all of storage): the nodes ``keep`` [B, R] and their ancestors, of living entries."""
        ancestry = self._ancestry_of(keep)
        return (ancestry if alive is None else ancestry & alive[..., None]).any(1)

    def _grown(self, nodes: int) -> int:
        """Capacity that holds so many nodes; never less than now."""
        return max(self.capacity, -(-nodes // self._step) * self._step)

    def _move_nodes(self, order: Tensor, width: int, capacity: int) -> None:
        """Gather the nodes ``order`` [B, width] to the front of storage of so many nodes.

        Storage whose size stays is written in place. One head of one layer's keys or values is moved at a time, so that
        little is held twice.
        """
        first, last = self._prompt_width, self._prompt_width + width
        batch, heads, held, dim = self._keys[0].shape
        starts = torch.arange(batch, device=self.device)[:, None] * heads * held
        slots = (starts + first + order).view(-1)  # of the first head, in rows of D numbers
        for store in (self._keys, self._values):
            for layer, old in enumerate(store):
                new = old
                if capacity != self.capacity:
                    new = old.new_empty(batch, heads, self._prompt_width + capacity, dim)
                    new[:, :, :first] = old[:, :, :first]
                    if self.fixed_shapes:
                        new[:, :, last:] = 0
                for head in range(heads):
                    moved = old.view(-1, dim).index_select(0, slots + head * held).view(batch, width, dim)
                    new[:, head, first:last] = moved
                    aside = moved.nbytes
                    del moved  # else the next head's would be built beside it
                store[layer] = self._replaced(old, new, aside=aside)
        index = order[..., None].expand(-1, -1, self.used)
        ancestry = self._ancestry[:, : self.used, : self.used].gather(1, index).gather(2, order[:, None].expand(-1, width, -1))
        self._ancestry = torch.zeros(self.batch, capacity, capacity, dtype=torch.bool, device=self.device)
        self._ancestry[:, :width, :width] = ancestry
        for name in NODE_FIELDS:
            old = getattr(self, name)
            new = old.new_zeros(self.batch, capacity)
            new[:, :width] = old.gather(1, order)
            setattr(self, name, new)
        self.used, self.capacity = width, capacity
        if self.fixed_shapes:
            self._lengthen(self._deepest + capacity)  # for every depth before the next compaction

    # ----------------------------------------------------------------------------------------------------- geometry
    def _depth_after(self, parents: Tensor) -> Tensor:
        """[B, R] position of a token hung under ``parents``."""
        below_prompt = self._prompt_length[:, None] + parents - ROOT
        if self.used == 0:
            return below_prompt
        return torch.where(parents >= 0, self._depth.gather(1, parents.clamp(min=0)) + 1, below_prompt)

    def _ancestry_of(self, parents: Tensor) -> Tensor:
        """[B, R, used] the parents' own rows of the ancestry matrix (nothing for a parent in the prompt).

        With fixed shapes all of storage instead of what is used.
        """
        extent = self._extent
        if self.used == 0:
            return torch.zeros(*parents.shape, extent, dtype=torch.bool, device=self.device)
        rows = self._ancestry[:, :, :extent].gather(1, parents.clamp(min=0)[..., None].expand(-1, -1, extent))
        return rows & (parents >= 0)[..., None]

    def _stem_of(self, parents: Tensor) -> Tensor:
        """[B, R] how many of the prompt's tokens stand above a token hung under ``parents``."""
        below_prompt = self._prompt_length[:, None] + parents - ROOT
        if self.used == 0:
            return below_prompt
        return torch.where(parents >= 0, self._stem.gather(1, parents.clamp(min=0)), below_prompt)

    def _mask(self, stem: Tensor, nodes: Tensor) -> Tensor:
        """[B, R, P + S] additive mask over the prompt's first ``stem`` tokens and S node slots."""
        prompt = torch.arange(self._prompt_width, device=self.device) < stem[..., None]
        allowed = torch.cat([prompt, nodes], -1)
        return torch.zeros(allowed.shape, dtype=self.dtype, device=self.device).masked_fill_(~allowed, -torch.inf)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, R, L, 1, D] cosines, and sines of :func:`rotate`'s sign."""
        return self._cos[positions][..., None, :], self._sin[positions][..., None, :]

    # ------------------------------------------------------------------------------------------------------- counts
    def _record(
        self,
        parents: Tensor,
        stem: Tensor,
        tokens: Tensor,
        positions: Tensor,
        alive: Tensor | None,
        lengths: Tensor | None,
        commit: int,
    ) -> None:
        """Count the new tokens [B, R, L] that are unique, and store what nodes of the first ``commit`` need.

        Identity is a 64-bit hash of the path: two rows that spell the same path count once.
        """
        batch, rows, length = tokens.shape
        prompt_slot = (self._prompt_length[:, None] + parents).clamp(min=0, max=self._prompt_width - 1)
        state = self._root_hash.gather(1, prompt_slot)
        if self.used:
            state = torch.where(parents >= 0, self._hash.gather(1, parents.clamp(min=0)), state)
        hashes = path_hashes(state, tokens, positions)
        counted = torch.ones_like(tokens, dtype=torch.bool)
        if alive is not None:
            counted &= alive[..., None]
        if lengths is not None:
            counted &= torch.arange(length, device=self.device) < lengths[..., None]
        self._count(hashes.view(batch, -1), positions.reshape(batch, -1), counted.view(batch, -1))
        if commit:
            slots = slice(self.used, self.used + rows * commit)
            self._hash[:, slots] = hashes[..., :commit].reshape(batch, -1)
            self._token[:, slots] = tokens[..., :commit].reshape(batch, -1)
            self._depth[:, slots] = positions[..., :commit].reshape(batch, -1)
            self._stem[:, slots] = stem.repeat_interleave(commit, dim=1)

    def _count(self, hashes: Tensor, positions: Tensor, counted: Tensor) -> None:
        """Add unique tokens to the ledger; all arguments [B, n]."""
        first = counted
        if hashes.shape[1] > 1:
            hashes, order = hashes.masked_fill(~counted, 0).sort(dim=1)
            first, positions = counted.gather(1, order), positions.gather(1, order)
            first[:, 1:] &= hashes[:, 1:] != hashes[:, :-1]
        self.ledger.tokens.index_add_(0, self._prompt_index, first.sum(1).double())
        self.ledger.context.index_add_(0, self._prompt_index, ((positions + 1) * first).sum(1).double())

    def _executed(self, flops: int) -> None:
        """Add executed FLOPs, the same for each prompt of the batch."""
        share = torch.full((self.batch,), float(flops), dtype=torch.float64, device=self.device)
        self.ledger.executed.index_add_(0, self._prompt_index, share)

    # ------------------------------------------------------------------------------------------------------ forward
    def _prefill(self, prompts: Sequence[Sequence[int]], lengths: list[int], logits: bool) -> Tensor | None:
        width = self._prompt_width
        self._refuse_beyond(width)
        self._lengthen(width + (self.capacity if self.fixed_shapes else 0))
        padded = [[*prompt, *([0] * (width - len(prompt)))] for prompt in prompts]
        tokens = torch.tensor(padded, device=self.device)
        positions = torch.arange(width, device=self.device).expand(self.batch, -1)
        self._root_hash = path_hashes(torch.zeros_like(tokens[:, :1]), tokens[:, None], positions[:, None])[:, 0]
        self._count(self._root_hash, positions, positions < self._prompt_length[:, None])
        last = self._prompt_length[:, None] - 1

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            self._keys[layer][:, :, :width] = k[:, 0].transpose(1, 2)
            self._values[layer][:, :, :width] = v[:, 0].transpose(1, 2)
            return None, (k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4))

        hidden = self._forward(tokens[:, None], positions[:, None], place, last=last)
        self._executed(self._layer_flops(1, width, 1, width))
        return self._unembed(hidden[:, 0, 0], None) if logits else None

    @torch.no_grad()
    def _forward(
        self, tokens: Tensor, positions: Tensor, place: Place, *, mask: Tensor | None = None, last: Tensor | None = None
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            tokens: [B, R, L].
            positions: [B, R, L].
            place: stores a layer's new keys and values and returns what its queries attend to.
            mask: [B, R, S] additive, over the part that all rows share.
            last: [B, R] position within the row whose hidden state is wanted; rows then attend causally to their own
                tokens. In the last layer only that token is carried beyond its keys and values. None if L is 1.

        Returns:
            [B, R, 1, hidden].
        """
        batch, rows, length = tokens.shape
        heads, groups, dim = self.shape.kv_heads, self.shape.heads // self.shape.kv_heads, self.shape.head_dim
        cos, sin = self._rotary(positions)
        scaling = self._layers[0].self_attn.scaling
        cos_q, sin_q = cos * scaling, sin * scaling  # scores are scaled through the queries' rotation
        normed = hasattr(self._layers[0].self_attn, "q_norm")
        mask = None if mask is None else mask[:, None, :, None]  # [B, 1, R, 1, S]
        causal = own_mask = None
        if last is not None:
            future = torch.ones(length, length, dtype=torch.bool, device=self.device).triu_(1)
            causal = torch.zeros(length, length, dtype=self.dtype, device=self.device).masked_fill_(future, -torch.inf)
            own_mask = causal.repeat(groups, 1)
        hidden = self._decoder.embed_tokens(tokens)
        queries = length
        for number, layer in enumerate(self._layers):
            attention = layer.self_attn
            residual, hidden = hidden, normalise(layer.input_layernorm, hidden)
            k = attention.k_proj(hidden).view(batch, rows, length, heads, dim)
            v = attention.v_proj(hidden).view(batch, rows, length, heads, dim)
            if normed:
                k = attention.k_norm(k)
            stored, own = place(number, rotate(k, cos, sin), v)
            if causal is not None and last is not None and number == len(self._layers) - 1:
                hidden, residual, cos_q, sin_q = (pick(x, last) for x in (hidden, residual, cos_q, sin_q))
                own_mask = causal[last][:, None, :, None]  # [B, 1, R, 1, L]
                queries = 1
            q = attention.q_proj(hidden).view(batch, rows, queries, heads * groups, dim)
            if normed:
                q = attention.q_norm(q)
            q = rotate(q, cos_q, sin_q).view(batch, rows, queries, heads, groups, dim)
            q = q.permute(0, 3, 1, 4, 2, 5).reshape(batch, heads, rows, groups * queries, dim)
            mixed = attend(q, stored, mask, own, own_mask)
            mixed = mixed.view(batch, heads, rows, groups, queries, dim).permute(0, 2, 4, 1, 3, 5)
            hidden = residual + attention.o_proj(mixed.reshape(batch, rows, queries, -1))
            hidden = hidden + apply_mlp(layer.mlp, normalise(layer.post_attention_layernorm, hidden), whole=last is None)
        return normalise(self._decoder.norm, hidden)

    def _layer_flops(self, rows: int, length: int, queries: int, keys: int) -> int:
        """FLOPs per prompt of all layers' matrix products.

        Args:
            rows: R.
            length: tokens per row.
            queries: how many of them the last layer carries.
            keys: what each token's scores are computed against, masked entries included.
        """
        shape = self.shape
        kv = 2 * shape.kv_weights * rows * length
        rest = (2 * (shape.query_weights + shape.mlp_weights) + 4 * shape.heads * shape.head_dim * keys) * rows
        return shape.layers * kv + (shape.layers - 1) * rest * length + rest * queries

    @torch.no_grad()
    def _unembed(self, hidden: Tensor, select: Tensor | None) -> Tensor:
        rows = hidden.numel() // hidden.shape[-1] // self.batch
        if select is None:
            self._executed(2 * rows * self._lm_head.weight.numel())
            return self._lm_head(hidden)
        self._executed(2 * rows * select.numel() * hidden.shape[-1])
        bias = self._lm_head.bias
        return F.linear(hidden, self._lm_head.weight[select], None if bias is None else bias[select])

    # --------------------------------------------------------------------------------------------------- rows layout
    def _extend_rows(self, parents: Tensor, tokens: Tensor, alive: Tensor | None, select: Tensor | None, room: int) -> Extension:
        rows = tokens.shape[1]
        if self._rows is None:
            self._rows = rows
            size = (self.batch, self.shape.kv_heads, rows, 0, self.shape.head_dim)
            self._row_keys = [torch.empty(size, dtype=self.dtype, device=self.device) for _ in self._layers]
            self._row_values = [torch.empty(size, dtype=self.dtype, device=self.device) for _ in self._layers]
        if rows != self._rows:
            raise TrieError(f"the rows layout holds {self._rows} rows per prompt, {rows} tokens were given")
        self._reserve(rows, 1, parents, alive)
        if (self.used + rows) // rows > self._row_keys[0].shape[3]:
            every = torch.arange(rows, device=self.device).expand(self.batch, -1)
            self._move_rows(every, max(self.capacity, self.used + rows + room))
        slots = slice(self.used, self.used + rows)
        step = self.used // rows
        depth, stem = self._depth_after(parents), self._stem_of(parents)
        mask = self._mask(stem, torch.zeros(*parents.shape, 0, dtype=torch.bool, device=self.device))
        self._record(parents, stem, tokens[..., None], depth[..., None], alive, None, commit=1)
        self.used = slots.stop

        def place(layer: int, k: Tensor, v: Tensor) -> tuple[KeysValues | None, KeysValues | None]:
            keys, values = self._row_keys[layer], self._row_values[layer]
            keys[:, :, :, step] = k[:, :, 0].transpose(1, 2)
            values[:, :, :, step] = v[:, :, 0].transpose(1, 2)
            own = (keys[:, :, :, : step + 1], values[:, :, :, : step + 1])
            return (self._keys[layer], self._values[layer]), own

        hidden = self._forward(tokens[..., None], depth[..., None], place, mask=mask)
        self._executed(self._layer_flops(rows, 1, 1, self._prompt_width + step + 1))
        return Extension(self._ids(slots), self._unembed(hidden[:, :, 0], select))

    def _compact_rows(self, keep: Tensor, room: int) -> Tensor:
        if self._rows is None:
            return keep
        rows, kept = keep % self._rows, keep.shape[1]
        nodes = keep // self._rows * kept + torch.arange(kept, device=self.device)
        self._move_rows(rows, self.used // self._rows * kept + room)
        return nodes

    def _move_rows(self, rows: Tensor, capacity: int) -> None:
        """Gather ``rows`` [B, R'] into storage of so many nodes per prompt; of one head at a time, as in packed storage."""
        old_rows, new_rows = self._rows or 1, rows.shape[1]
        steps, length = self.used // old_rows, capacity // new_rows
        for store in (self._row_keys, self._row_values):
            for layer, old in enumerate(store):
                batch, heads, _, _, dim = old.shape
                index = rows[:, :, None, None].expand(-1, -1, steps, dim)
                new = old.new_empty(batch, heads, new_rows, length, dim)
                aside = 0
                for head in range(heads):
                    moved = old[:, head, :, :steps].gather(1, index)
                    new[:, head, :, :steps] = moved
                    aside = moved.nbytes
                    del moved
                store[layer] = self._replaced(old, new, aside=aside)
        for name in NODE_FIELDS:
            kept = getattr(self, name)[:, : self.used].view(self.batch, steps, old_rows)
            moved = kept.new_zeros(self.batch, length * new_rows)
            moved[:, : steps * new_rows] = kept.gather(2, rows[:, None].expand(-1, steps, -1)).flatten(1)
            setattr(self, name, moved)
        self._rows, self.used, self.capacity = new_rows, steps * new_rows, length * new_rows


# ------------------------------------------------------------------------------------------------------------ functions
def attend(
    q: Tensor,
    stored: KeysValues | None,
    mask: Tensor | None,
    own: KeysValues | None,
    own_mask: Tensor | None,
) -> Tensor:
    """Attention over a stored part that all rows share and a part of each row's own, under one softmax.

    Args:
        q: [B, H, R, M, D] scaled queries: M = query heads per key head x query tokens of a row.
        stored: keys and values [B, H, S, D].
        mask: [B, 1, R, 1, S] additive, over the stored part.
        own: keys and values [B, H, R, L, D].
        own_mask: additive, broadcastable to [B, H, R, M, L].

    Returns:
        [B, H, R, M, D].
    """
    batch, heads, rows, many, dim = q.shape
    if stored is None:
        assert own is not None and own_mask is not None
        return torch.matmul(torch.softmax(torch.matmul(q, own[0].transpose(3, 4)).add_(own_mask), -1), own[1])
    assert mask is not None
    if own is None:
        keys, values = stored[0].flatten(0, 1), stored[1].flatten(0, 1)
        scores = torch.bmm(q.reshape(batch * heads, rows * many, dim), keys.transpose(1, 2)).view(batch, heads, rows, many, -1)
        weights = torch.softmax(scores.add_(mask), -1).view(batch * heads, rows * many, -1)
        return torch.bmm(weights, values).view(q.shape)
    most = SCORES_AT_ONCE[q.device.type == "cpu"] // (heads * many * (stored[0].shape[2] + own[0].shape[3]))
    step = max(1, min(rows, most))  # rows of a prompt at once; of several prompts only where all of one's fit
    prompts = max(1, most // step)
    if step >= rows and prompts >= batch:
        return _attend_both(q, stored, own, mask, own_mask)
    mixed = torch.empty_like(q)
    for first in range(0, batch, prompts):
        some = slice(first, first + prompts)
        shared = stored[0][some], stored[1][some]
        for start in range(0, rows, step):
            part = some, slice(None), slice(start, start + step)
            private = own[0][part], own[1][part]
            masks = mask[part], own_mask if own_mask is None or own_mask.dim() == 2 else own_mask[part]
            mixed[part] = _attend_both(q[part], shared, private, *masks)
    return mixed


def _attend_both(q: Tensor, stored: KeysValues, own: KeysValues, mask: Tensor, own_mask: Tensor | None) -> Tensor:
    batch, heads, rows, many, dim = q.shape
    keys, values = stored[0].flatten(0, 1), stored[1].flatten(0, 1)
    shared = torch.bmm(q.reshape(batch * heads, rows * many, dim), keys.transpose(1, 2)).view(batch, heads, rows, many, -1)
    private = torch.matmul(q, own[0].transpose(3, 4))
    if own_mask is not None:
        private.add_(own_mask)
    weights = torch.softmax(torch.cat([shared.add_(mask), private], -1), -1)
    width = keys.shape[1]
    mixed = torch.bmm(weights[..., :width].reshape(batch * heads, rows * many, width), values).view(q.shape)
    return mixed.add_(torch.matmul(weights[..., width:], own[1]))


def pick(x: Tensor, last: Tensor) -> Tensor:
    """Of x [B, R, L, ...] the entries at ``last`` [B, R], as [B, R, 1, ...]."""
    index = last.view(*last.shape, *([1] * (x.dim() - 2)))
    return x.gather(2, index.expand(*last.shape, 1, *x.shape[3:]))


def normalise(module: Any, x: Tensor) -> Tensor:
    """RMS norm. In float32 in one call, bit for bit what the module computes; in other dtypes the module's own casts matter."""
    if x.dtype is torch.float32:
        return F.rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)
    return module(x)


def apply_mlp(mlp: Any, x: Tensor, *, whole: bool) -> Tensor:
    """``mlp`` of x [B, R, L, hidden]; on a CPU :data:`CHAIN_TOKENS_AT_ONCE` tokens after another, unless ``whole``."""
    if whole or x.device.type != "cpu" or x.shape[:-1].numel() <= CHAIN_TOKENS_AT_ONCE:
        return mlp(x)
    out = torch.empty_like(x)
    for given, found in zip(*(part.flatten(0, -2).split(CHAIN_TOKENS_AT_ONCE) for part in (x, out)), strict=True):
        found.copy_(mlp(given))
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [..., D]; the sines of the first half are negated."""
    first, second = x.chunk(2, -1)
    return (x * cos).addcmul_(torch.cat((second, first), -1), sin)


def path_hashes(state: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """64-bit hashes of all prefixes of chains: a path's is the sum of those of its (position, token) pairs (Zobrist hashing).

    Args:
        state: [B, R] hash of what each chain hangs under.
        tokens: [B, R, L].
        positions: broadcastable to [B, R, L], below 2^31.

    Returns:
        [B, R, L].
    """
    return state[..., None] + mix(tokens + 1 + (positions << 32)).cumsum(-1)


def mix(x: Tensor) -> Tensor:
    """Finaliser of splitmix64 on int64 (shifts made logical by a mask)."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685
    return x ^ ((x >> 31) & (2**33 - 1))


def sliding_window(config: Any) -> int | None:
    """Longest context every layer sees in full, or None if it is unlimited."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


def check_model(model: Any) -> None:
    """Refuse what the engine cannot drive.

    Raises:
        TrieError: with the reason.
    """
    if hasattr(model, "get_base_model"):  # peft's wrappers; some change the prompt or the unembedding
        raise TrieError(f"{type(model).__name__} wraps a model; {MERGE}")
    config: Any = getattr(model, "config", None)
    family = getattr(config, "model_type", type(model).__name__)
    if family not in FAMILIES:
        raise TrieError(f"model type {family!r} is not of the Llama family; known: {', '.join(FAMILIES)}")
    decoder, head = getattr(model, "model", None), getattr(model, "get_output_embeddings", lambda: None)()
    parts = ("layers", "norm", "embed_tokens", "rotary_emb")
    if decoder is None or head is None or not all(hasattr(decoder, part) for part in parts):
        raise TrieError(f"{type(model).__name__} is not a causal language model with decoder layers and an unembedding")
    if type(head) is not torch.nn.Linear:  # selected rows are read from its weight and bias, past any other forward
        raise TrieError(f"the unembedding is a {type(head).__name__}, not a plain torch.nn.Linear; {MERGE}")
    if head.weight.shape[0] != config.vocab_size:
        raise TrieError(
            f"the unembedding has {head.weight.shape[0]} rows but config.vocab_size is {config.vocab_size}; they must agree"
        )
    if model.training:
        raise TrieError("the model is in training mode; call model.eval() first")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise TrieError(f"rotary embedding {rope!r} depends on the sequence's length; known: {', '.join(ROPE_TYPES)}")
