"""The multifurcation reward model: the guard with LoRA and a bias on its lm_head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saffron.mrm.targets import Batch

Bias = Literal["trained", "frozen_random", "absent"]


class MultifurcationRewardModel(nn.Module):
    """M(s): one reward for every next token (Section 4.1), of which training reads the observed token's only.

    The lm_head's weight stays the guard's (or what :func:`prepare_head` made of it); its bias is a parameter of its own. So a
    token that is never a target has a bias gradient of exactly zero and keeps its initial bias (Proposition 1).

    Args:
        guard: causal LM to start from; becomes part of this module.
        rank: of LoRA.
        alpha: of LoRA.
        modules: linear layers of every decoder layer that LoRA is put on.
        bias: ``trained`` starts at zero; ``frozen_random`` is an untouched initialisation of a linear layer, as in the
            released weights; ``absent`` is none.
        seed: of LoRA's initialisation and the random bias; the global generator is left as it was.
    """

    def __init__(self, guard: Any, *, rank: int, alpha: float, modules: Sequence[str], bias: Bias, seed: int) -> None:
        from peft import LoraConfig, get_peft_model  # half a second to import, which reading a trained one can do without

        super().__init__()
        head = guard.get_output_embeddings()
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it by the rank: any number does
            lora_dropout=0.0,
            bias="none",
            target_modules=list(modules),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random = (2 * torch.rand(head.out_features) - 1) / head.in_features**0.5
            self.adapted: Any = get_peft_model(guard, config)
        precision = torch.promote_types(head.weight.dtype, torch.float32)
        initial = random if bias == "frozen_random" else torch.zeros(head.out_features)
        self.bias = nn.Parameter(initial.to(head.weight.device, precision), requires_grad=bias == "trained")

    def forward(self, batch: Batch) -> Tensor:
        """Predicted rewards [targets] of the observed tokens."""
        guard = self.adapted.get_base_model()
        return observed_rewards(guard.model, guard.get_output_embeddings().weight, self.bias, batch)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: LoRA, and the bias if it is."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


def prepare_head(guard: Any, scale: float, centred: tuple[int, ...] = ()) -> None:
    """Change the lm_head that the MRM starts from, in place; it is untied from the embeddings, which stay as they are.

    A language model's logits lie far from rewards and spread several times as wide, and the rows of the verdict words, which
    the guard has learnt to say, give the largest of all. In a large model LoRA makes up for that; in a small one it does not.

    Args:
        guard: causal LM.
        scale: factor on the whole lm_head (1: as it is).
        centred: tokens whose rows lose their mean, so that of two verdict words each starts at half the reward, up or down.
    """
    if scale == 1 and not centred:
        return
    head = guard.get_output_embeddings()
    weight = head.weight.detach().clone()
    if centred:
        rows = list(centred)
        weight[rows] -= weight[rows].mean(0)
    head.weight = nn.Parameter(scale * weight, requires_grad=False)
    guard.config.tie_word_embeddings = False


def observed_rewards(decoder: Any, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    """M(s)[a] for each prefix s and observed next token a: only these rows of the lm_head are multiplied.

    Args:
        decoder: the causal LM without its lm_head.
        weight: [V, hidden] lm_head.
        bias: [V].
        batch: rows and targets.

    Returns:
        [targets], in float32 at least.
    """
    precision = torch.promote_types(weight.dtype, torch.float32)
    hidden = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state[batch.row, batch.position]
    return (hidden.to(precision) * weight[batch.tokens].to(precision)).sum(-1) + bias[batch.tokens].to(precision)


def squared_error(predicted: Tensor, batch: Batch, targets: int) -> Tensor:
    """Eq. 5: squared errors summed over the batch's targets, divided by the number of ``targets`` of the whole step."""
    return (predicted - batch.rewards.to(predicted.dtype)).square().sum() / targets
