"""Saffron-1: tree search guided by a multifurcation reward model (Section 4; Eq. 2, 3 and 7)."""

from __future__ import annotations

from operator import not_
from typing import Literal

from pydantic import Field

from saffron.methods.base import Method, Model, Restrained, Rewarded, Size
from saffron.methods.cost import beam, grown

#: Candidates of a nucleus, where a plan has no finished run to count them in.
NUCLEUS = 8


class Settings(Restrained, Rewarded):
    """Search guided by a multifurcation reward model (Eq. 2, 3 and 7)."""

    top_p: float = Field(0.8, gt=0, le=1, description="nucleus of candidates")
    min_p: float = Field(
        0.0,
        ge=0,
        exclude_if=not_,
        le=1,
        description="candidates have at least this share of the likeliest token's probability (0: any share)",
    )
    noise_threshold: float = Field(
        0.0,
        ge=0,
        exclude_if=not_,
        lt=1,
        description="tokens of at most this probability are noise, left out before the nucleus (0: none are)",
    )
    diversity_weight: float = Field(
        0.0,
        ge=0,
        exclude_if=not_,
        description="weight of a bonus for candidates whose parents are unlike those chosen before (0: none)",
    )
    min_new_tokens: int = Field(16, ge=0, description="EOS is forbidden before this many new tokens")
    semantics: Literal["paper", "released"] = Field("paper", description="how children are rewarded, see README")
    conservative: bool = Field(True, description="unseen tokens score -1024 (Eq. 7)")
    eos_seen: bool = Field(True, description="count EOS as seen whatever the mask says (false: as unseen, as in the release)")
    scorer: Literal["mrm", "prm"] = Field("mrm", description="one MRM call per node, or one PRM call per candidate")
    mrm: str = Field("default", description="name in mrm.variants")


def reads(settings: Settings) -> frozenset[Model]:
    """The MRM, or in its place the guard."""
    return frozenset({"policy", "mrm"}) if settings.scorer == "mrm" else frozenset({"policy", "guard"})


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """One call of the MRM per node, the first of which reads the prompt; or one of the PRM per candidate."""
    if settings.scorer == "prm":
        return beam(size, NUCLEUS)
    length = size.new_tokens
    nodes = float(size.budget * (length - 1)) if size.calls is None else size.calls - 1
    return (
        grown(size.policy, size.policy_prompt, nodes, length - 1),
        grown(size.guard, size.mrm_prompt, nodes, length - 1),
    )


METHOD = Method(
    settings=Settings,
    search="saffron.methods.saffron.search:search",
    label="Saffron-1",
    order=60,
    colour="#D55E00",
    marker="o",
    budget="width",
    reads=reads,
    cost=cost,
    loaded_in_paper=4,  # what best fits Figure 2
    loaded_in_release=3,  # what the released script loads
    may_lack_reward=lambda settings: settings.semantics == "released",  # an unfinished answer carries none
)
