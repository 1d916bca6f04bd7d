"""Reading a config: one message for everything that is wrong, with a remedy for each."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from saffron.config.base import ConfigError, remedy
from saffron.config.whole import Config


def parse(values: Any, where: str) -> Config:
    """Validate a resolved config (a mapping); ``where`` names its origin in errors.

    Raises:
        ConfigError: one line per problem, each with the key and the remedy.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: the config must be a mapping of sections, not {type(values).__name__}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_key(item) or '(top level)'}: {remedy(item)}" for item in error.errors()]
        raise ConfigError("\n".join([f"{where}: {len(lines)} problem(s) in the config:", *lines])) from None


def _key(item: Any) -> str:
    """The key of a problem, without the tags of ModelFile and GuardFile."""
    return ".".join(str(part) for part in item["loc"] if not str(part).startswith("("))


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which no key of a mapping stands twice, where plain YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1 and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        return super().construct_mapping(node, deep=deep)


def load(path: str | Path) -> Config:
    """Read and validate ``config/<name>.yaml``.

    Raises:
        ConfigError: if the file is missing, is not YAML or does not describe a replication.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except FileNotFoundError:
        known = sorted(item.stem for item in Path("config").glob("*.yaml"))
        close = difflib.get_close_matches(path.stem, known, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        there = f"config/ holds {', '.join(known)}" if known else "the shipped ones are in config/ of a checkout"
        raise ConfigError(f"{path}: no such config{meant}; {there}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    return parse(values, str(path))


def as_dict(section: BaseModel) -> dict[str, Any]:
    """A section as plain YAML values, under the names used in the file."""
    return json.loads(section.model_dump_json(by_alias=True))
