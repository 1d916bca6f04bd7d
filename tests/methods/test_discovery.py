"""The methods' descriptions: found, checked, and the only place that knows a method's name."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from pydantic import Field, model_validator

from saffron import config as configs
from saffron import plugins
from saffron.config import ConfigError
from saffron.methods import discovery, rebase
from saffron.methods.base import MethodError, Rewarded

ROOT = Path(__file__).parents[2]


def test_every_folder_is_a_method_and_they_are_told_apart() -> None:
    found = discovery.methods()
    folders = {path.parent.name for path in (ROOT / "src/saffron/methods").glob("*/__init__.py")}
    assert set(found) == folders
    assert [method.order for method in found.values()] == sorted(method.order for method in found.values())
    for name in ("order", "label", "colour", "marker", "search"):
        assert len({getattr(method, name) for method in found.values()}) == len(found)
    assert all(callable(discovery.search(name)) for name in found)
    assert discovery.ordered(reversed(list(found))) == list(found)


def test_multipliers_of_counting_per_model() -> None:
    assert {name: method.multiplier() for name, method in discovery.methods().items() if method.multiplier() != 2} == {
        "saffron": 4,
        "saffron_ensemble": 4,
        "selective_saffron": 4,
        "archive_search": 4,
    }
    assert discovery.method("saffron").multiplier(fitted=False) == 3
    assert discovery.method("best_of_n").multiplier(fitted=False) == 2
    with pytest.raises(MethodError, match="no search method 'unknown'; known: no_defense, "):
        discovery.method("unknown")


def test_only_what_a_search_reads_is_its_mrm() -> None:
    saffron = discovery.method("saffron")
    assert saffron.mrms(saffron.settings(mrm="other")) == ["other"]  # type: ignore[call-arg]
    assert saffron.mrms(saffron.settings(mrm="other", scorer="prm")) == []  # type: ignore[call-arg]
    ensemble = discovery.method("saffron_ensemble")
    assert ensemble.mrms(ensemble.settings(mrm="one", others=["two", "three"])) == ["one", "two", "three"]  # type: ignore[call-arg]
    reading = replace(rebase.METHOD, reads=lambda settings: frozenset({"policy", "mrm"}))
    assert reading.mrms(reading.settings()) == ["default"]  # it has no key for another one


class Needy(Rewarded):
    """A key without a default."""

    depth: int = Field(..., description="needed")


class OutOfBounds(Rewarded):
    """A default that its own bounds refuse."""

    width: int = Field(0, ge=1, description="at least 1")


class Contrary(Rewarded):
    """Keys whose defaults do not go together."""

    @model_validator(mode="after")
    def _never(self) -> Contrary:
        raise ValueError("never")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": "somewhere"}, r"Rebase: search must be module:function, not 'somewhere'"),
        ({"colour": "red"}, r"Rebase: colour must be # and six hex digits, not 'red'"),
        ({"settings": Needy}, r"Rebase: settings depth need a default"),
        ({"marker": "Q"}, r"Rebase: marker must be one of .*, not 'Q'"),
        ({"marker": "ov"}, r"Rebase: marker must be one of .*, not 'ov'"),
        ({"settings": dict}, r"Rebase: settings must be a class that extends saffron\.section\.Section"),
        ({"settings": OutOfBounds}, r"(?s)Rebase: its settings' own defaults are refused \(.*width"),
        ({"reads": lambda settings: frozenset({"gaurd"})}, r"Rebase: reads gaurd; there are policy, guard, mrm"),
        ({"settings": Contrary}, r"(?s)Rebase: its settings' own defaults are refused \(.*never.*\); correct them"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        replace(rebase.METHOD, **change)  # type: ignore[arg-type]


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, discovery.GROUP)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of installed distributions."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])
    discovery.methods.cache_clear()
    yield points
    discovery.methods.cache_clear()


def test_an_entry_point_is_a_method(installed: list[EntryPoint]) -> None:
    installed.append(entry("rebased", "saffron.methods.rebase:METHOD"))
    assert discovery.method("rebased") is rebase.METHOD


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "rebase",
            "saffron.methods.deal:METHOD",
            r"search method rebase: two of this name, saffron.methods.deal:METHOD and the one of this package; rename",
        ),
        ("My-Method", "saffron.methods.deal:METHOD", r"search method 'My-Method' .*lower-case letters, digits and _ alone"),
        ("mine", "saffron.methods.deal:cost", r"search method mine: saffron.methods.deal:cost is a function, not a Method"),
        (
            "mine",
            "no_such:METHOD",
            r"search method mine: no_such:METHOD cannot be loaded \(ModuleNotFoundError: .*mend or remove",
        ),
        ("mine", "saffron.methods.deal:NONE", r"search method mine: .*:NONE cannot be loaded \(AttributeError: "),
    ],
)
def test_entry_points_are_checked(installed: list[EntryPoint], name: str, value: str, message: str) -> None:
    installed.append(entry(name, value))
    with pytest.raises(MethodError, match=message):
        discovery.methods()


def test_a_search_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"lost": replace(rebase.METHOD, search="saffron.methods.rebase.search:lost")}
    monkeypatch.setattr(discovery, "methods", lambda: lost)
    with pytest.raises(MethodError, match=r"search method lost: saffron.methods.rebase.search:lost is not there"):
        discovery.search("lost")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            "saffron.methods.rebase.serach:search",
            r"\(saffron\.methods\.rebase\.serach: no such module\); correct its METHOD\.search",
        ),
        ("saffron.methods.rebase.search:serach", r"\(saffron\.methods\.rebase\.search has no serach\); correct its METHOD"),
        ("no_such_package.search:search", r"\(no_such_package\.search: no such module"),
    ],
)
def test_a_search_that_is_not_there_is_refused_when_the_config_is_read(
    search: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {**discovery.methods(), "rebase": replace(rebase.METHOD, search=search)}
    monkeypatch.setattr(discovery, "methods", lambda: described)
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text("utf-8"))
    with pytest.raises(
        ConfigError, match=rf"runs\[rebase-default\]: search method rebase: {re.escape(search)} is not there {message}"
    ):
        configs.parse(values, "test")


def test_every_shipped_search_is_found_by_its_text() -> None:
    for name in discovery.methods():
        discovery.require_search(name)


def test_what_a_search_imports_and_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "searching_mine.py").write_text(
        "import no_such_library\n\n\ndef search(block, settings, budget):\n    return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lost = {"lost": replace(rebase.METHOD, search="searching_mine:search")}
    monkeypatch.setattr(discovery, "methods", lambda: lost)
    with pytest.raises(MethodError, match=r"'no_such_library'\); install or mend what searching_mine imports"):
        discovery.search("lost")


def test_descriptions_load_no_torch() -> None:
    code = (
        "import sys, saffron.config, saffron.workflow; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _sources() -> Iterator[tuple[str, str]]:
    """Every Python text of the project outside the methods' own folders and the tests, and where it stands."""
    for folder in ("src", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.parts[:3] != ("src", "saffron", "methods") or len(inside.parts) == 4:
                yield str(inside), path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
        yield f"notebooks/{path.name}", "\n".join("".join(cell["source"]) for cell in cells)


def test_no_list_of_methods_stands_anywhere_else() -> None:
    """No literal and no type names two methods or more: each is described in its own folder, everybody else asks."""
    names, wrong = set(discovery.methods()), []
    for where, text in _sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.List | ast.Tuple | ast.Set):
                parts: list[ast.expr | None] = list(node.elts)
            elif isinstance(node, ast.Dict):
                parts = [*node.keys, *node.values]
            else:
                continue
            named = {part.value for part in parts if isinstance(part, ast.Constant)} & names
            if len(named) > 1:
                wrong.append(f"{where}:{node.lineno}: {sorted(named)}")
    assert wrong == []


def test_rules_name_no_method() -> None:
    text = "".join(path.read_text("utf-8") for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")])
    assert [name for name in discovery.methods() if f'"{name}"' in text] == []
