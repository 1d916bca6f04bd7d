from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic_results
import yaml
from markupsafe import escape
from safetensors.numpy import load_file, save_file

from saffron import cli, records
from saffron import config as configs
from saffron.analysis import stage as analysis
from saffron.analysis.view import View
from saffron.config import Config
from saffron.layout import Layout
from saffron.pages import blocks
from saffron.runs import provenance, publish, report
from saffron.runs.publish import PublishError

ROOT = Path(__file__).parents[2]
CONFIG = configs.load(ROOT / "config/smoke.yaml")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A finished run from committed code, with stand-ins for its results."""
    layout = Layout("smoke", tmp_path)
    records.write_json(layout.analysis / "analysis.json", {"config": "smoke"})
    records.write_json(layout.analysis / "claims.json", [])
    for name in publish.table_names(CONFIG):
        (layout.figures / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (layout.figures / f"{name}.md").write_text(f"| {name} |\n|---|\n")
    (layout.benchmarks / "search").mkdir(parents=True)
    (layout.benchmarks / "search/run.tsv").write_text("s\tmax_rss\n2.0\t10.0\n")
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "0123456789abcdef", "modified": False})
    provenance.write(CONFIG, layout)
    return layout


def test_publishing_writes_the_record(finished: Layout) -> None:
    publish.publish(CONFIG, finished)
    record = records.read_json(finished.root / "data/reference/ours/smoke.json")
    assert record["git"]["commit"] == "0123456789abcdef"
    assert record["config_sha256"] == provenance.config_sha256(CONFIG)
    assert record["hardware"]["cores"] >= 1
    assert record["runtimes"]["total"]["wall_s"] == 2.0
    assert record["tables"]["table1"] == "| table1 |\n|---|\n"


def test_publishing_twice_changes_nothing(finished: Layout) -> None:
    publish.publish(CONFIG, finished)
    path = finished.root / "data/reference/ours/smoke.json"
    before = path.read_bytes()
    publish.publish(CONFIG, finished)
    assert path.read_bytes() == before


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


RECORDS = sorted((ROOT / publish.OURS).glob("*.json"))
RUNS = [path for path in RECORDS if not path.stem.endswith(publish.REDRAWS)]


def test_published_records_name_their_config_commit_and_hardware() -> None:
    for path in RECORDS:
        record = json.loads(path.read_text())
        assert record["config"] == path.stem.removesuffix(publish.REDRAWS)
        assert len(record["git"]["commit"]) == 40 and not record["git"]["modified"]
    assert all(json.loads(path.read_text())["hardware"]["cores"] >= 1 for path in RUNS)


# ------------------------------------------------------------------------------------------ beside the published numbers
@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A run of made-up results and two redraws of it, analysed, in a folder where two training seeds are published."""
    root = tmp_path_factory.mktemp("made")
    base, seeds = synthetic_results.config("made", prompts=12), synthetic_results.config("made-seeds", prompts=12, seeds=(0, 1))
    for config in (base, seeds):
        layout = Layout(config.name, root)
        synthetic_results.write(config, layout)
        analysis.run(config, layout)
    for config in (_redraw(base, "made-draw1", "mrm", draw=1), _redraw(base, "made-labels", "safety4m", batch_size=8)):
        own = Layout(config.name, root)
        shutil.copytree(root / "data/made", own.data)
        (own.data / "config.yaml").write_text(yaml.safe_dump(configs.as_dict(config)))
        analysed = own.analysis / "analysis.json"
        analysed.write_text(analysed.read_text().replace('"data/made/', f'"data/{config.name}/'))
        head = own.mrm(0) / "head.safetensors"  # another MRM
        save_file({name: tensor + (name == "lm_head_bias") for name, tensor in load_file(head).items()}, head)
    (root / "data/made/config.yaml").write_text(yaml.safe_dump(configs.as_dict(base)))
    record = {"config": "made-seeds", "settings": configs.as_dict(seeds), "seeds": {"train": [0, 1]}, "tables": {}}
    record |= {"hardware": {"processor": "a processor"}, "analysis": records.read_json(layout.analysis / "analysis.json")}
    records.write_json(root / publish.OURS / "made-seeds.json", record)
    return base, root


@pytest.fixture
def made(analysed: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Layout]:
    """The same in a folder of its own, from committed code."""
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "0123456789abcdef", "modified": False})
    config, root = analysed
    shutil.copytree(root, tmp_path / "run")
    return config, Layout(config.name, tmp_path / "run")


def _redraw(config: Config, name: str, section: str, **values: Any) -> Config:
    changed = configs.as_dict(config) | {"name": name}
    changed[section] |= values
    return configs.parse(changed, name)


