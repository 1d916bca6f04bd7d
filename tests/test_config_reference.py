from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from saffron.config import reference as config_reference

ROOT = Path(__file__).parents[1]


def test_schema_and_key_table_are_what_the_classes_say() -> None:
    assert (ROOT / config_reference.SCHEMA).read_text() == config_reference.schema(), "run `make docs`"
    assert (ROOT / config_reference.TABLE).read_text() == config_reference.table(), "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_fit_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), json.loads(config_reference.schema()))


def test_schema_refuses_an_unknown_key() -> None:
    values = yaml.safe_load((ROOT / "config/sandbox.yaml").read_text())
    values["search"]["blocksize"] = 4
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json.loads(config_reference.schema()))


def test_every_key_has_a_meaning() -> None:
    rows = [
        line.split(" | ")
        for line in config_reference.table().splitlines()
        if line.startswith("| `") and "." in line.split("`")[1]
    ]
    assert len(rows) > 100
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_every_word_that_a_key_takes_is_read_as_that_word() -> None:
    """YAML reads some words, such as true and no, as something else: such a value could not be written into a config."""
    words: set[str] = set()

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            words.update(word for word in [*part.get("enum", []), part.get("const")] if isinstance(word, str))
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            collect(inner)

    collect(json.loads(config_reference.schema()))
    assert words >= {"once", "per_model", "paper", "released", "cuda"}
    assert [word for word in sorted(words) if yaml.safe_load(word) != word] == []
