"""Compute, defined once: what a token costs, and what a search costs (``docs/paper.md``, "Two ways of counting compute").

*Nominal* FLOPs count each unique token of a trie once: two per weight of every linear layer, the lm_head included,
plus attention over the token's context (its ancestors and itself). They do not depend on how the engine works; figures,
ScalEff and matched budgets use them. *Executed* FLOPs are those of the matrix products that ran, masked and padded
rectangles included. Elementwise work (norms, softmax, rotary embeddings, selection) is counted by neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder of the Llama family, as far as compute and KV memory depend on them."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int

    @classmethod
    def from_config(cls, config: Any) -> ModelShape:
        """Read the sizes from a Hugging Face config (Llama, Mistral, Qwen2, Qwen3)."""
        heads = config.num_attention_heads
        return cls(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocab_size=config.vocab_size,
        )

    @property
    def query_weights(self) -> int:
        """Weights of q_proj and o_proj of one layer."""
        return 2 * self.hidden_size * self.heads * self.head_dim

    @property
    def kv_weights(self) -> int:
        """Weights of k_proj and v_proj of one layer."""
        return 2 * self.hidden_size * self.kv_heads * self.head_dim

    @property
    def mlp_weights(self) -> int:
        """Weights of gate_proj, up_proj and down_proj of one layer."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def linear_weights(self) -> int:
        """Weights of all linear layers, lm_head included, embedding (a lookup) excluded."""
        layer = self.query_weights + self.kv_weights + self.mlp_weights
        return self.layers * layer + self.hidden_size * self.vocab_size

    @property
    def flops_per_token(self) -> int:
        """FLOPs of one token without attention."""
        return 2 * self.linear_weights

    @property
    def flops_per_context_token(self) -> int:
        """FLOPs of one token's attention to one token of its context (scores and weighted values)."""
        return 4 * self.layers * self.heads * self.head_dim

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value

    def nominal(self, tokens: Any, context: Any) -> Any:
        """FLOPs of ``tokens`` tokens whose contexts hold ``context`` tokens in total (numbers or tensors)."""
        return tokens * self.flops_per_token + context * self.flops_per_context_token

    def chain(self, start: int, length: int) -> int:
        """Nominal FLOPs of ``length`` consecutive tokens after ``start`` earlier ones."""
        return self.nominal(length, length * start + length * (length + 1) // 2)


@dataclass
class Ledger:
    """What one trie has computed so far, per prompt it was built with (dropped prompts keep their entry).

    Attributes:
        shape: the model's sizes.
        tokens: [B] float64, unique tokens: Proposition 2's space.
        context: [B] float64, sum of their context lengths: Proposition 2's time.
        executed: [B] float64, executed FLOPs; the sum over prompts is what ``torch.utils.flop_counter`` counts.
        peak_kv_bytes: largest key and value storage of the whole batch, with what is held twice while it moves or grows; not
            what a forward holds besides, such as the keys of a verdict's suffix in the layer it is in.
    """

    shape: ModelShape
    tokens: torch.Tensor
    context: torch.Tensor
    executed: torch.Tensor
    peak_kv_bytes: int = 0

    def note_kv(self, size: int) -> None:
        """Note the bytes of key and value storage now held."""
        self.peak_kv_bytes = max(self.peak_kv_bytes, size)

    @property
    def nominal(self) -> torch.Tensor:
        """[B] float64, nominal FLOPs."""
        return self.shape.nominal(self.tokens, self.context)