def test_redraws_are_published_and_stand_in_the_records_of_their_world(made: tuple[Config, Layout]) -> None:
    config, layout = made
    assert "redraws" not in publish.published(layout.root)["made-seeds"]
    publish.publish_redraws(config, layout, ["made-draw1", "made-labels"])
    ours = publish.published(layout.root)
    assert set(ours) == {"made-seeds", "release"}
    draws = ours["made-seeds"]["redraws"]["draws"]
    assert {name: draw["changed"] for name, draw in draws.items()} == {
        "made": {},
        "made-draw1": {"mrm.draw": 1},
        "made-labels": {"safety4m.batch_size": 8},
    }
    own = records.read_json(layout.analysis / "analysis.json")["quantities"]["matched_asr/scaling/once/saffron"]["per_seed"]
    assert all(draw["values"]["matched_asr/scaling/once/saffron"] == own for draw in draws.values())
    file = layout.root / publish.OURS / "made-redraws.json"
    before = file.read_bytes()
    assert len(before) < 15_000 * len(draws)  # numbers and verdicts, not whole analyses
    publish.publish_redraws(config, layout, ["made-draw1", "made-labels"])
    assert file.read_bytes() == before


def test_what_is_no_redraw_is_refused(made: tuple[Config, Layout], monkeypatch: pytest.MonkeyPatch) -> None:
    config, layout = made
    with pytest.raises(PublishError, match=r"made/config\.yaml: differs in nothing; a redraw of made differs in mrm\.draw or"):
        publish.publish_redraws(config, layout, ["made"])
    own = layout.root / "data/made-draw1"
    (own / "config.yaml").write_text(
        yaml.safe_dump(configs.as_dict(_redraw(config, "made-draw1", "mrm", draw=1, epochs=9.0, lora_rank=8)))
    )
    with pytest.raises(PublishError, match=r"config\.yaml: differs in mrm\.epochs, mrm\.lora_rank; a redraw"):
        publish.publish_redraws(config, layout, ["made-draw1"])
    head = "mrm/seed0/default/head.safetensors"
    (layout.root / "data/made-labels" / head).write_bytes((layout.data / head).read_bytes())
    with pytest.raises(PublishError, match=r"the same MRM as that of made, so no other draw"):
        publish.publish_redraws(config, layout, ["made-labels"])
    with pytest.raises(configs.ConfigError, match="no such config"):
        publish.publish_redraws(config, layout, ["made-draw7"])
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "0123456789abcdef", "modified": True})
    with pytest.raises(PublishError, match="not committed"):
        publish.publish_redraws(config, layout, ["made-draw1"])
    assert not (layout.root / publish.OURS / "made-redraws.json").exists()


def test_variants_stand_beside_their_run_with_their_verdicts(made: tuple[Config, Layout]) -> None:
    config, layout = made
    own = layout.root / "data/made-draw1"
    varied = _redraw(config, "made-draw1", "mrm", draw=1, epochs=9.0)
    (own / "config.yaml").write_text(yaml.safe_dump(configs.as_dict(varied)))
    block = "<!-- generated: variants made-seeds -->\n\n<!-- end -->"
    assert "Not published yet (`make outcome-shares" in blocks.regenerate(block, publish.published(layout.root))
    publish.publish_variants(config, layout, ["made-draw1"])
    after = blocks.regenerate(block, publish.published(layout.root))
    assert "| claim | made (1 training seed) | mrm.epochs 9.0 and mrm.draw 1 (1 training seed) |" in after
    claims = records.read_json_list(layout.analysis / "claims.json")
    compared = [claim for claim in claims if claim["leaning"] is not None]
    assert len(after.splitlines()) == 4 + len(compared) and len(compared) > 10
    own_claim = next(claim for claim in compared if claim["id"] == "figure2.saffron_below_best_of_n")
    row = next(line for line in after.splitlines() if own_claim["statement"].split("{")[0][:20] in line)
    assert row.count("one seed") == 2


