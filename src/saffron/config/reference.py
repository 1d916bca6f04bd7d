"""Generated from the config classes: the JSON schema and the key table of ``config/README.md``.

``make docs`` writes both; a test compares them with what the classes say now.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from saffron.config import Config, ConfigError

SCHEMA = Path("workflow/schemas/config.schema.json")
TABLE = Path("config/README.md")

_HEADER = """# Every key

A config says WHAT to run; one file holds a whole replication and inherits nothing. `saffron validate --config FILE` checks
one and `make replicate CONFIG=<name>` runs `config/<name>.yaml`. This table is generated from `src/saffron/config/`
by `make docs`; a test keeps both in step.

| config | what it is |
|---|---|
| `sandbox` | the default: a small benign world, tiny models, the whole pipeline on two CPU cores |
| `sandbox-seeds` | the same with eight training seeds |
| `smoke` | the same workflow end to end in a minute or so; its numbers mean nothing |
| `smollm` | a real model and real conversations on two CPU cores, some training seeds |
| `smollm-recipe` | which part of its MRM's recipe matters, on the development split |
| `smollm-smoke` | the same path, a few prompts and steps; its numbers mean nothing |
| `paper` | the paper's models and datasets, on GPUs |
| `paper-1b` | the same with the 1B policy, for one GPU of 24 GB |

`<name>` stands for a name of your choice, `[]` for each entry of a list.

| key | type | default | meaning |
|---|---|---|---|
"""


def schema() -> str:
    """The JSON schema of a config file, as text."""
    return json.dumps(Config.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"


def table() -> str:
    """``config/README.md``: every key with its type, default and meaning."""
    return _HEADER + "".join(
        f"| `{key}` | {kind} | {default} | {meaning} |\n" for key, kind, default, meaning in _rows(Config, "")
    )


def write(root: Path = Path()) -> None:
    """Write both files below the project root.

    Raises:
        ConfigError: outside a checkout, which alone has these pages.
    """
    if not (root / TABLE).exists() or not (root / SCHEMA).exists():
        raise ConfigError("this writes the project's own pages: run it in a checkout of the project")
    (root / SCHEMA).write_text(schema())
    (root / TABLE).write_text(table())


def _rows(section: type[BaseModel], prefix: str) -> typing.Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner, suffix = _sections_of(field.annotation)
        yield key, _kind(field.annotation), _default(field, inner), _escape(field.description or "")
        for one in inner:
            yield from _rows(one, f"{key}{suffix}.")


def _sections_of(annotation: Any) -> tuple[list[type[BaseModel]], str]:
    """The section classes that an annotation allows, and how their keys hang below: directly, by name or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], ""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _sections_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        found = [_sections_of(argument) for argument in arguments]
        return [one for sections, _ in found for one in sections], next((suffix for sections, suffix in found if sections), "")
    if origin is list:
        return _sections_of(arguments[0])[0], "[]"
    if origin is dict:
        return _sections_of(arguments[1])[0], ".<name>"
    return [], ""


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if argument is type(None) else _kind(argument) for argument in arguments))
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"mapping of {_kind(arguments[1])}"
    if annotation is Any:
        return "any value"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, "section")


def _default(field: FieldInfo, inner: list[type[BaseModel]]) -> str:
    if field.is_required():
        return "required"
    if inner and field.default is PydanticUndefined:
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    return f"`{json.dumps(value)}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
