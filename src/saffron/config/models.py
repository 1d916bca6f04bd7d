"""Which models there are, and how those are made that are made here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from saffron.section import HubFile, Section


class Architecture(Section):
    """Size of a sandbox model (Llama architecture)."""

    hidden_size: int = Field(..., ge=8, description="width")
    layers: int = Field(..., ge=1, description="decoder layers")
    heads: int = Field(..., ge=1, description="attention heads")
    kv_heads: int = Field(..., ge=1, description="key/value heads (grouped-query attention)")
    intermediate_size: int = Field(..., ge=8, description="width of the feed-forward layer")

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError("hidden_size must be a multiple of heads, and heads of kv_heads")
        return self


class Optimisation(Section):
    """One training phase."""

    steps: int = Field(..., ge=1, description="optimizer steps")
    batch_size: int = Field(..., ge=1, description="dialogues per step")
    learning_rate: float = Field(..., gt=0, description="peak learning rate, cosine decay")


class SandboxModels(Section):
    """Tokenizer, policy, guard and the DeepAlign policy of the sandbox, trained from scratch."""

    vocab_size: int = Field(1280, ge=300, description="size of the byte-level BPE vocabulary")
    policy: Architecture = Field(..., description="size of the policy")
    policy_pretraining: Optimisation = Field(..., description="language modelling on the world's dialogues")
    policy_safety: Optimisation = Field(..., description="shallow safety tuning")
    guard: Architecture = Field(..., description="size of the guard")
    guard_question: str = Field(
        ...,
        min_length=1,
        description="what the guard is asked after every candidate; its length sets the price of a reward call (tested)",
    )
    guard_training: Optimisation = Field(..., description="language modelling and verdicts at every prefix")
    guard_outcome_share: float = Field(
        ...,
        ge=0,
        le=1,
        description="q: share of prefixes before a turn-back labelled by the final outcome, not by the content so far",
    )
    deepalign_training: Optimisation = Field(..., description="safety-recovery tuning of the DeepAlign policy (section 5.6)")


class ChatText(Section):
    """One model's chat format as text; a control token stands by its name (``<|im_start|>``)."""

    template: bool = Field(
        False,
        description="take what stands around prompt and response from the tokenizer's own chat template (the guard's: around an "
        "exchange, with the header of the answer that follows)",
    )
    prefix: str = Field("", description="text before the prompt, the control token that begins a text included")
    infix: str = Field("", description="text between prompt and response")
    suffix: str = Field("", description="text after the response, up to where the verdict comes; with template: text after it")

    @model_validator(mode="after")
    def _said_once(self) -> ChatText:
        if self.template and (self.prefix or self.infix):
            raise ValueError("template: true says what prefix and infix would; remove one or the other")
        return self


class ChatTexts(Section):
    """The chat formats of policy, guard and MRM as text, and the guard's verdicts."""

    policy: ChatText = Field(..., description="the policy's format")
    guard: ChatText = Field(..., description="the guard's format")
    mrm: ChatText | None = Field(None, description="the MRM's format (null: the guard's without its suffix)")
    safe: str = Field("safe", min_length=1, description='the guard\'s word for a safe answer, one token; it may be " safe"')
    unsafe: str = Field("unsafe", min_length=1, description="the guard's word for an unsafe answer, one token")
    eos: str | None = Field(None, min_length=1, description="token that ends the policy's answer (null: the tokenizer's own)")

    @model_validator(mode="after")
    def _verdict_can_be_asked(self) -> ChatTexts:
        if not (self.guard.template or self.guard.suffix):
            raise ValueError(
                "guard.suffix is empty, but the verdict is read behind it: write the text after which the guard answers, as "
                r'"<|im_end|>\n<|im_start|>assistant\n", or set guard.template: true'
            )
        if self.safe == self.unsafe:
            raise ValueError(f"safe and unsafe are both {self.safe!r}; a verdict needs two words")
        return self


