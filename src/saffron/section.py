"""What every section of a config is, and the pinned files that several of them name."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are not silently converted, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True, allow_inf_nan=False)


class HubFile(Section):
    """One dataset or model on the hub, pinned, or a local mirror of it."""

    id: str = Field(..., pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, owner/name")
    revision: str | None = Field(
        None, description="commit the id is pinned to, 40 hex digits (null: path or, for a dataset, sha256 needed)"
    )
    path: str | None = Field(None, description="local folder to read instead of the hub (an offline mirror)")

    @field_validator("revision")
    @classmethod
    def _is_a_commit(cls, revision: str | None) -> str | None:
        if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                f"needs the 40 hex digits of a commit, not {revision!r}: copy one from the repository's commits on the hub"
            )
        return revision
