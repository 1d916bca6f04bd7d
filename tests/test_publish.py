from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saffron import config as configs
from saffron import provenance, publish, records
from saffron.analysis import paper
from saffron.layout import Layout
from saffron.publish import PublishError

ROOT = Path(__file__).parents[1]
CONFIG = configs.load(ROOT / "config/smoke.yaml")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A finished run from committed code, with stand-ins for its results."""
    layout = Layout("smoke", tmp_path)
    records.write_json(layout.analysis / "analysis.json", {"config": "smoke"})
    records.write_json(layout.analysis / "claims.json", [])
    for name in publish.PUBLISHED_TABLES:
        (layout.figures / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (layout.figures / f"{name}.md").write_text(f"| {name} |\n|---|\n")
    (layout.benchmarks / "search").mkdir(parents=True)
    (layout.benchmarks / "search/run.tsv").write_text("s\tmax_rss\n2.0\t10.0\n")
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "0123456789abcdef", "modified": False})
    provenance.write(CONFIG, layout)
    (tmp_path / "README.md").write_text("# Title\n\n<!-- generated: table1 smoke -->\nold\n<!-- end -->\nafter\n")
    return layout


def test_publishing_writes_the_record_and_the_readme(finished: Layout) -> None:
    publish.publish(CONFIG, finished)
    record = records.read_json(finished.root / "data/reference/ours/smoke.json")
    assert record["git"]["commit"] == "0123456789abcdef"
    assert record["config_sha256"] == provenance.config_sha256(CONFIG)
    assert record["hardware"]["cores"] >= 1
    assert record["runtimes"]["total"]["wall_s"] == 2.0
    readme = (finished.root / "README.md").read_text()
    assert readme == "# Title\n\n<!-- generated: table1 smoke -->\n| table1 |\n|---|\n<!-- end -->\nafter\n"


def test_publishing_twice_changes_nothing(finished: Layout) -> None:
    publish.publish(CONFIG, finished)
    before = {path: path.read_bytes() for path in (finished.root / "README.md", finished.root / "data/reference/ours/smoke.json")}
    publish.publish(CONFIG, finished)
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_output_is_not_published(finished: Layout) -> None:
    (finished.figures / "table1.md").write_text("tampered")
    with pytest.raises(PublishError, match=r"table1\.md: missing, or not what the run wrote"):
        publish.publish(CONFIG, finished)


def test_another_config_is_not_published(finished: Layout) -> None:
    other = configs.parse({**configs.as_dict(CONFIG), "train_seeds": [3]}, "other")
    with pytest.raises(PublishError, match="of another config"):
        publish.publish(other, finished)


def test_uncommitted_code_is_not_published(finished: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "0123456789abcdef", "modified": True})
    provenance.write(CONFIG, finished)
    with pytest.raises(PublishError, match="not committed"):
        publish.publish(CONFIG, finished)


def test_an_unfinished_run_is_not_published(finished: Layout) -> None:
    finished.provenance.unlink()
    with pytest.raises(records.RecordError, match=r"provenance\.json"):
        publish.publish(CONFIG, finished)


def test_a_block_of_an_ablation_that_was_not_run_names_the_command() -> None:
    text = "<!-- generated: ablation_top_p x -->\nold\n<!-- end -->"
    assert "make ablations CONFIG=x" in publish.regenerate(text, {"x": {"tables": {}}})
    assert publish.regenerate(text, {"x": {"tables": {"ablation_top_p": "new"}}}).splitlines()[1] == "new"


def test_a_block_of_an_unpublished_config_says_so() -> None:
    text = "<!-- generated: claims sandbox -->\n<!-- end -->"
    assert publish.regenerate(text, {}).splitlines()[1] == "Not published yet (`make publish CONFIG=sandbox`)."


def test_an_unknown_block_is_an_error() -> None:
    with pytest.raises(PublishError, match="'tabel1' is unknown"):
        publish.regenerate("<!-- generated: tabel1 sandbox -->\n<!-- end -->", {})


def test_text_outside_blocks_is_untouched() -> None:
    text = "a <!-- end --> b\n<!-- generated: table1 x -->\nold\n<!-- end -->\n<!-- other -->\n"
    new = publish.regenerate(text, {"x": {"tables": {"table1": "new"}}})
    assert new == text.replace("old", "new")


def published_records() -> list[Any]:
    return sorted((ROOT / publish.OURS).glob("*.json"))


@pytest.mark.parametrize("page", publish.PAGES, ids=str)
def test_every_page_shows_the_published_numbers(page: Path) -> None:
    """Without published records the blocks say so; either way a page is what `make publish` would write."""
    text = (ROOT / page).read_text("utf-8")
    assert publish.regenerate(text, publish.published(ROOT)) == text, "run `make docs`"


def test_the_page_on_the_paper_lists_every_difference() -> None:
    text = (ROOT / "docs/paper.md").read_text("utf-8")
    topics = [difference["topic"] for difference in paper.differences()]
    assert len(topics) > 10
    assert [topic for topic in topics if f"| {topic} |" not in text] == []


def test_published_records_name_their_config_commit_and_hardware() -> None:
    for path in published_records():
        record = json.loads(path.read_text())
        assert record["config"] == path.stem
        assert len(record["git"]["commit"]) == 40 and not record["git"]["modified"]
        assert record["hardware"]["cores"] >= 1


@pytest.mark.parametrize("path", sorted((ROOT / publish.OURS).glob("*.json")), ids=lambda path: path.stem)
def test_what_is_published_is_of_the_config_that_is_shipped(path: Path) -> None:
    shipped = configs.load(ROOT / f"config/{path.stem}.yaml")
    assert records.read_json(path)["config_sha256"] == provenance.config_sha256(shipped)
