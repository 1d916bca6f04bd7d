"""Logits of random trees against one full forward pass per path, over what a trie can be asked to do."""

from __future__ import annotations

import random
import weakref
from functools import cache
from typing import Any

import placed
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from tries import tries

from saffron.engine import forward as driving
from saffron.engine.forward import Decoder, TrieError
from saffron.engine.trie import ROOT, TokenTrie

VOCAB = 19
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}


@cache
def model(family: str = "llama", kv_heads: int = 2, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    torch.manual_seed(0)
    config_class, model_class = CLASSES[family]
    sizes = {"vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "head_dim": 6}
    usual = {"num_attention_heads": 4, "num_key_value_heads": kv_heads, "initializer_range": 0.3, "sliding_window": None}
    llama = model_class(config_class(**(sizes | usual | changes)))
    for name, parameter in llama.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return llama.to(placed.DEVICE, dtype).eval().requires_grad_(False)


def full(llm: Any, ids: list[int]) -> Tensor:
    return llm(placed.tensor([ids])).logits[0, -1]


class Mirror:
    """A trie beside the paths its nodes should spell."""

    def __init__(self, llm: Any, prompts: list[list[int]], rng: random.Random, room: int) -> None:
        self.llm, self.prompts, self.rng = llm, prompts, rng
        self.trie = TokenTrie(llm, prompts, room=room)
        self.paths: list[dict[int, list[int]]] = [{} for _ in prompts]
        self.tolerance = TOLERANCE[self.trie.dtype]
        self.check(self.trie.root_logits, [list(prompt) for prompt in prompts])

    def check(self, logits: Tensor, sequences: list[list[int]]) -> None:
        for row, ids in zip(logits, sequences, strict=True):
            torch.testing.assert_close(row, full(self.llm, ids), rtol=0, atol=self.tolerance)

    def parents(self, rows: int) -> Tensor:
        drawn = []
        for prompt, paths in zip(self.prompts, self.paths, strict=True):
            pool = [*paths, *(ROOT - back for back in range(len(prompt)))]
            drawn.append([self.rng.choice(pool) for _ in range(rows)])
        return placed.tensor(drawn)

    def base(self, prompt: int, parent: int) -> list[int]:
        ids = self.prompts[prompt]
        return self.paths[prompt][parent] if parent >= 0 else ids[: len(ids) + 1 + parent]

    def tokens(self, *size: int) -> Tensor:
        return placed.tensor([self.rng.randrange(VOCAB) for _ in range(torch.Size(size).numel())]).view(size)

    def extend(self, rows: int) -> None:
        parents, tokens = self.parents(rows), self.tokens(len(self.prompts), rows)
        alive = placed.tensor([[self.rng.random() < 0.8 for _ in range(rows)] for _ in self.prompts])
        extension = self.trie.extend(parents, tokens, alive=alive)
        for b in range(len(self.prompts)):
            for r in range(rows):
                if alive[b, r]:
                    path = [*self.base(b, int(parents[b, r])), int(tokens[b, r])]
                    self.check(extension.logits[b, r][None], [path])
                    self.paths[b][int(extension.nodes[b, r])] = path

    def branch(self, rows: int, length: int, commit: int) -> None:
        parents, tokens = self.parents(rows), self.tokens(len(self.prompts), rows, length)
        lengths = placed.tensor([[self.rng.randint(max(commit, 1), length) for _ in range(rows)] for _ in self.prompts])
        select = placed.tensor([3, 1, 7])
        branch = self.trie.branch(parents, tokens, commit=commit, lengths=lengths, select=select)
        for b in range(len(self.prompts)):
            for r in range(rows):
                base = self.base(b, int(parents[b, r]))
                chain = [*base, *tokens[b, r, : int(lengths[b, r])].tolist()]
                expected = full(self.llm, chain)[select]
                torch.testing.assert_close(branch.logits[b, r], expected, rtol=0, atol=self.tolerance)
                for c in range(commit):
                    self.paths[b][int(branch.nodes[b, r, c])] = [*base, *tokens[b, r, : c + 1].tolist()]

    def compact(self, rows: int) -> None:
        keep = self.parents(rows)
        new = self.trie.compact(keep, room=self.rng.choice([0, 3, 40]))
        spelled = self.trie.path(new)
        for b, prompt in enumerate(self.prompts):
            kept = {int(n): self.paths[b][int(k)] for n, k in zip(new[b], keep[b], strict=True) if k >= 0}
            assert all(int(n) == int(k) for n, k in zip(new[b], keep[b], strict=True) if k < 0)
            for node, path in zip(new[b].tolist(), spelled[b], strict=True):
                if node >= 0:
                    below = [*prompt, *kept[node]][len(prompt) :]
                    assert below[-len(path) :] == path
            self.paths[b] = kept

    def drop(self) -> None:
        kept = sorted(self.rng.sample(range(len(self.prompts)), self.rng.randint(1, len(self.prompts))))
        self.trie.drop_prompts(placed.tensor(kept))
        self.prompts = [self.prompts[b] for b in kept]
        self.paths = [self.paths[b] for b in kept]


@settings(max_examples=tries(25))
@given(
    seed=st.integers(0, 10_000),
    family=st.sampled_from(sorted(CLASSES)),
    kv_heads=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([torch.float64, torch.float64, torch.float32]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    steps=st.lists(st.sampled_from(["extend", "extend", "branch", "compact", "drop"]), min_size=1, max_size=7),
)
def test_random_trees_equal_separate_forwards(seed, family, kv_heads, dtype, lengths, steps):
    rng = random.Random(seed)
    prompts = [[rng.randrange(VOCAB) for _ in range(n)] for n in lengths]
    mirror = Mirror(model(family, kv_heads, dtype), prompts, rng, rng.choice([0, 5, 84]))
    for step in steps:
        if step == "extend":
            mirror.extend(rng.randint(1, 4))
        elif step == "branch":
            length = rng.randint(1, 4)
            mirror.branch(rng.randint(1, 3), length, rng.randint(0, length))
        elif step == "compact":
            mirror.compact(rng.randint(1, 3))
        else:
            mirror.drop()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    family=st.sampled_from(sorted(CLASSES)),
    kv_heads=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    rows=st.integers(1, 5),
    steps=st.integers(1, 5),
)
def test_private_rows_equal_separate_forwards(seed, family, kv_heads, dtype, lengths, rows, steps):
    rng, llm = random.Random(seed), model(family, kv_heads, dtype)
    prompts = [[rng.randrange(VOCAB) for _ in range(n)] for n in lengths]
    trie = TokenTrie(llm, prompts, room=rng.choice([0, 2, rows * steps]), layout="rows", logits=False)
    assert trie.root_logits is None
    paths = [[list(prompt) for _ in range(rows)] for prompt in prompts]
    nodes = placed.full((len(prompts), rows), ROOT)
    for step in range(steps):
        tokens = placed.tensor([[rng.randrange(VOCAB) for _ in path] for path in paths])
        extension = trie.extend(nodes, tokens)
        nodes = extension.nodes
        for b, row in enumerate(paths):
            for r, path in enumerate(row):
                path.append(int(tokens[b, r]))
                torch.testing.assert_close(extension.logits[b, r], full(llm, path), rtol=0, atol=TOLERANCE[dtype])
        if step == steps // 2 and rng.random() < 0.7:
            chosen = [
                [rng.randrange(len(row)) for _ in range(rng.randint(1, len(row)) if not b else 1)] for b, row in enumerate(paths)
            ]
            width = len(chosen[0])
            index = placed.tensor([(row * width)[:width] for row in chosen])
            nodes = trie.compact(nodes.gather(1, index))
            paths = [[list(row[i]) for i in picked] for row, picked in zip(paths, index.tolist(), strict=True)]
        if step == steps // 2 and rng.random() < 0.5:
            kept = sorted(rng.sample(range(len(paths)), rng.randint(1, len(paths))))
            trie.drop_prompts(placed.tensor(kept))
            nodes, paths, prompts = nodes[kept], [paths[b] for b in kept], [prompts[b] for b in kept]
    assert trie.path(nodes) == [[path[len(p) :] for path in row] for p, row in zip(prompts, paths, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_fixed_shapes_change_no_logit_and_keep_shapes_and_storage_the_same_between_compactions(seed, monkeypatch):
    rng, shapes = random.Random(seed), []
    prompts = [[1, 2, 3], [4]]
    plain, fixed = (TokenTrie(model(), prompts, room=12, fixed_shapes=wanted) for wanted in (False, True))
    forward = Decoder.forward

    def watched(self, tokens, positions, place, *, mask=None, last=None):
        def placed(layer, k, v):
            stored, own = place(layer, k, v)
            places = [(tuple(part.shape), part.stride(), part.data_ptr()) for part in stored]
            shapes.append((self is fixed._decoder, layer, tuple(tokens.shape), tuple(mask.shape), *places))
            return stored, own

        return forward(self, tokens, positions, placed, mask=mask, last=last)

    monkeypatch.setattr(Decoder, "forward", watched)
    nodes = placed.full((2, 3), ROOT)
    for period in range(3):
        shapes.clear()
        for _ in range(4 if period == 0 else 2):
            parents = nodes.gather(1, placed.tensor([[rng.randrange(3) for _ in range(3)] for _ in prompts]))
            tokens = placed.tensor([[rng.randrange(VOCAB) for _ in range(3)] for _ in prompts])
            ours, theirs = (trie.extend(parents, tokens) for trie in (fixed, plain))
            torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-10)
            nodes = ours.nodes
        assert len({shape for shape in shapes if shape[0]}) == len(model().model.layers)
        assert len({shape for shape in shapes if not shape[0]}) > len(model().model.layers)
        chains = placed.tensor([[[1, 2]] * 3] * 2)
        ours, theirs = (trie.branch(nodes, chains).logits for trie in (fixed, plain))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
        live = int(fixed.live_nodes(nodes))
        assert live == int(plain.live_nodes(nodes)) <= fixed.used
        kept = [trie.compact(nodes, room=6, live_nodes=live) for trie in (fixed, plain)]
        assert torch.equal(*kept) and fixed.path(kept[0]) == plain.path(kept[1])
        nodes = kept[0]
    assert torch.equal(fixed.ledger.nominal, plain.ledger.nominal)


@pytest.mark.parametrize(("rooms", "compilations"), [((31, 70), 3), ((31, 31), 2), ((18, 18), 1)])
def test_a_step_of_fixed_shapes_is_compiled_once_per_size_of_storage(rooms, compilations, monkeypatch):
    """As one graph, without a break. Compactions leave storage its size where it is enough, and else grow it by whole steps."""
    counter = CompileCounter()
    trie, eager = (TokenTrie(model(dtype=torch.float32), [[1, 2, 3], [4]], room=36, fixed_shapes=True, step=36) for _ in range(2))
    torch._dynamo.reset()
    compiled = torch.compile(trie._decoder.forward, backend=counter, dynamic=False, fullgraph=True)
    monkeypatch.setattr(trie._decoder, "forward", compiled)
    rng, nodes = random.Random(0), placed.full((2, 3), ROOT)
    for period in range(3):
        for _ in range(6):
            parents = nodes.gather(1, placed.tensor([[rng.randrange(3) for _ in range(3)] for _ in range(2)]))
            tokens = placed.tensor([[rng.randrange(VOCAB) for _ in range(3)] for _ in range(2)])
            ours, theirs = (each.extend(parents, tokens) for each in (trie, eager))
            torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-5)
            nodes = ours.nodes
        assert counter.frame_count == min(period + 1, compilations)
        kept = [each.compact(nodes, room=rooms[min(period, 1)]) for each in (trie, eager)]
        assert torch.equal(*kept)
        nodes = kept[0]
    torch._dynamo.reset()


def test_bfloat16_stays_in_its_dtype_and_close():
    mirror = Mirror(model(dtype=torch.bfloat16), [[1, 2, 3], [4]], random.Random(0), 20)
    mirror.extend(3)
    mirror.extend(3)
    assert mirror.trie.root_logits.dtype == torch.bfloat16


def test_labelling_reads_a_chain_under_every_prompt_position():
    llm, ids = model(), [1, 2, 3, 4, 5]
    trie = TokenTrie(llm, [ids], logits=False)
    parents = placed.tensor([[ROOT - back for back in range(4)]])
    logits = trie.branch(parents, placed.tensor([[[7, 8, 9]] * 4])).logits
    for back in range(4):
        torch.testing.assert_close(logits[0, back], full(llm, [*ids[: 5 - back], 7, 8, 9]), rtol=0, atol=1e-10)
    assert trie.used == 0


@pytest.mark.parametrize("scores", [1, 500, 3000])
def test_chunks_and_a_bound_on_what_is_attended_over_change_no_logit(scores, monkeypatch):
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10]]
    parents = placed.tensor([[ROOT - 3, ROOT - 2, ROOT - 4], [ROOT, ROOT - 2, ROOT - 1]])  # within 4 tokens
    chains = placed.arange(18).view(2, 3, 3)
    lengths = placed.tensor([[3, 1, 2], [2, 3, 3]])
    whole = TokenTrie(model(), prompts)
    expected = whole.branch(parents, chains, lengths=lengths).logits
    monkeypatch.setattr(driving, "SCORES_AT_ONCE", (scores, scores))
    monkeypatch.setattr(driving, "CHAIN_TOKENS_AT_ONCE", 4)
    bounded = TokenTrie(model(), prompts)
    logits = bounded.branch(parents, chains, lengths=lengths, within=4).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    assert torch.equal(bounded.ledger.tokens, whole.ledger.tokens)
    assert torch.equal(bounded.ledger.context, whole.ledger.context)
    assert (bounded.ledger.executed < whole.ledger.executed).all()