def _texts_or_file(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """A mapping is formats as text, and what is wrong in it is said of its own keys alone."""
    if isinstance(value, dict):
        return ChatTexts.model_validate(value)
    if value is None or isinstance(value, (str, ChatTexts)):
        return inner(value)
    raise ValueError(f"formats are text (policy, guard, mrm, safe, unsafe) or the name of a file of token ids, not {value!r}")


class PackageModel(Section):
    """A model that lies in an installed Python package as one GGUF file."""

    package: str = Field(..., pattern=r"^[\w.-]+$", description="name of the package, which must be installed")
    gguf: str = Field(..., pattern=r"^[\w./-]+\.gguf$", description="the file within it, from the folder of packages on")
    sha256: str = Field(..., pattern=r"^[0-9a-f]{64}$", description="its digest")

    @property
    def id(self) -> str:
        """What cards and records call it."""
        return f"{self.gguf.rpartition('/')[2]} of the package {self.package}"


class PolicySafety(Optimisation):
    """A short refusal tuning of the policy on the train split."""

    freeze: int = Field(0, ge=0, description="first layers that stay as they are, as embeddings and lm_head always do")
    max_tokens: int = Field(128, ge=16, description="prompts and replayed answers are cut to their first tokens")


class TruncatedGuard(Section):
    """A guard made of the policy's first layers, trained to answer a verdict word after any prefix of a response."""

    origin: Literal["truncated"] = Field("truncated", alias="from", description="how it is made")
    of: Literal["policy"] = Field("policy", description="the model whose first layers, final norm and lm_head it takes (untuned)")
    layers: int = Field(..., ge=1, description="how many layers")
    freeze: int = Field(0, ge=0, description="first layers that stay as they are, as embeddings and lm_head always do")
    labels: Literal["refusals", "preference"] = Field(
        "refusals",
        description="what is called safe: an answer that declines in so many words (a guard of refusals, not of harm), or one "
        "that people preferred",
    )
    max_tokens: int = Field(128, ge=16, description="each conversation is cut to its first tokens, as for safety4m")
    training: Optimisation = Field(..., description="responses of the train split, each with verdicts at some of its prefixes")

    @model_validator(mode="after")
    def _something_is_trained(self) -> TruncatedGuard:
        if self.freeze >= self.layers:
            raise ValueError(f"freeze is {self.freeze} of {self.layers} layers: nothing would learn; freeze fewer")
        return self

    @property
    def id(self) -> str:
        """What cards and records call it."""
        return f"the policy's first {self.layers} layers, trained on {self.labels}"


def _by(tags: dict[str, str]) -> Discriminator:
    """Tell classes of one key apart by a key that only one of them has, so that an error speaks of that class alone."""

    def tag(value: Any) -> str:
        given = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, BaseModel) else ()
        return next((name for key, name in tags.items() if key in given), "(hub)")

    return Discriminator(tag)


#: Tags of those classes; in round brackets, so that no message shows them.
ModelFile = Annotated[Annotated[HubFile, Tag("(hub)")] | Annotated[PackageModel, Tag("(package)")], _by({"package": "(package)"})]
GuardFile = Annotated[
    Annotated[HubFile, Tag("(hub)")] | Annotated[TruncatedGuard, Tag("(truncated)")],
    _by({"from": "(truncated)", "layers": "(truncated)"}),
]


class HubModels(Section):
    """The paper's models, or others in their place."""

    policy: ModelFile = Field(..., description="the policy: from the hub, or from a Python package")
    policy_safety: PolicySafety | None = Field(
        None,
        description="a short refusal tuning of the policy, for one that hardly declines on its own: refusals are learnt, and "
        "rejected answers replayed without their first tokens (null: none)",
    )
    policy_format: str = Field("llama3_policy", description="the policy's entry in chat_formats.json")
    guard: GuardFile = Field(
        ..., description="PRM, judge and the MRM's initialisation: Llama Guard 3 1B, or the policy's own first layers"
    )
    device_map: Literal["auto"] | None = Field(
        None,
        description="auto: accelerate puts weights straight on the GPU (null: by way of host memory); either way a model that "
        "one GPU does not hold is refused",
    )
    other_guard: TruncatedGuard | None = Field(
        None, description="a guard that no search reads, for a judge other_guard without a checkpoint (null: none)"
    )
    chat_formats: Annotated[str | ChatTexts | None, WrapValidator(_texts_or_file)] = Field(
        None, description="chat formats of another model family: as text, or a file of token ids (null: the paper's)"
    )
    control_tokens_in_text: bool = Field(
        False,
        description="true: what reads like a control token (<|eot_id|>) in prompts and answers becomes one, as in the released "
        "code; false: it stays text",
    )


class Models(Section):
    """Policy and guard."""

    origin: Literal["sandbox", "hub"] = Field(..., alias="from", description="sandbox trains tiny models, hub pins the paper's")
    sandbox: SandboxModels | None = Field(None, description="sizes and training of the sandbox models")
    hub: HubModels | None = Field(None, description="ids and revisions of the paper's models")

    @model_validator(mode="after")
    def _section_of_origin(self) -> Models:
        if getattr(self, self.origin) is None:
            raise ValueError(f"models.from is {self.origin}: add the section models.{self.origin}")
        return self

    @property
    def device_map(self) -> Literal["auto"] | None:
        """How weights are placed; sandbox models are too small to matter."""
        return self.hub.device_map if self.hub is not None and self.origin == "hub" else None
