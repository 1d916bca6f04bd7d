"""The digest of code: what a job can reach, by what it does."""

from __future__ import annotations

import importlib
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
    for function in (code.digest, code.imports, code.names, code._file, code._meaning):
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


@pytest.mark.parametrize(
    ("importing", "reached"),
    [
        ("from .base import base\n", "made.search.base"),
        ("from . import base\n", "made.search.base"),
        ("from ..chat import WORDS\n", "made.chat"),
        ("from .. import chat\n", "made.chat"),
        ("def f():\n    from ..models import hub\n", "made.models.hub"),
    ],
)
def test_relative_imports_are_followed(package: Path, importing: str, reached: str) -> None:
    (package / "search/runner.py").write_text(importing)
    forget()
    assert reached in code.modules("made.search.runner")


def test_a_package_starts_its_relative_imports_at_itself(package: Path) -> None:
    (package / "search/__init__.py").write_text("from . import base\nfrom .. import other\n")
    forget()
    assert {"made.search.base", "made.other"} <= set(code.modules("made.search"))


def test_modules_of_the_users_beside_a_named_one_are_followed_and_libraries_are_not(package: Path) -> None:
    """As the helper of a judge that lies beside it, or is another top-level module of one distribution."""
    (package.parent / "judging.py").write_text("import helping\nimport numpy\nimport made.chat\nimport json\n")
    (package.parent / "helping.py").write_text("X = 1\n")
    forget()
    assert code.modules("judging") == ["helping", "judging", "made.chat", "made.config"]
    assert code.modules("saffron.table") == code.modules("saffron.table")  # of this package nothing else is asked


def test_a_file_that_is_no_python_is_named_with_its_line(package: Path) -> None:
    (package / "search/base.py").write_text("x = 1\ndef broken(:\n")
    forget()
    with pytest.raises(code.CodeError, match=r"made/search/base\.py, line 2: .*; mend it"):
        code.digest("made.search.runner")


DESCRIPTION = """
from saffron.section import Section

class Settings(Section):
    \"\"\"Words.\"\"\"
    least: int = 2

    @property
    def most(self):
        return self.least + 1

def cost(settings, size):
    return 1.0, 0.0

def helper(x):
    return x

METHOD = dict(label="Mine", cost=cost)
"""


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("self.least + 1", "self.least + 2", True),
        ("return x\n", "return -x\n", True),
        ('label="Mine"', 'label="Ours"', False),
        ("least: int = 2", "least: int = 3", False),  # its value stands in the job
        ("1.0, 0.0", "2.0, 0.0", False),
        ("Words.", "Other words.", False),
    ],
)
def test_of_a_description_what_its_settings_do_is_code(package: Path, old: str, new: str, seen: bool) -> None:
    def digest(text: str) -> str:
        (package / "described.py").write_text(text)
        forget()
        sys.modules.pop("made.described", None)
        importlib.invalidate_caches()
        return code.digest_of_settings(importlib.import_module("made.described").Settings)

    assert DESCRIPTION.count(old) == 1
    assert (digest(DESCRIPTION) != digest(DESCRIPTION.replace(old, new))) == seen


@given(st.integers(), st.integers())
def test_two_constants_have_one_digest_if_and_only_if_they_are_equal(a: int, b: int) -> None:
    assert (code.digest_of_text(f"x = {a}  # a") == code.digest_of_text(f"x={b}")) == (a == b)


def test_a_notebooks_cells_reach_what_they_import() -> None:
    assert code.digest_of_text("from saffron.figures import style") != code.digest_of_text("from saffron import table")