def test_scaled_rotary_embeddings_are_followed():
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    torch.manual_seed(1)
    config = model().config.to_dict() | {"rope_parameters": rope | {"original_max_position_embeddings": 8}}
    llm = LlamaForCausalLM(LlamaConfig(**config)).to(placed.DEVICE).double().eval().requires_grad_(False)
    Mirror(llm, [list(range(15)), [3]], random.Random(0), 8).extend(3)


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_storage_is_what_was_reserved_and_grows_by_what_does_not_fit(layout):
    trie = TokenTrie(model(kv_heads=2), [[1, 2, 3]], room=6, layout=layout)
    per_token = trie.shape.kv_bytes_per_token(8)
    nodes = trie.extend(placed.tensor([[ROOT, ROOT, ROOT]]), placed.tensor([[1, 2, 3]])).nodes
    assert trie.kv_bytes == (3 + 6) * per_token
    nodes = trie.extend(nodes, placed.tensor([[4, 5, 6]])).nodes
    assert trie.kv_bytes == (3 + 6) * per_token
    nodes = trie.extend(nodes, placed.tensor([[7, 8, 9]]), room=3).nodes
    assert trie.kv_bytes == (3 + 9 + 3) * per_token
    assert trie.path(nodes) == [[[1, 4, 7], [2, 5, 8], [3, 6, 9]]]


