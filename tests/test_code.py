"""The digest of code: what a job can reach, by what it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron import code

FILES = {
    "__init__.py": "",
    "chat.py": "import made.config\nWORDS = 2\n",
    "other.py": "",
    "config.py": "",
    "models/__init__.py": "from made import chat, config\nfrom made.chat import WORDS\n",
    "models/hub.py": "import os\n",
    "search/__init__.py": "def run():\n    from made.models import hub\n",
    "search/runner.py": (
        "from typing import TYPE_CHECKING\nfrom made.search import base\nif TYPE_CHECKING:\n    from made import other\n"
    ),
    "search/base.py": '"""What a base is."""\n\n\ndef base(x):\n    """Add one."""\n    # to x\n    return x + 1\n',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package: search imports models inside a function, models imports chat, types come from other."""
    for name, text in FILES.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path / "made"
    forget()
    sys.modules.pop("made", None)


def forget() -> None:
    for function in (code.digest, code.imports, code._file, code._meaning):
        function.cache_clear()


def changed(path: Path, text: str) -> bool:
    """Whether writing a text changes the digest of the search."""
    before = code.digest("made.search.runner")
    path.write_text(text, encoding="utf-8")
    forget()
    return code.digest("made.search.runner") != before


def test_a_module_reaches_what_it_imports_as_it_runs(package: Path) -> None:
    assert code.modules("made.search.runner") == ["made.search.base", "made.search.runner"]
    assert code.modules("made.models") == ["made.chat", "made.config", "made.models"]
    assert code.modules("made.search") == ["made.models.hub", "made.search"]
    with pytest.raises(code.CodeError, match=r"made\.serach: no such module"):
        code.digest("made.serach")


@pytest.mark.parametrize(
    "text",
    [
        "def base(x):\n    return x + 1\n",
        '"""Other words."""\n\n\ndef base(x):\n    """Add 1, in other words."""\n\n\n    return (x + 1)  # a comment\n',
        "def base(\n    x,\n):\n    return x + 1\n",
    ],
)
def test_comments_docstrings_and_layout_are_no_code(package: Path, text: str) -> None:
    assert not changed(package / "search/base.py", text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("search/base.py", "def base(x):\n    return x + 2\n"),
        ("search/base.py", "def base(x, y=0):\n    return x + 1\n"),
        ("search/runner.py", "from made.search import base\nX = 1\n"),
    ],
)
def test_a_change_in_anything_reached_is_seen(package: Path, name: str, text: str) -> None:
    assert changed(package / name, text)


def test_what_is_not_reached_is_not_seen(package: Path) -> None:
    assert not changed(package / "other.py", "X = 1\n")
    assert not changed(package / "new.py", "X = 1\n")


@given(st.integers(), st.integers())
def test_two_constants_have_one_digest_if_and_only_if_they_are_equal(a: int, b: int) -> None:
    assert (code.digest_of_text(f"x = {a}  # a") == code.digest_of_text(f"x={b}")) == (a == b)


def test_a_notebooks_cells_reach_what_they_import() -> None:
    assert code.digest_of_text("from saffron.figures import style") != code.digest_of_text("from saffron import table")