def test_a_variant_is_asked_the_same_prompts(made: tuple[Config, Layout]) -> None:
    config, layout = made
    with pytest.raises(PublishError, match=r"made/config\.yaml: differs in nothing, so no variant of made"):
        publish.publish_variants(config, layout, ["made"])
    values = configs.as_dict(config) | {"name": "made-draw1"}
    values["sources"]["sandbox"]["benchmark_seed"] += 1
    (layout.root / "data/made-draw1/config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(PublishError, match=r"differs in sources\.sandbox\.benchmark_seed; a variant of made is asked the same"):
        publish.publish_variants(config, layout, ["made-draw1"])


def test_a_run_stands_beside_the_published_one(made: tuple[Config, Layout], capsys: pytest.CaptureFixture[str]) -> None:
    config, layout = made
    publish.publish_redraws(config, layout, ["made-draw1", "made-labels"])
    page = report.render(View.of(config, layout))
    table, sentences = publish.beside_published(config, View.of(config, layout).analysis, layout.root)
    assert table is not None and len(table.rows) > 10
    assert escape(table.caption) in page and escape(" ".join(sentences)) in page
    assert page.index(">This run beside the published one</h2>") < page.index(">Claim by claim</h2>")
    (row,) = [row for row in table.rows if row[0] == "Saffron-1, first benchmark"]
    ours, theirs = (
        records.read_json(path)["quantities"]["matched_asr/scaling/once/saffron"]
        for path in (layout.analysis / "analysis.json", layout.root / "data/made-seeds/analysis/analysis.json")
    )
    deviation = abs(theirs["per_seed"][0] - theirs["per_seed"][1]) / 2**0.5
    assert row[1:4] == (f"{ours['value']:.3f}", f"{theirs['value']:.3f}", f"{deviation:.3f}")
    assert row[5] == "0.000"  # the made-up redraws give what the run gave
    low, high = theirs["value"] - 2 * deviation, theirs["value"] + 2 * deviation
    assert row[6:] == (f"{low:z.3f} to {high:z.3f}", "as expected" if low <= ours["value"] <= high else row[7])
    cli.compare(_written(config, layout), layout.root)
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in sentences)
    lines = [line for line in printed.splitlines() if line.startswith(("number", "R² of the MRM", "Saffron-1, first"))]
    assert (
        len(lines) == 3
        and len({line.index(cell) for line, cell in zip(lines, ("this run", *_second(lines[1:])), strict=True)}) == 1
    )


def _second(lines: list[str]) -> list[str]:
    """The second cell of lines in aligned columns."""
    return [re.split(r"\s{2,}", line)[1] for line in lines]


def _written(config: Config, layout: Layout) -> Path:
    path = layout.root / "given.yaml"
    path.write_text(yaml.safe_dump(configs.as_dict(config)))
    return path


def test_an_unlike_number_says_where_to_look(made: tuple[Config, Layout]) -> None:
    config, layout = made
    own = View.of(config, layout).analysis
    own["quantities"]["mrm/r_squared"]["per_seed"] = [0.2]
    table, sentences = publish.beside_published(config, own, layout.root)
    assert table is not None
    (row,) = [row for row in table.rows if row[0].startswith("R² of the MRM")]
    assert row[1] == "0.200" and row[-1] == "outside: check Safety4M's labels and the MRM's losses"
    assert "numbers are as expected. One or two in" in sentences[0]


def test_where_nothing_comparable_is_published_the_report_says_so(made: tuple[Config, Layout]) -> None:
    config, layout = made
    values = configs.as_dict(config)
    values["models"]["sandbox"]["vocab_size"] += 1
    other = configs.parse(values, "other")
    table, sentences = publish.beside_published(other, {"quantities": {}}, layout.root)
    assert table is None
    assert sentences == [
        "Nothing published to compare with: no record in data/reference/ours has the sources and models of the config made."
    ]


def test_the_spread_of_a_published_record_is_a_block(made: tuple[Config, Layout]) -> None:
    config, layout = made
    block = "<!-- generated: spread made-seeds -->\n\n<!-- end -->"
    before = blocks.regenerate(block, publish.published(layout.root))
    assert "(none published)" in before and "| Saffron-1, first benchmark | 0." in before
    publish.publish_redraws(config, layout, ["made-draw1", "made-labels"])
    after = blocks.regenerate(block, publish.published(layout.root))
    assert "(mrm.draw 1, safety4m.batch_size 8)" in after and after.count("| 0.000 |") > 5


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_what_is_published_is_of_the_config_that_is_shipped(path: Path) -> None:
    """But for judges that were added since, which change no number that is published, and for a dtype that the run chose."""
    record, shipped = records.read_json(path), configs.as_dict(configs.load(ROOT / f"config/{path.stem}.yaml"))
    known = [judge["name"] for judge in record["settings"]["judges"]]
    shipped["judges"] = [judge for judge in shipped["judges"] if judge["name"] in known]
    if shipped["runtime"]["dtype"] == "auto":
        shipped["runtime"]["dtype"] = record["settings"]["runtime"]["dtype"]
        assert shipped["runtime"]["dtype"] in ("float32", "bfloat16")
    assert record["settings"] == shipped
    assert record["config_sha256"] == provenance.config_sha256(configs.parse(record["settings"], path.name))
    assert set(record["analysis"]["judges"]) <= set(known)
