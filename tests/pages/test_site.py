"""The site: every page is in its navigation, it is built without a warning, and no link or anchor of it is broken."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class Settings(yaml.SafeLoader):
    """YAML whose Python tags are left aside."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Settings)


def entries(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for item in nav.values():
            yield from entries(item)
    elif isinstance(nav, list):
        for item in nav:
            yield from entries(item)


def test_every_page_is_in_the_navigation_once() -> None:
    found = list(entries(SETTINGS["nav"]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(found) == sorted(there), "add the page to nav in mkdocs.yml"


def test_the_lock_of_the_site_pins_what_the_other_does_not() -> None:
    locks = {
        name: [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        for name in ("requirements.lock", "requirements-docs.lock")
    }
    names = {name: [line.split("==")[0].lower().replace("_", "-") for line in lines] for name, lines in locks.items()}
    assert all(line.count("==") == 1 for line in locks["requirements-docs.lock"])
    assert set(names["requirements.lock"]).isdisjoint(names["requirements-docs.lock"])
    assert {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"} <= set(names["requirements-docs.lock"])


class Page(HTMLParser):
    """Anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.untold: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.untold.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("the site's tools are not installed: make env-docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return folder


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path, built: dict[Path, Page]) -> None:
    assert len(built) == len(list(entries(SETTINGS["nav"])))
    broken = []
    for path, page in built.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchored = not parts.fragment or target not in built or unquote(parts.fragment) in built[target].anchors
            if not target.exists() or not (anchored or parts.fragment in ("only-light", "only-dark")):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(built: dict[Path, Page]) -> None:
    assert [load for page in built.values() for load in page.loads if urlsplit(load).netloc] == []


def test_every_picture_is_told_in_words(built: dict[Path, Page]) -> None:
    assert [picture for page in built.values() for picture in page.untold] == []


def test_the_search_knows_pages_and_the_api(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))["docs"]
    found = {entry["location"].split("#")[0] for entry in index if "multifurcation" in entry["text"]}
    assert {"method.html", "api.html"} <= found
    assert any("search_tokens" in entry["title"] for entry in index)


# ----------------------------------------------------------------------------------------------- what others need to join
@pytest.mark.parametrize("name", ["fault", "result"])
def test_reports_ask_for_what_doctor_prints(name: str) -> None:
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text("utf-8"))
    asked = {field["id"]: field for field in form["body"]}
    assert "saffron doctor" in asked["doctor"]["attributes"]["label"] and asked["doctor"]["validations"]["required"]


def test_forms_are_as_github_wants_them() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.name != "config.yml":
            assert form["name"] and form["description"]
            assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in form["body"])
