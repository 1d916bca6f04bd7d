"""Who says whether an attack succeeded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from saffron.config.base import remedy
from saffron.judges.base import JudgeError
from saffron.judges.discovery import kind
from saffron.section import Section

#: What the rows of tables hold under these names, beside what each judge says under its own.
COLUMNS = frozenset(
    {
        *("method", "settings_id", "budget", "n", "flops", "flops_per_model", "ratio", "within_tolerance"),
        *("knob", "value", "limit", "reward_calls", "n_new_tokens", "finished"),
    }
)


class Judge(Section):
    """One judge, or one measurement, of stored outputs."""

    name: str = Field(
        ..., pattern=r"^[a-z][a-z0-9_]*$", description="name of your choice: tables and figures say `by <name>`, paths have it"
    )
    kind: str = Field(..., description="a kind of judge that is there, or `module:function` (docs/judges.md)")
    settings: dict[str, Any] = Field(default_factory=dict, description="what differs from the kind's defaults")
    experiments: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="null: it judges every experiment and stands in every table; a list: these alone, with `make ablations`, in "
        "a table of its own",
    )

    @model_validator(mode="after")
    def _is_known(self) -> Judge:
        try:
            _ = self.settings_of_kind
        except JudgeError as error:
            raise ValueError(str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{self.name}: settings.{'.'.join(map(str, first['loc']))}: {remedy(first)}") from None
        if kind(self.kind).measures and self.experiments is None:
            raise ValueError(f"{self.name}: {self.kind} measures and judges nothing: name its experiments")
        return self

    @property
    def settings_of_kind(self) -> Any:
        """Its settings, all of them."""
        return kind(self.kind).settings.model_validate(self.settings)
