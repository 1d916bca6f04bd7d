"""The project's pages: what they and the code refer to is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Where the project's own text stands, below the root; what runs write stands elsewhere.
FOLDERS = ("benchmarks", "config", "data/reference/paper", "docs", "notebooks", "profiles", "src", "tests", "workflow")
TEXT = {"", ".md", ".py", ".smk", ".yaml", ".toml", ".ipynb", ".rst", ".sh", ".txt", ".cff"}

LINK = re.compile(r"\]\((?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]*))?\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
#: A page that the text names: one in capitals, or one below docs/.
NAMED = re.compile(r"(?<![\w/.-])(?:[\w.-]+/)*(?:[A-Z]{2,}\.md|docs/[\w-]+\.md)")


def own_files() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    return sorted(path for path in found if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts)


PAGES = [path for path in own_files() if path.suffix == ".md"]


def slug(title: str) -> str:
    """The anchor that a heading gets: small letters, hyphens for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(found["title"]) for found in HEADING.finditer(page.read_text("utf-8"))}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links of a page to a file or heading that is not there."""
    for link in LINK.finditer(text):
        if ":" in link["target"]:  # a web address
            continue
        target = page.parent / link["target"] if link["target"] else page
        headed = target.suffix == ".md"  # of a picture, what follows # tells the site when to show it
        if not target.exists() or (headed and link["anchor"] and link["anchor"] not in anchors(target)):
            yield link[0]


def absent_pages(file: Path, text: str) -> Iterator[str]:
    """Pages that a file names, by their path from the root or from its own folder, and that are not there."""
    for name in NAMED.findall(text):
        if not (ROOT / name).exists() and not (file.parent / name).exists():
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text("utf-8"))) == []


def test_no_file_names_a_page_that_is_not_there() -> None:
    files = own_files()
    assert {path.name for path in files} >= {"README.md", "Makefile", "compute.py", "common.smk", "figure.ipynb"}
    named = {path.relative_to(ROOT).as_posix(): sorted(set(absent_pages(path, path.read_text("utf-8")))) for path in files}
    assert {path: names for path, names in named.items() if names} == {}


def test_an_absent_page_is_found() -> None:
    page = ROOT / "README.md"
    missing = "ABSENT" + ".md"
    assert list(broken_links(page, f"[a](docs/{missing}) [b](#no-heading) [c](docs/paper.md#no-heading)")) == [
        f"](docs/{missing})",
        "](#no-heading)",
        "](docs/paper.md#no-heading)",
    ]
    assert list(broken_links(page, "[a](docs/paper.md#where-they-differ) [b](https://example.org/a) [c](LICENSE)")) == []
    assert list(absent_pages(page, f"({missing}, difference 2), {'docs/' + 'absent.md'}, README.md and config/README.md")) == [
        missing,
        "docs/" + "absent.md",
    ]


FENCED = re.compile(r"```\w+\n(.*?)```", re.DOTALL)
ROW = re.compile(r"^\| \[(?P<what>[^\]]+)\]\((?P<page>[\w.-]*)#[\w-]+\) \|[^|]+\| (?P<lines>\d+) \| 0 \|", re.MULTILINE)


def test_what_it_takes_to_bring_something_is_what_its_example_takes() -> None:
    """The examples themselves are run by the tests that the page names."""
    own = ROOT / "docs/bring-your-own.md"
    rows = {row["what"]: row for row in ROW.finditer(own.read_text())}
    bringing = {"a policy and a guard", "conversations and prompts", "a reader of rows"}
    assert set(rows) == bringing | {"a judge", "a search method", "a figure or table"}
    for what, row in rows.items():
        text = (own.parent / row["page"] if row["page"] else own).read_text()
        heading = "Add a judge" if row["page"] else what[0].upper() + what[1:]
        section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        lines = [line for block in FENCED.findall(section) for line in block.splitlines() if line.strip()]
        assert len(lines) == int(row["lines"]), what
