"""The rooms of the code, from the contract that ``make lint`` holds and from what each says of itself."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saffron.table import Table

_PACKAGE = Path(__file__).parents[1]


def floors(root: Path = _PACKAGE.parents[1]) -> list[list[str]]:
    """Rooms by floor, the uppermost first, as ``pyproject.toml`` orders them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.replace("|", ":").replace(" ", "").split(":") for layer in layers]


def _first_sentence(name: str) -> str:
    path = _PACKAGE / f"{name}.py" if (_PACKAGE / f"{name}.py").exists() else _PACKAGE / name / "__init__.py"
    said = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert said, f"{path} says nothing of itself"
    return said.partition("\n\n")[0].replace("\n", " ").replace("``", "`").replace(":mod:", "")


def markdown(_: Mapping[str, Any]) -> str:
    """Every room with its floor and what it holds."""
    rows = [
        (str(number), f"`{name}/`" if (_PACKAGE / name).is_dir() else f"`{name}.py`", _first_sentence(name))
        for number, names in zip(range(len(floors()), 0, -1), floors(), strict=True)
        for name in names
    ]
    return Table(("floor", "room", "what it holds"), tuple(rows)).markdown_rows()