def test_compaction_makes_room_in_the_storage_there_is_and_grows_it_where_that_is_too_little():
    trie = TokenTrie(model(kv_heads=2), [[1, 2, 3]], room=6)
    nodes = trie.extend(placed.full((1, 6), ROOT), placed.arange(6)[None]).nodes
    place, held = trie.storage.keys[0].data_ptr(), trie.kv_bytes
    nodes = trie.compact(nodes[:, [4, 1]], room=4)
    assert (trie.used, trie.kv_bytes, trie.storage.keys[0].data_ptr()) == (2, held, place)
    assert trie.path(nodes) == [[[4], [1]]]
    nodes = trie.compact(nodes, room=5)
    assert (trie.used, trie.kv_bytes) == (2, (3 + 7) * trie.shape.kv_bytes_per_token(8))
    assert trie.path(nodes) == [[[4], [1]]]


class LiveFloats(TorchDispatchMode):
    """Bytes of floating-point storage made within and still held; the most at any time, beside what was held before."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and out.untyped_storage()._cdata not in self._known:
            storage = out.untyped_storage()
            self._known.add(storage._cdata)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_compaction_that_grows_storage_holds_what_the_ledger_notes(layout):
    """All of storage is made anew, so that what was held before is what is given back in the end."""
    live = LiveFloats()
    with live:
        trie = TokenTrie(model(kv_heads=4), [[1, 2, 3]] * 4, layout=layout, logits=False)
        nodes = trie.extend(placed.full((4, 6), ROOT), placed.ones(4, 6, dtype=torch.long)).nodes
        rest = live.held - trie.kv_bytes  # rotary tables and the like
        live.peak = trie.ledger.peak_kv_bytes = 0
        trie.compact(nodes[:, :5], room=25)
    assert trie.ledger.peak_kv_bytes == live.peak - rest > trie.kv_bytes


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_moving_storage_holds_one_layer_twice_at_most_and_notes_it(layout):
    trie = TokenTrie(model(kv_heads=2), [[1, 2, 3]] * 4, room=4, layout=layout)
    nodes = trie.extend(placed.full((4, 4), ROOT), placed.ones(4, 4, dtype=torch.long)).nodes
    stores = 2 * len(model().model.layers)
    for move in (
        lambda: trie.drop_prompts(placed.tensor([0, 1, 2])),
        lambda: trie.compact(nodes[:3]),
        lambda: trie.extend(nodes[:3], placed.ones(3, 4, dtype=torch.long), room=8),
    ):
        trie.ledger.peak_kv_bytes = 0
        before = trie.kv_bytes
        move()
        after = trie.kv_bytes
        assert max(before, after) < trie.ledger.peak_kv_bytes <= max(before, after) + 2 * max(before, after) / stores


def test_what_it_cannot_drive_is_refused():
    other = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=8, n_layer=1, n_head=1)).to(placed.DEVICE).eval()
    with pytest.raises(TrieError, match="gpt2"):
        TokenTrie(other, [[1]])
    with pytest.raises(TrieError, match="Linear"):
        TokenTrie(torch.nn.Linear(2, 2), [[1]])
    with pytest.raises(TrieError, match="at least one token"):
        TokenTrie(model(), [[1], []])
    training = LlamaForCausalLM(model().config).train()
    with pytest.raises(TrieError, match="eval"):
        TokenTrie(training, [[1]])
    with pytest.raises(TrieError, match=r"20 rows .*vocab_size is 19"):
        TokenTrie(with_head(torch.nn.Linear(24, VOCAB + 1)), [[1]])
    dynamic = LlamaConfig(
        **model().config.to_dict() | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}
    )
    with pytest.raises(TrieError, match="dynamic"):
        TokenTrie(LlamaForCausalLM(dynamic).to(placed.DEVICE).eval(), [[1]])


def with_head(head: torch.nn.Module) -> Any:
    llama = LlamaForCausalLM(model().config).to(placed.DEVICE).eval()
    llama.lm_head = head
    return llama


class Scaled(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return -super().forward(input)


def test_an_unembedding_that_is_more_than_its_weight_is_refused():
    """Selected rows of it are read from its weight, so an adapter on it would count in some logits and not in others."""
    adapted = with_head(torch.nn.Linear(24, VOCAB))
    inject_adapter_in_model(LoraConfig(target_modules=["lm_head"], r=2), adapted)
    wrapped = (
        get_peft_model(LlamaForCausalLM(model().config), LoraConfig(target_modules=["q_proj"], r=2)).to(placed.DEVICE).eval()
    )
    for llama in (with_head(Scaled(24, VOCAB)), adapted, wrapped):
        with pytest.raises(TrieError, match="merge the adapter first"):
            TokenTrie(llama, [[1]])
    TokenTrie(wrapped.merge_and_unload(), [[1]])


def test_a_sliding_window_is_refused_where_it_would_bite():
    windowed = model("mistral", sliding_window=5)
    trie = TokenTrie(windowed, [[1, 2, 3]], room=8)
    nodes = trie.extend(placed.tensor([[ROOT]]), placed.tensor([[1]])).nodes
    nodes = trie.extend(nodes, placed.tensor([[1]])).nodes
    with pytest.raises(TrieError, match="window of 5"):
        trie.extend(nodes, placed.tensor([[1]]))
    with pytest.raises(TrieError, match="window of 5"):
        TokenTrie(windowed, [[1] * 6])


def test_kinds_of_layers_that_mistral_does_not_read_do_not_hide_its_window():
    windowed = model("mistral", sliding_window=5)
    windowed.config.layer_types = ["full_attention"] * windowed.config.num_hidden_layers
    with pytest.raises(TrieError, match="sliding window of 5"):
        TokenTrie(windowed, [[1, 2, 3, 4, 5, 6]])


def test_a_sliding_window_counts_depth_and_not_calls():
    trie = TokenTrie(model("mistral", sliding_window=5), [[1, 2, 3], [1]])
    token = placed.tensor([[1], [1]])
    for _ in range(9):
        nodes = trie.extend(placed.tensor([[ROOT], [ROOT]]), token).nodes
    nodes = trie.extend(nodes, token).nodes
    trie.extend(nodes, token, alive=placed.tensor([[False], [True]]))  # two deeper still, of the shorter prompt
    with pytest.raises(TrieError, match="up to 6 tokens exceed the model's sliding window of 5"):
        trie.extend(nodes, token)
    chains = placed.ones(2, 1, 2, dtype=torch.long)
    logits = trie.branch(nodes, chains, alive=placed.tensor([[False], [True]])).logits
    torch.testing.assert_close(logits[1, 0], full(model("mistral"), [1, 1, 1, 1, 1]), rtol=0, atol=1e-10)


def test_limits_of_layouts_and_of_what_is_attended_over_are_stated():
    trie = TokenTrie(model(), [[1]])
    trie.extend(placed.full((1, 1), ROOT), placed.zeros(1, 1, dtype=torch.long))
    for refused in ({"room": -1}, {"step": 0}, {"layout": "x"}, {"layout": "rows", "fixed_shapes": True}):
        with pytest.raises(TrieError, match=next(iter(refused))):
            TokenTrie(model(), [[1]], **refused)
    with pytest.raises(TrieError, match="room"):
        trie.extend(placed.full((1, 1), ROOT), placed.zeros(1, 1, dtype=torch.long), room=-1)
    with pytest.raises(TrieError, match="commit must lie in 0 to 2"):
        trie.branch(placed.full((1, 1), ROOT), placed.zeros(1, 1, 2, dtype=torch.long), commit=3)
    with pytest.raises(TrieError, match="within"):
        trie.branch(placed.full((1, 1), ROOT), placed.zeros(1, 1, 2, dtype=torch.long), within=1)
    rows = TokenTrie(model(), [[1]], room=4, layout="rows")
    with pytest.raises(TrieError, match="packed"):
        rows.branch(placed.full((1, 2), ROOT), placed.zeros(1, 2, 3, dtype=torch.long))
    rows.extend(placed.full((1, 2), ROOT), placed.zeros(1, 2, dtype=torch.long))
    with pytest.raises(TrieError, match="2 rows"):
        rows.extend(placed.full((1, 3), ROOT), placed.zeros(1, 3, dtype=torch.long))
