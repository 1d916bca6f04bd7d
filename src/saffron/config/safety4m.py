"""How Safety4M is built."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from saffron.section import Section


class Safety4M(Section):
    """Token-level rewards for every response prefix."""

    max_tokens: int = Field(128, ge=2, description="each conversation is cut to its first tokens (paper: 128)")
    turns: Literal["first", "last", "all"] = Field(
        "last", description="which assistant turns are responses (last comes closest to the release's 36 targets per row)"
    )
    end_of_sequence: bool = Field(
        True,
        description="label EOS as the last token of a response that fits (false: EOS is never a target, as in the release)",
    )
    on_policy_share: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=lambda share: share == 0,
        description="share of the train split's rejected answers (of all its answers where none is rejected) that the policy "
        "rewrites under attack before they are labelled: after their first search.prefill_tokens tokens stand at most "
        "search.max_new_tokens of its own (paper: 0)",
    )
    shards: int = Field(1, ge=1, description="independent labelling jobs")
    block_size: int = Field(256, ge=1, description="responses per resumable block")
    batch_size: int = Field(
        16, ge=1, description="responses per forward pass (another size sums in another order: labels differ in their last bits)"
    )
