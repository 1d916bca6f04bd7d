"""What a search method is: how it is described, what its search is given, and what it gives back.

A method is a folder with a description, ``METHOD`` in its ``__init__.py``, and a function in its ``search.py``. The
description loads no torch: a dry run, the validation of a config and ``saffron plan`` read it. The function searches one
:class:`Block` of prompts, written as ``propose → score → select`` on token tries (:mod:`saffron.engine.trie`). It draws no
random number except through the block's key, so its results do not depend on which prompts share a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import not_
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from saffron.section import Section

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from saffron.chat import ChatFormats
    from saffron.engine.compute import ModelShape
    from saffron.methods.random import RandomKey


# ---------------------------------------------------------------------------------------------------------- description
class Rewarded(Section):
    """Settings that every method with a reward model has."""

    reward_reads_prefill: bool = Field(
        False,
        description="whether the method's reward model (PRM or MRM) reads the prefilled tokens; the guard as judge has its own",
    )


class Restrained(Section):
    """Settings of a search that keeps its answers likely and free of repetition."""

    likelihood_weight: float = Field(
        0.0,
        ge=0,
        exclude_if=not_,
        description="beta: sequences are compared by reward + beta * their log probability under the policy",
    )
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        exclude_if=not_,
        description="n-grams of so many tokens occur once at most, the prompt's included (0: any may occur again)",
    )


@dataclass(frozen=True)
class Size:
    """One search of one prompt, as far as its nominal cost depends on it (tokens and calls are means over prompts).

    Attributes:
        budget: the run's.
        new_tokens: of each sequence.
        calls: reward calls that a finished run has counted; None before there is one: a full search, in which every place is
            taken, nothing ends early and no two sequences begin alike.
        policy_prompt, guard_prompt, mrm_prompt: tokens that each model reads before the response.
        guard_suffix: tokens that the guard reads after it.
        policy, guard: shapes; the MRM's is the guard's.
    """

    budget: int
    new_tokens: float
    calls: float | None
    policy_prompt: float
    guard_prompt: float
    mrm_prompt: float
    guard_suffix: int
    policy: ModelShape
    guard: ModelShape


@dataclass(frozen=True)
class Exploration:
    """What Table 1 varies.

    Attributes:
        knob: the setting.
        limit_ratio: ScalEff's limit as a multiple of the measured cost of the row that explores least.
        name_in_paper: the method's name in the paper's Table 1.
    """

    knob: str
    limit_ratio: float
    name_in_paper: str


Model = Literal["policy", "guard", "mrm"]
#: Marks of points that matplotlib knows by one character.
MARKERS = ".,ov^<>12348spP*hH+xXDd|_"


@dataclass(frozen=True)
class Method:
    """A search method, described once; the config, rules, plan, analysis, figures, tables and benchmarks read this.

    Attributes:
        settings: its section of the config, ``search.methods.<name>``; every key has a default.
        search: the function, ``module:name``. It is called as ``search(block, settings, budget)`` and gives one result per
            prompt, in order; with ``shared_budgets`` as ``search(block, settings, budgets)``, and gives those of the first
            budget, then those of the next.
        label: its name in figures and tables.
        order: its place in them.
        colour, marker: of its curves, as matplotlib names them.
        budget: what the integer means; None if the method has none, which makes it 0.
        reads: models that a search with these settings loads, beside the policy. It is given no other, and is not searched
            again for another one's sake. The setting ``mrm``, if there is one, says which MRM, and the setting ``others`` which
            stand beside it in an ensemble.
        cost: nominal FLOPs of one search of one prompt (policy, reward model), for ``saffron plan``.
        shared_budgets: whether smaller budgets are part of the largest, so that all of a run are searched in one call.
        loaded_in_paper: models alive in one search of the paper's code, each of which counts every operation again
            (``docs/paper.md``): the factor by which the paper's FLOPs exceed those counted once.
        loaded_in_release: the same in the released script, where it differs.
        draws: whether it draws tokens at random, at temperature 1.
        may_lack_reward: whether an output may come without a reward of the method's own.
        exploration: what Table 1 varies of it, if it is among its rows.
    """

    settings: type[Section]
    search: str
    label: str
    order: int
    colour: str
    marker: str
    budget: Literal["samples", "width"] | None
    reads: Callable[[Any], frozenset[Model]]
    cost: Callable[[Any, Size], tuple[float, float]]
    shared_budgets: bool = False
    draws: bool = False
    loaded_in_paper: int = 2
    loaded_in_release: int | None = None
    may_lack_reward: Callable[[Any], bool] = lambda settings: False
    exploration: Exploration | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.]+:\w+", self.search):
            raise MethodError(f"{self.label}: search must be module:function, not {self.search!r}")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise MethodError(f"{self.label}: colour must be # and six hex digits, not {self.colour!r}")
        if self.marker not in tuple(MARKERS):
            raise MethodError(f"{self.label}: marker must be one of {' '.join(MARKERS)}, not {self.marker!r}")
        if not (isinstance(self.settings, type) and issubclass(self.settings, Section)):
            raise MethodError(f"{self.label}: settings must be a class that extends saffron.section.Section")
        missing = [name for name, field in self.settings.model_fields.items() if field.is_required()]
        if missing:
            raise MethodError(f"{self.label}: settings {', '.join(missing)} need a default, so that a config may leave them out")
        try:
            settings = self.settings.model_validate(self.settings().model_dump())  # a default alone is not validated
        except ValueError as error:
            raise MethodError(f"{self.label}: its settings' own defaults are refused ({error}); correct them") from None
        unknown = sorted(set(self.reads(settings)) - set(get_args(Model)))
        if unknown:
            raise MethodError(f"{self.label}: reads {', '.join(unknown)}; there are {', '.join(get_args(Model))}")

    @property
    def summary(self) -> str:
        """One line on what it is and what its budget means."""
        what = (self.settings.__doc__ or self.label).strip().splitlines()[0].rstrip(".")
        return f"{self.label}: {what[0].lower()}{what[1:]}; its budget: {self.budget or 'none, so 0'}"

    @property
    def shown(self) -> dict[str, Any]:
        """What figures, tables and the analysis read of it, as values: part of their jobs, which a change of it runs again."""
        read = ("label", "order", "colour", "marker", "budget", "loaded_in_paper", "loaded_in_release", "draws")
        varied = None if self.exploration is None else asdict(self.exploration)
        return {name: getattr(self, name) for name in read} | {"exploration": varied}

    def mrms(self, settings: Any) -> list[str]:
        """The MRM variants that a search with these settings reads, none if it reads no MRM."""
        if "mrm" not in self.reads(settings):
            return []
        return [getattr(settings, "mrm", "default"), *getattr(settings, "others", ())]

    def multiplier(self, *, fitted: bool = True) -> int:
        """Factor by which the paper's way of counting exceeds FLOPs counted once (not ``fitted``: as the release loads)."""
        return self.loaded_in_paper if fitted else self.loaded_in_release or self.loaded_in_paper


