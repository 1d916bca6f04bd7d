"""A real model and real conversations through the whole workflow, a few prompts and steps of each."""

from __future__ import annotations

import os
from pathlib import Path

import drawing
import pytest
from dag.conftest import Project, copy

from saffron import config as configs
from saffron import records
from saffron.layout import Layout

DATA = "SAFFRON_HH_RLHF_DIR"


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run whose figures and report are drawn here, as the smoke run's are by the workflow."""
    if not os.environ.get(DATA):
        pytest.skip(f"set {DATA} to a folder with harmless-base-test.jsonl.gz")
    project = copy(tmp_path_factory.mktemp("smollm"))
    (project.root / "data/.packages").symlink_to(folder.parent)  # dequantised once for all tests
    layout = Layout("smollm-smoke", project.root)
    project.snakemake("--cores", "2", "search", "analysis", config="smollm-smoke")
    with drawing.small():
        drawing.draw(configs.load(layout.data / "config.yaml"), layout)
    return project


def test_every_stage_has_run_on_the_real_model(finished: Project) -> None:
    layout = Layout("smollm-smoke", finished.root)
    config = records.read_json(layout.model("policy", 0) / "config.json")
    assert (config["num_hidden_layers"], config["vocab_size"]) == (30, 49152)
    assert records.read_json(layout.model("guard", 0) / "config.json")["num_hidden_layers"] == 8
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    assert {"no_defense", "best_of_n", "saffron", "rebase", "beam_search", "deal"} == set(table["method"])
    for judge in ("guard", "refusals", "preference"):
        judged = records.read_table(layout.judgements(0, judge, "scaling"), records.JUDGEMENTS)
        assert len(judged) == len(table) and judged["success"].notna().all()
    assert "<html" in (finished.root / "figures/smollm-smoke/report.html").read_text()


def test_the_report_shows_none_of_the_conversations(finished: Project) -> None:
    layout = Layout("smollm-smoke", finished.root)
    page = Path(finished.root / "figures/smollm-smoke/report.html").read_text(encoding="utf-8")
    texts = records.read_table(layout.search(0, "scaling"), records.SEARCH)["text"]
    prompts = records.read_table(layout.prompts("harmless_a"), records.PROMPTS)["prompt"]
    shown = [text for text in (*texts, *prompts) if len(text) > 20 and text in page]
    assert len(texts) and len(prompts) and not shown


def test_every_row_of_the_source_is_accounted_for(finished: Project) -> None:
    record = records.read_json(Layout("smollm-smoke", finished.root).sources_record)
    rows = record["rows"]["splits.harmless"]
    assert rows["written"] == sum(rows["parts"].values()) == 120
    assert rows["written"] + sum(rows["dropped"].values()) + sum(rows["left_out"].values()) == rows["read"] == 2312
