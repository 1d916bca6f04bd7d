"""How the multifurcation reward model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from saffron.section import Section

#: Linear layers of a decoder layer that LoRA can be put on.
LoraModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class MRMVariant(Section):
    """One multifurcation reward model; `default` is the one the paper describes."""

    bias: Literal["trained", "frozen_random", "absent"] = Field("trained", description="the lm_head bias")
    unembedding_scale: float | None = Field(None, gt=0, description="in place of mrm.unembedding_scale (null: the same)")
    centred_verdicts: bool | None = Field(None, description="in place of mrm.centred_verdicts (null: the same)")
    lora_rank: int | None = Field(None, ge=1, description="in place of mrm.lora_rank (null: the same)")
    lora_alpha: float | None = Field(None, gt=0, description="in place of mrm.lora_alpha (null: the same)")
    lora_modules: Annotated[list[LoraModule], Field(min_length=1)] | None = Field(
        None, description="in place of mrm.lora_modules (null: the same)"
    )
    learning_rate: float | None = Field(None, gt=0, description="in place of mrm.learning_rate (null: the same)")
    schedule: Literal["constant", "cosine"] | None = Field(None, description="in place of mrm.schedule (null: the same)")
    batch_size: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda size: size is None,
        description="in place of mrm.batch_size (null: the same)",
    )
    epochs: float | None = Field(None, gt=0, description="in place of mrm.epochs (null: the same)")
    draw: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda draw: draw is None,
        description="in place of mrm.draw (null: the same): members of an ensemble differ in it",
    )


class MRM(Section):
    """Saffron-1, the multifurcation reward model."""

    origin: Literal["train", "released"] = Field("train", alias="from", description="train it, or load the authors' release")
    released: str | None = Field(
        None,
        description="local folder of the authors' release (adapter, lm_head_bias.pt, unseen_mask.pt); the adapter is merged at "
        "the scale that its adapter_config.json describes",
    )
    released_bias: bool = Field(False, description="add the release's bias, an untrained initialisation never used by its code")
    released_unseen: int = Field(92_013, ge=0, description="unseen tokens the release's mask must have")
    lora_rank: int = Field(4, ge=1, description="rank of LoRA (paper: 4)")
    lora_alpha: float = Field(4.0, gt=0, description="LoRA alpha (release: 4)")
    lora_modules: Annotated[list[LoraModule], Field(min_length=1)] = Field(
        ["q_proj", "v_proj"],
        description="linear layers of every decoder layer that LoRA is put on (release: q_proj, v_proj); a small MRM needs more",
    )
    unembedding_scale: float = Field(
        1.0,
        gt=0,
        description="factor on the guard's lm_head at the start (paper: 1); a language model's logits are many times as large as "
        "rewards, and a small MRM does not unlearn that",
    )
    centred_verdicts: bool = Field(
        False,
        description="take the mean of the lm_head's rows of the two verdict words from both at the start (paper: no), as a guard "
        "has learnt to say one or the other and M would be highest for these words",
    )
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate (release: 1e-4)")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning-rate schedule")
    order: Literal["packed", "paper"] = Field(
        "packed", description="packed: all prefixes of a conversation in one causal pass; paper: one prefix per row, shuffled"
    )
    batch_size: int = Field(4, ge=1, description="rows per step: conversations if packed, prefixes if paper")
    epochs: float = Field(1.0, gt=0, description="passes over the training split")
    processes: int = Field(
        1, ge=1, description="processes that share the rows of each step, one GPU each (accelerate); at most batch_size"
    )
    draw: int = Field(
        0,
        ge=0,
        description="added to the training seed for the MRM's initialisation and the order of its rows: another draw of it alone",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints: what a killed training loses at most")
    evaluation_prefixes: int = Field(10_000, ge=1, description="held-out prefixes of Figure 4b")
    variants: dict[str, MRMVariant] = Field(
        default_factory=lambda: {"default": MRMVariant()}, description="models to train, by name"
    )

    @model_validator(mode="after")
    def _released_has_a_folder(self) -> MRM:
        if self.origin == "released" and self.released is None:
            raise ValueError("mrm.from is released: set mrm.released to the folder of the release")
        if "default" not in self.variants:
            raise ValueError("mrm.variants needs the entry default")
        for name, variant in self.variants.items():
            key, size = ("mrm.batch_size", self.batch_size)
            if variant.batch_size is not None:
                key, size = f"mrm.variants.{name}.batch_size", variant.batch_size
            if self.processes > size:
                raise ValueError(f"mrm.processes: {self.processes} processes cannot share {key} {size} rows")
        return self

    def of_variant(self, name: str) -> MRM:
        """The settings of one variant: its own keys in place of these, and no other variant beside it."""
        variant = self.variants[name]
        own = {key: getattr(variant, key) for key in type(variant).model_fields if key in type(self).model_fields}
        return self.model_copy(
            update={key: value for key, value in own.items() if value is not None} | {"variants": {name: variant}}
        )
