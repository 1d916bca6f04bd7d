"""Driving the decoder layers of a Hugging Face model.

The layers of the stock modules are called one by one, so any checkpoint of the Llama, Mistral, Qwen2 or Qwen3 class works as it
is; what differs from ``model.forward`` is only where keys and values are stored and what attends to what. Grouped-query
attention multiplies all query heads of a group with the one stored key at once; repeated keys are never materialised.

Shapes: B prompts, R rows (new nodes or chains per prompt), L tokens per row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saffron.engine.compute import ModelShape

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


class Decoder:
    """A causal language model as the engine calls it.

    Args:
        model: a loaded causal LM of the Llama, Mistral, Qwen2 or Qwen3 class, in eval mode.

    Attributes:
        shape: its sizes.
        window: longest context every layer sees in full, or None if it is unlimited.
        rotary: how often its table of rotations was replaced by a longer one.

    Raises:
        TrieError: if the model cannot be driven.
    """

    def __init__(self, model: Any) -> None:
        check_model(model)
        self._model: Any = model.model
        self._lm_head: Any = model.get_output_embeddings()
        self._layers = list(self._model.layers)
        self.shape = ModelShape.from_config(model.config)
        self.window = sliding_window(model.config)
        weight = self._model.embed_tokens.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self._cos = self._sin = torch.empty(0, device=self.device)
        self.rotary = 0

    def reach(self, depth: int) -> None:
        """Make the rotary table long enough for positions below ``depth``."""
        if self._cos.shape[0] < depth:
            table = torch.arange(2 * depth, device=self.device)[None]
            cos, sin = self._model.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), table)
            half = sin.shape[-1] // 2
            self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
            self.rotary += 1

    @torch.no_grad()
    def forward(
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
        hidden = self._model.embed_tokens(tokens)
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
        return normalise(self._model.norm, hidden)

    @torch.no_grad()
    def unembed(self, hidden: Tensor, select: Tensor | None = None) -> Tensor:
        """Next-token logits [..., V] of hidden states; of the K vocabulary ids of ``select`` [K] only: [..., K]."""
        if select is None:
            return self._lm_head(hidden)
        bias = self._lm_head.bias
        return F.linear(hidden, self._lm_head.weight[select], None if bias is None else bias[select])

    def unembed_flops(self, rows: int, select: Tensor | None = None) -> int:
        """FLOPs of :meth:`unembed` of so many rows."""
        return 2 * rows * (self._lm_head.weight.numel() if select is None else select.numel() * self.shape.hidden_size)

    def layer_flops(self, rows: int, length: int, queries: int, keys: int) -> int:
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

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, R, L, 1, D] cosines, and sines of :func:`rotate`'s sign."""
        return self._cos[positions][..., None, :], self._sin[positions][..., None, :]


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


def sliding_window(config: Any) -> int | None:
    """Longest context every layer sees in full, or None if it is unlimited."""
    window = getattr(config, "sliding_window", None)
    kinds = None if config.model_type == "mistral" else getattr(config, "layer_types", None)  # which Mistral does not read
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


def _passed_by(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules whose ``forward`` the engine replaces, at least at times, with their names."""
    yield from (("the model", model), ("the decoder", model.model), ("the last norm", model.model.norm))
    yield from (("rotary_emb", model.model.rotary_emb), ("the lm_head", model.get_output_embeddings()))
    for number, layer in enumerate(model.model.layers):
        yield f"layer {number}", layer
        yield f"layer {number}.self_attn", layer.self_attn
        yield f"layer {number}.input_layernorm", layer.input_layernorm
        yield f"layer {number}.post_attention_layernorm", layer.post_attention_layernorm


def check_sizes(shape: ModelShape, decoder: Any) -> None:
    """Refuse sizes that do not go together, which the model's own forward would fail at.

    Raises:
        TrieError: naming the field of the config.
    """
    if not len(decoder.layers):
        raise TrieError("num_hidden_layers is 0: there is no layer to read")
    if shape.heads % shape.kv_heads:
        raise TrieError(
            f"num_attention_heads is {shape.heads}, which is no multiple of num_key_value_heads, {shape.kv_heads}; correct them"
        )
    scale = decoder.rotary_emb.attention_scaling
    if not isinstance(scale, int | float):
        raise TrieError(f"attention_factor of the rotary embedding is {scale!r}, not a number; correct it in config.json")
    angles = 2 * decoder.rotary_emb.inv_freq.shape[-1]
    if angles != shape.head_dim:
        raise TrieError(
            f"the rotary embedding turns {angles} numbers of a head, head_dim is {shape.head_dim}: only heads that are turned as "
            "a whole are driven (partial_rotary_factor, head_dim)"
        )


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
    if getattr(config, "is_causal", True) is False:  # transformers then lets every token see those after it
        raise TrieError("is_causal is false in config.json: the model reads both ways, so its logits are not of next tokens")
    check_sizes(ModelShape.from_config(config), decoder)
    if model.training:
        raise TrieError("the model is in training mode; call model.eval() first")
    for name, module in _passed_by(model):
        known = type(module) is torch.nn.RMSNorm or type(module).forward.__module__.startswith("transformers.models.")
        own = module is not head and not known
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) or own:
            raise TrieError(
                f"{name} has a forward hook or a forward of its own, which the engine passes by, since it drives the parts of a "
                "layer one by one; remove it, or merge what it adds into the weights"
            )
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise TrieError(f"rotary embedding {rope!r} depends on the sequence's length; known: {', '.join(ROPE_TYPES)}")
