"""Archive search: Saffron-1 that goes back to what its beam let go (Go-Explore: Ecoffet et al. 2019, arXiv 1901.10995)."""

from __future__ import annotations

from pydantic import Field

from saffron.methods.base import Method, Rewarded, Size
from saffron.methods.cost import grown


class Settings(Rewarded):
    """Saffron-1 that goes back to the most promising candidates that its beam let go (arXiv 1901.10995)."""

    returns: int = Field(1, ge=0, description="how often the beam is filled with passed-over candidates once all its places end")
    top_p: float = Field(0.8, gt=0, le=1, description="nucleus of candidates")
    min_new_tokens: int = Field(16, ge=0, description="EOS is forbidden before this many new tokens")
    conservative: bool = Field(True, description="unseen tokens score -1024 (Eq. 7)")
    mrm: str = Field("default", description="name in mrm.variants")


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """One call of the MRM per node. A full search: no place ends early, and every return goes back to the beginning."""
    length = size.new_tokens
    nodes = float(size.budget * (length - 1) * (1 + settings.returns)) if size.calls is None else size.calls - 1
    return (
        grown(size.policy, size.policy_prompt, nodes, length - 1),
        grown(size.guard, size.mrm_prompt, nodes, length - 1),
    )


METHOD = Method(
    settings=Settings,
    search="saffron.methods.archive_search.search:search",
    label="Archive search",
    order=75,
    colour="#999933",
    marker="X",
    budget="width",
    reads=lambda settings: frozenset({"policy", "mrm"}),
    cost=cost,
    loaded_in_paper=4,  # as Saffron-1
    loaded_in_release=3,
)
