"""The engine: a token trie over a causal language model.

A :class:`TokenTrie` reads a batch of prompts once and then holds nodes, each a token with a parent. One call extends all
prompts of the batch by many nodes at once: **a token's position is its depth, and its attention mask is its ancestry**.
Everything in this project that reads a language model (sampling, beam search, lookahead, a guard's verdict on each
candidate, labelling every prefix of a conversation) is such an extension.

Where keys and values lie, in one of two layouts behind the same calls, is :mod:`saffron.engine.storage`'s business; how the
model's layers are driven, :mod:`saffron.engine.forward`'s.

Shapes: B prompts, R rows (new nodes or chains per prompt), L tokens per chain, V vocabulary, P longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from saffron.engine.compute import Ledger
from saffron.engine.forward import Decoder, Place, TrieError
from saffron.engine.replay import Replays, recorder
from saffron.engine.storage import Packed, Rows

#: Parent id of first-level nodes: the prompt's last token. ``ROOT - k`` is the token k before it.
ROOT = -1

#: Kept per node: position, prompt tokens it sees, token, hash of its path.
NODE_FIELDS = ("_depth", "_stem", "_token", "_hash")


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
        layout: see :mod:`saffron.engine.storage`.
        fixed_shapes: attend over all of storage, taken or not, and write through device indices, so that extensions by equally
            many rows do the same operations on the same shapes and the same storage from one compaction to the next; on a GPU
            they are recorded and replayed (:mod:`saffron.engine.replay`). ``packed`` only. Costs the masked entries.
        step: storage grows to multiples of so many nodes per prompt (``packed`` only). Large ones give it few sizes: a step of
            fixed shapes is compiled anew for each.
        logits: whether to compute ``root_logits``.

    Attributes:
        root_logits: [B, V] logits at each prompt's last token (None if ``logits`` is false).
        ledger: compute so far, one entry per prompt given to the constructor.
        shape: the model's sizes.
        storage: keys and values of prompts and nodes.

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
        self._decoder = Decoder(model)
        if layout not in ("packed", "rows") or (fixed_shapes and layout == "rows"):
            raise TrieError(f"layout must be packed or rows, and packed for fixed shapes, not {layout!r}")
        if room < 0 or step < 1:
            raise TrieError(f"room must be at least 0 and step at least 1, not {room} and {step}")
        if not prompts or any(len(prompt) == 0 for prompt in prompts):
            raise TrieError("every prompt needs at least one token")
        self.shape, self.device, self.dtype = self._decoder.shape, self._decoder.device, self._decoder.dtype
        self.fixed_shapes = fixed_shapes
        record = recorder(self.device) if fixed_shapes else None
        self._replays = None if record is None else Replays(record)
        self.batch = len(prompts)
        self.used = 0  # node slots taken; the same for all prompts
        lengths = [len(prompt) for prompt in prompts]
        self._prompt_width = max(lengths)
        self._deepest = self._prompt_width  # upper bound of any node's depth + 1, kept on the host: as if each call went deeper
        self._prompt_length = torch.tensor(lengths, device=self.device)
        self._prompt_index = torch.arange(self.batch, device=self.device)
        counts = torch.zeros(3, self.batch, dtype=torch.float64, device=self.device)
        self.ledger = Ledger(self.shape, tokens=counts[0], context=counts[1], executed=counts[2])
        size = (self._decoder, self.ledger, self.batch, self._prompt_width, room)
        self.storage = Rows(*size) if layout == "rows" else Packed(*size, step=step, fixed_shapes=fixed_shapes)
        square = 0 if layout == "rows" else room  # rows need no ancestry: each sees its own tokens
        self._ancestry = torch.zeros(self.batch, square, square, dtype=torch.bool, device=self.device)
        self._depth = torch.zeros(self.batch, room, dtype=torch.int64, device=self.device)
        self._stem = torch.zeros(self.batch, room, dtype=torch.int64, device=self.device)
        self._token = torch.zeros(self.batch, room, dtype=torch.int64, device=self.device)
        self._hash = torch.zeros(self.batch, room, dtype=torch.int64, device=self.device)
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
        rows = tokens.shape[1]
        if isinstance(self.storage, Rows):
            self.storage.open(rows)
        self._reserve(rows, 1, parents, alive, room=room)
        slots = slice(self.used, self.used + rows)
        depth, stem = self._depth_after(parents), self._stem_of(parents)
        seen = self._linked(parents, slots, chain=1)
        self._record(parents, stem, tokens[..., None], depth[..., None], alive, None, commit=1)
        self.used = slots.stop
        logits, keys = self._read(tokens, depth, self._mask(stem, seen), slots, select)
        self._executed(self._decoder.layer_flops(rows, 1, 1, keys) + self._decoder.unembed_flops(rows, select))
        return Extension(self._ids(slots), logits)

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
        if isinstance(self.storage, Rows):
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
        positions = self._depth_after(parents)[..., None] + torch.arange(length, device=self.device)
        stem, ancestry = self._stem_of(parents), self._ancestry_of(parents)
        stored = slice(0, self._prompt_width + self._extent if within is None else min(within, self._prompt_width))
        mask = self._mask(stem, ancestry)[..., stored]
        slots = slice(self.used, self.used + rows * commit)
        if commit:
            self._linked(parents, slots, chain=commit)
        self._record(parents, stem, tokens, positions, alive, lengths, commit=commit)
        self.used = slots.stop
        last = (lengths if lengths is not None else torch.full_like(parents, length)) - 1
        place = self.storage.chains(slots, stored, commit)
        hidden = self._decoder.forward(tokens, positions, place, mask=mask, last=last)
        self._executed(self._decoder.layer_flops(rows, length, 1, stored.stop + length))
        return Branch(self._ids(slots).view(self.batch, rows, commit), self._unembed(hidden[:, :, 0], select))

    def live_nodes(self, keep: Tensor, alive: Tensor | None = None) -> Tensor:
        """[] int64, on the device: most nodes of any prompt that :meth:`compact` of the same arguments keeps."""
        if isinstance(self.storage, Rows) or not self.used:
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
        if isinstance(self.storage, Rows):
            return self._compact_rows(self.storage, keep, room)
        width = int(self.live_nodes(keep, alive)) if live_nodes is None else live_nodes
        live = self._live(keep, alive)
        order = torch.argsort(~live, dim=1, stable=True)[:, :width]
        new_ids = live.cumsum(1) - 1
        self._move_nodes(self.storage, order, width + room)
        moved = new_ids.gather(1, keep.clamp(min=0)) if width else torch.full_like(keep, ROOT)
        return torch.where(keep >= 0, moved, keep)

    def _compact_rows(self, storage: Rows, keep: Tensor, room: int) -> Tensor:
        if storage.rows is None:
            return keep
        rows, kept = keep % storage.rows, keep.shape[1]
        nodes = keep // storage.rows * kept + torch.arange(kept, device=self.device)
        self._move_rows(storage, rows, self.used // storage.rows * kept + room)
        return nodes

    def drop_prompts(self, keep: Tensor) -> None:
        """Keep only these prompts in the batch.

        Args:
            keep: [B'] indices into the current batch, increasing.
        """
        self.storage.drop_prompts(keep)
        for name in ("_ancestry", *NODE_FIELDS, "_prompt_length", "_prompt_index", "_root_hash"):
            setattr(self, name, getattr(self, name).index_select(0, keep))
        self.batch = int(keep.shape[0])

    def path(self, nodes: Tensor) -> list[list[list[int]]]:
        """Tokens from below the prompt to each node, for reading sequences back at the end (host side).

        Args:
            nodes: [B, R] node ids (or ROOT: an empty path).
        """
        ids, tokens = nodes.tolist(), self._token[:, : self.used].tolist()
        if isinstance(self.storage, Rows):
            rows = self.storage.rows or 1
            return [[[tokens[b][n] for n in range(node % rows, node + 1, rows)] for node in row] for b, row in enumerate(ids)]
        ancestry = self._ancestry[:, : self.used, : self.used].tolist()
        return [
            [[tokens[b][n] for n, above in enumerate(ancestry[b][node]) if above] if node >= 0 else [] for node in row]
            for b, row in enumerate(ids)
        ]

    @property
    def kv_bytes(self) -> int:
        """Bytes of all key and value storage now allocated."""
        return self.storage.kv_bytes

    # ------------------------------------------------------------------------------------------------- room for nodes
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
        window = self._decoder.window
        if window is not None and reached > window:  # only then is it worth a copy to the host to know better
            depths = self._depth_after(parents) + (length if lengths is None else lengths)
            self._refuse_beyond(int((depths if alive is None else depths * alive).amax()))
        self._decoder.reach(reached)
        self._deepest += commit
        storage = self.storage
        if storage.holds(self.used + nodes):
            return
        if isinstance(storage, Rows):
            every = torch.arange(nodes, device=self.device).expand(self.batch, -1)
            self._move_rows(storage, every, max(storage.capacity, self.used + nodes + room))
        else:
            every = torch.arange(self.used, device=self.device).expand(self.batch, -1)
            self._move_nodes(storage, every, self.used + nodes + room)

    def _refuse_beyond(self, depth: int) -> None:
        window = self._decoder.window
        if window is not None and depth > window:
            raise TrieError(f"sequences of up to {depth} tokens exceed the model's sliding window of {window}")

    def _move_nodes(self, storage: Packed, order: Tensor, nodes: int) -> None:
        """Keep the nodes ``order`` [B, width], in that order, in storage of at least so many nodes."""
        width, used, capacity = order.shape[1], self.used, storage.grown(nodes)
        storage.move(order, capacity)
        index = order[..., None].expand(-1, -1, used)
        ancestry = self._ancestry[:, :used, :used].gather(1, index).gather(2, order[:, None].expand(-1, width, -1))
        self._ancestry = torch.zeros(self.batch, capacity, capacity, dtype=torch.bool, device=self.device)
        self._ancestry[:, :width, :width] = ancestry
        self._move_fields(order, capacity)
        if self.fixed_shapes:
            self._decoder.reach(self._deepest + capacity)  # for every depth before the next compaction

    def _move_rows(self, storage: Rows, rows: Tensor, capacity: int) -> None:
        """Keep ``rows`` [B, R'], in that order, in storage of so many nodes per prompt."""
        held = storage.rows or 1
        steps = self.used // held
        storage.move(rows, steps, capacity)
        first = torch.arange(steps, device=self.device)[:, None] * held
        self._move_fields((first + rows[:, None]).flatten(1), storage.capacity)

    def _move_fields(self, order: Tensor, capacity: int) -> None:
        for name in NODE_FIELDS:
            old = getattr(self, name)
            new = old.new_zeros(self.batch, capacity)
            new[:, : order.shape[1]] = old.gather(1, order)
            setattr(self, name, new)
        self.used = order.shape[1]

    @property
    def _extent(self) -> int:
        """Node slots that are attended over."""
        return self.storage.capacity if self.fixed_shapes else self.used

    def _ids(self, slots: slice) -> Tensor:
        return torch.arange(slots.start, slots.stop, device=self.device).expand(self.batch, -1)

    def _live(self, keep: Tensor, alive: Tensor | None) -> Tensor:
        """[B, used] bool (with fixed shapes all of storage): the nodes ``keep`` [B, R] and their ancestors, of living entries."""
        ancestry = self._ancestry_of(keep)
        return (ancestry if alive is None else ancestry & alive[..., None]).any(1)

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

    def _linked(self, parents: Tensor, slots: slice, chain: int) -> Tensor:
        """Note the ancestry of new nodes: ``chain`` under each of ``parents`` [B, R], one after another.

        Returns:
            [B, R * chain, S] which node slots each sees, itself included (S is 0 in the rows layout).
        """
        rows = parents.shape[1]
        if isinstance(self.storage, Rows):
            return torch.zeros(*parents.shape, 0, dtype=torch.bool, device=self.device)
        ancestry = self._ancestry_of(parents)
        if chain > 1:
            ancestry = ancestry.repeat_interleave(chain, dim=1)
        own = torch.eye(rows, dtype=torch.bool, device=self.device)
        if chain > 1:
            before = torch.tril(torch.ones(chain, chain, dtype=torch.bool, device=self.device))
            own = torch.einsum("rs,ij->risj", own, before).reshape(rows * chain, rows * chain)
        self._ancestry[:, slots, : ancestry.shape[2]] = ancestry
        self._ancestry[:, slots, slots] = own
        return self._ancestry[:, slots, : self.storage.capacity if self.fixed_shapes else slots.stop]

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
        self._decoder.reach(width + (self.storage.capacity if self.fixed_shapes else 0))
        padded = [[*prompt, *([0] * (width - len(prompt)))] for prompt in prompts]
        tokens = torch.tensor(padded, device=self.device)
        positions = torch.arange(width, device=self.device).expand(self.batch, -1)
        self._root_hash = path_hashes(torch.zeros_like(tokens[:, :1]), tokens[:, None], positions[:, None])[:, 0]
        self._count(self._root_hash, positions, positions < self._prompt_length[:, None])
        last = self._prompt_length[:, None] - 1
        hidden = self._decoder.forward(tokens[:, None], positions[:, None], self.storage.prompt(), last=last)
        self._executed(self._decoder.layer_flops(1, width, 1, width))
        return self._unembed(hidden[:, 0, 0], None) if logits else None

    def _read(self, tokens: Tensor, depth: Tensor, mask: Tensor, slots: slice, select: Tensor | None) -> tuple[Tensor, int]:
        """Logits [B, R, V] after one token per row, stored in ``slots``, and to how many slots each attends."""
        storage = self.storage
        if isinstance(storage, Rows):
            place, keys = storage.nodes(slots)
            return self._step(tokens, depth, mask, place, select), keys
        keys, written = storage.extent(slots), storage.written(slots)
        if self._replays is None or select is not None or isinstance(written, slice):
            return self._step(tokens, depth, mask, storage.nodes(written, keys), select), keys

        def step(tokens: Tensor, depth: Tensor, mask: Tensor, written: Tensor) -> Tensor:
            return self._step(tokens, depth, mask, storage.nodes(written, keys), None)

        return self._replays(step, (tokens, depth, mask, written), (storage.moves, self._decoder.rotary)), keys

    def _step(self, tokens: Tensor, depth: Tensor, mask: Tensor, place: Place, select: Tensor | None) -> Tensor:
        hidden = self._decoder.forward(tokens[..., None], depth[..., None], place, mask=mask)
        return self._decoder.unembed(hidden[:, :, 0], select)

    def _unembed(self, hidden: Tensor, select: Tensor | None) -> Tensor:
        rows = hidden.numel() // hidden.shape[-1] // self.batch
        self._executed(self._decoder.unembed_flops(rows, select))
        return self._decoder.unembed(hidden, select)


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
