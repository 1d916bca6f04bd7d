"""What our pages show of results is made from the published records, and is up to date."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from saffron import pages
from saffron.analysis import paper
from saffron.figures import discovery
from saffron.pages import blocks, costs, headlines, picture, worlds
from saffron.pages.blocks import BlockError
from saffron.runs import publish

ROOT = Path(__file__).parents[2]
OURS = publish.published(ROOT)
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", pages.pages(ROOT), ids=str)
def test_pages_show_the_published_numbers(page: Path) -> None:
    """Without published records the blocks say so; either way the page is what `make publish` would write."""
    text = (ROOT / page).read_text("utf-8")
    assert blocks.regenerate(text, OURS) == text, "run `make docs`"


@pytest.mark.parametrize(
    ("path", "content"), picture.files(OURS), ids=lambda value: value.stem if isinstance(value, Path) else ""
)
def test_pictures_show_the_published_numbers(path: Path, content: bytes) -> None:
    assert (ROOT / path).read_bytes() == content, "run `make docs`"


def test_writing_mends_pages_and_pictures(tmp_path: Path) -> None:
    for name in ("docs", "data/reference", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    spoilt = README.replace("one seed", "no seed").replace("reproduced", "refuted")
    assert spoilt != README
    (tmp_path / "README.md").write_text(spoilt, "utf-8")
    drawn = tmp_path / "docs/pictures/figure2-dark.svg"
    drawn.unlink()
    pages.write(tmp_path)
    assert (tmp_path / "README.md").read_text("utf-8").split("<!-- generated: headlines all -->")[1].split("<!-- end -->")[
        0
    ] in README
    assert drawn.read_bytes() == (ROOT / "docs/pictures/figure2-dark.svg").read_bytes()
    assert (tmp_path / "docs/results.md").read_bytes() == (ROOT / "docs/results.md").read_bytes()


# ------------------------------------------------------------------------------------------------------------- README
def test_the_readme_is_of_one_screen_and_begins_with_picture_and_command() -> None:
    assert len(README.encode()) <= 8192
    assert README.index("<picture>") < README.index("```bash") < README.index("\n| ")
    assert "make replicate" in README.split("```bash")[1].split("```")[0]


def test_headlines_are_at_most_eight_claims_with_a_column_for_every_world() -> None:
    table = headlines.table(OURS)
    assert 1 <= len(table.rows) <= 8
    assert len(table.columns) == 2 + len(worlds.shown(OURS))
    statements = [claim["statement"] for claim in paper.claims() if claim["id"] in paper.headlines()]
    assert [row[0].startswith(statement.rstrip(".")) for row, statement in zip(table.rows, statements, strict=True)] == [
        True
    ] * len(statements)


def test_the_papers_own_numbers_follow_from_its_tables() -> None:
    printed = headlines.printed()
    table2 = paper.table("table2").set_index("method")
    assert printed["matched/scaling/once/saffron-best_of_n"] == pytest.approx(0.409 - 0.582)
    assert printed["matched/matched/once/best_of_n-rebase"] == pytest.approx(
        table2.loc["best_of_n", "ai2_refusals_asr"] - table2.loc["rebase", "ai2_refusals_asr"]
    )
    assert printed["exploration/scaleff/beam_search"] == pytest.approx(0.796 - 1.804)
    assert printed["exploration/scaleff/deal"] == pytest.approx(0.160 - 0.237)
    assert printed["mrm/r_squared"] == 0.9577
    assert 0.9 < printed["fit/scaling/once/saffron/r_squared"] < 1
    assert 2.5 < 2.718281828 ** printed["compute_ratio/scaling/fit/once/log"] < 3.5  # "about a third" of the compute


def run(config: str, seeds: int, value: float) -> dict[str, Any]:
    """A published record with one claim and one curve."""
    claim = {
        "id": "figure2.saffron_below_best_of_n",
        "verdict": "reproduced",
        "leaning": "as claimed",
        "seeds_as_claimed": [seeds, seeds],
    }
    ours = {"value": value, "low": value - 0.1, "high": value + 0.1, "exact": False}
    curves = {"guard": {"saffron": {"flops": [1e9, 2e9], "asr": [0.5, 0.25], "low": [0.4, 0.2], "high": [0.6, 0.3]}}}
    return {
        "config": config,
        "seeds": {"train": list(range(seeds))},
        "claims": [claim | {"quantities": [{"name": "a", "ours": ours}]}],
        "analysis": {"judges": ["guard"], "curves": curves},
        "settings": {"search": {"experiments": {}}},
        "tables": {"table1": f"of {config}"},
        "runtimes": {"total": {"wall_s": 6000.0, "cpu_s": 7200.0}},
    }


def test_a_world_is_shown_by_its_run_with_most_seeds_beside_the_other_worlds() -> None:
    ours = {"sandbox": run("sandbox", 1, -0.5), "sandbox-seeds": run("sandbox-seeds", 8, -0.3), "smollm": run("smollm", 1, -0.7)}
    table = headlines.table(ours)
    assert table.columns == ("claim", "the paper", "sandbox, 8 seeds", "SmolLM2, 1 seed")
    (row,) = [row for row in table.rows if row[2] != "–"]
    assert row[1:] == (
        "-0.173",
        "**reproduced (8 of 8 seeds)**: -0.300 [-0.400, -0.200]",
        "**reproduced (1 of 1 seeds)**: -0.700 [-0.800, -0.600]",
    )
    assert blocks.regenerate("<!-- generated: table1 world/sandbox -->\n<!-- end -->", ours).splitlines()[1] == "of sandbox-seeds"
    assert blocks.regenerate("<!-- generated: table1 sandbox -->\n<!-- end -->", ours).splitlines()[1] == "of sandbox"
    assert [panel.title for panel in picture.panels(ours)] == [
        "the paper",
        "sandbox, 8 training seeds",
        "SmolLM2, 1 training seed",
    ]
    assert "SmolLM2, 1 training seed: Saffron-1 from 0.50 at 1.00 GFLOP to 0.25 at 2.00 GFLOP." in picture.alt(ours)


def test_equal_records_give_equal_pictures() -> None:
    ours = {"sandbox": run("sandbox", 1, -0.5), "smollm": run("smollm", 1, -0.7)}
    drawn = dict(picture.files(ours))
    assert dict(picture.files(ours)) == drawn
    assert b"<date" not in b"".join(drawn.values()) and len(set(drawn.values())) == 2
    assert all(content != drawn[path] for path, content in picture.files({"sandbox": ours["sandbox"]}))


def test_costs_are_those_of_published_runs_and_planned_for_the_rest() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")[4].strip()
        for line in costs.markdown({"sandbox": run("sandbox", 1, 0)}).splitlines()[2:]
    }
    shipped = {path.stem for path in (ROOT / "config").glob("*.yaml")}
    assert rows.keys() <= shipped
    assert rows["sandbox"] == "1.7 h, 2.0 h of CPU time, measured"
    assert rows["sandbox-seeds"].endswith("estimated") and re.fullmatch(r"\d+ H100 hours, planned", rows["paper"])


# ------------------------------------------------------------------------------------------------------------- blocks
def test_a_block_of_an_ablation_that_was_not_run_names_the_command() -> None:
    text = "<!-- generated: ablation_top_p x -->\nold\n<!-- end -->"
    assert "make ablations CONFIG=x" in blocks.regenerate(text, {"x": {"config": "x", "tables": {}}})
    assert blocks.regenerate(text, {"x": {"config": "x", "tables": {"ablation_top_p": "new"}}}).splitlines()[1] == "new"


@pytest.mark.parametrize("of", ["sandbox", "world/sandbox"])
def test_a_block_of_an_unpublished_config_says_so(of: str) -> None:
    text = f"<!-- generated: claims {of} -->\n<!-- end -->"
    assert blocks.regenerate(text, {}).splitlines()[1] == "Not published yet (`make publish CONFIG=sandbox`)."


def test_the_headlines_of_nothing_published_say_so() -> None:
    assert headlines.markdown({}).startswith("Not published yet")


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        ("tabel1 sandbox", "'tabel1' is unknown"),
        ("headlined all", "'headlined' is unknown"),
        ("claims world/sandbx", "world/sandbox"),
    ],
)
def test_an_unknown_block_is_an_error(block: str, cause: str) -> None:
    with pytest.raises(BlockError, match=cause):
        blocks.regenerate(f"<!-- generated: {block} -->\n<!-- end -->", {})


def test_text_outside_blocks_is_untouched() -> None:
    text = "a <!-- end --> b\n<!-- generated: table1 x -->\nold\n<!-- end -->\n<!-- other -->\n"
    new = blocks.regenerate(text, {"x": {"config": "x", "tables": {"table1": "new"}}})
    assert new == text.replace("old", "new")


def test_results_pages_show_every_published_table_of_their_world() -> None:
    for world, record in worlds.shown(OURS):
        page = ROOT / f"docs/results-{world.name}.md"
        shown = set(re.findall(r"<!-- generated: (\w+) ", page.read_text("utf-8")))
        replicated = {name for name, exhibit in discovery.singles().items() if exhibit.group == "replicate"}
        assert shown >= {"run", "claims", "runtimes", *(record["tables"].keys() & replicated)}


def test_the_page_on_the_paper_lists_every_difference() -> None:
    text = (ROOT / "docs/paper.md").read_text("utf-8")
    topics = [difference["topic"] for difference in paper.differences()]
    assert len(topics) > 10
    assert [topic for topic in topics if f"| {topic} |" not in text] == []