class MethodError(ValueError):
    """A search method that is not there or not described as it must be; names it and the remedy."""


# --------------------------------------------------------------------------------------------------------------- search
@dataclass(frozen=True)
class SearchPrompt:
    """One prompt as each model reads it, up to where the new tokens are appended (token ids)."""

    prompt_id: int
    policy_ids: list[int]  # formatted prompt + prefilled tokens
    guard_ids: list[int]  # formatted prompt, + prefilled tokens if the method's reward_reads_prefill
    mrm_ids: list[int]  # the same in the MRM's format


@dataclass(frozen=True)
class SearchModels:
    """The models that a search reads, all on one device, and the chat formats with the verdict and EOS ids.

    There are those that METHOD.reads names, and the policy; the others are None.
    """

    policy: PreTrainedModel
    guard: PreTrainedModel | None
    formats: ChatFormats
    mrm: PreTrainedModel | None = None
    unseen: Tensor | None = None  # bool [V]: tokens the MRM never saw as a target
    others: tuple[PreTrainedModel, ...] = ()  # MRMs beside it in an ensemble


@dataclass(frozen=True)
class Block:
    """What one search is given: prompts that are searched together, the models, random numbers and the token limit.

    ``steps`` goes over the steps of a search; who shows progress counts them on the way.
    """

    models: SearchModels
    prompts: Sequence[SearchPrompt]
    key: RandomKey
    max_new_tokens: int
    steps: Callable[[range], Iterable[int]] = iter


@dataclass(frozen=True)
class Result:
    """The output of one prompt at one budget, and what it cost (FLOPs of this prompt alone, see saffron.engine.compute)."""

    prompt_id: int
    budget: int
    output_ids: list[int]  # new tokens after the prefill, EOS included when reached
    reward: float | None  # the method's own reward of its output; None if it has none
    finished: bool  # whether the output ends with EOS (else it reached the length limit)
    flops_policy: float
    flops_reward: float
    flops_executed_policy: float
    flops_executed_reward: float
    reward_calls: int
