"""What a job reads: the same for rule, stored blocks and function; and what of the code reaches it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from saffron import code, hub, jobs, workflow
from saffron import config as configs
from saffron.config import Config, as_dict
from saffron.methods import discovery, rebase
from saffron.runs import jobs as figure_jobs

ROOT = Path(__file__).parents[1]
MAKERS: dict[str, Callable[[Config], Any]] = {
    "sources": jobs.sources,
    "tokenizer": lambda config: jobs.model(config, "tokenizer"),
    "policy": lambda config: jobs.model(config, "policy", 0),
    "label": lambda config: jobs.label(config, 0),
    "train": lambda config: jobs.train(config, 0),
    "evaluate": lambda config: jobs.evaluate(config, 0),
    **{
        f"search/{name}": lambda config, name=name: jobs.search(config, 0, "scaling", f"{name}-default")
        for name in ("no_defense", "best_of_n", "saffron", "rebase", "deal")
    },
    "trees": lambda config: jobs.trees(config, 0),
    **{
        f"judge/{name}": lambda config, name=name: jobs.judge(config, 0, name, "scaling")
        for name in ("guard", "oracle", "refusals", "likelihood")
    },
    "analyse": jobs.analyse,
    "report": figure_jobs.report,
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(ROOT)
    return configs.load("config/sandbox.yaml")


def edited(monkeypatch: pytest.MonkeyPatch, config: Config, path: str) -> set[str]:
    """Jobs whose code another meaning of a source file changes."""
    before = {name: maker(config).code for name, maker in MAKERS.items()}
    meaning = code._meaning
    with monkeypatch.context() as patch:
        patch.setattr(code, "_meaning", lambda file: "another" if file == ROOT / path else meaning(file))
        code.digest.cache_clear()
        after = {name: maker(config).code for name, maker in MAKERS.items()}
    code.digest.cache_clear()
    return {name for name in before if before[name] != after[name]}


JUDGES = {name for name in MAKERS if name.startswith("judge/")}
SEARCHES = {name for name in MAKERS if name.startswith("search/")}


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("src/saffron/methods/rebase/search.py", {"search/rebase"}),
        ("src/saffron/methods/saffron/selection.py", {"search/saffron", "trees"}),
        ("src/saffron/methods/sampling.py", {"search/no_defense", "search/best_of_n", "trees"}),
        ("src/saffron/engine/storage.py", SEARCHES | {"trees", "label", "judge/guard"}),
        ("src/saffron/models/loading.py", SEARCHES | {"trees", "label", "train", "evaluate", "policy", "tokenizer"} | JUDGES),
        ("src/saffron/refusals.py", {"judge/refusals"}),
        ("src/saffron/judges/guard.py", {"judge/guard"}),
        ("src/saffron/judges/stage.py", JUDGES),
        ("src/saffron/sources/sandbox/oracle.py", {"judge/oracle", "sources"}),
        ("src/saffron/models/sandbox/policy.py", {"policy", "tokenizer"}),
        ("src/saffron/sources/sandbox/corpora.py", {"sources"}),
        ("src/saffron/mrm/release.py", {"train"}),
        ("src/saffron/mrm/training.py", {"train"}),
        ("src/saffron/mrm/evaluation.py", {"evaluate"}),
        ("src/saffron/safety4m/build.py", {"label"}),
        ("src/saffron/judges/discovery.py", set()),
        ("src/saffron/methods/rebase/__init__.py", set()),
        ("src/saffron/config/models.py", set()),
        ("src/saffron/cli.py", set()),
    ],
)
def test_a_change_of_code_reaches_the_jobs_that_run_it(
    monkeypatch: pytest.MonkeyPatch, config: Config, path: str, reached: set[str]
) -> None:
    assert (ROOT / path).exists()
    assert edited(monkeypatch, config, path) - {"report", "analyse"} == reached


def test_what_a_job_leaves_out_cannot_be_read(config: Config) -> None:
    job = jobs.model(config, "policy", 0)
    assert job.models.sandbox is not None and job.models.sandbox.policy == config.models.sandbox.policy  # type: ignore[union-attr]
    with pytest.raises(AttributeError, match="guard_training"):
        _ = job.models.sandbox.guard_training
    read = jobs.analyse(config).config
    assert list(read.search.experiments) == list(workflow.experiments(config))
    with pytest.raises(AttributeError, match="max_new_tokens"):
        _ = read.search.max_new_tokens
    with pytest.raises(AttributeError, match="runtime"):
        _ = read.runtime


def test_a_block_is_kept_for_what_only_says_which_blocks_there_are(config: Config) -> None:
    job = jobs.search(config, 0, "scaling", "saffron-default")
    same = {"budgets": [1], "search_seeds": [7], "shards": 3, "experiment": "other", "seed": 1}
    assert job.model_copy(update=same).key == job.key
    assert job.model_copy(update={"block_size": 3}).key != job.key
    shared = jobs.search(config, 0, "scaling", "best_of_n-default")
    assert shared.model_copy(update={"budgets": [1]}).key != shared.key  # one sampling is behind all budgets
    label = jobs.label(config, 0)
    sharded = config.safety4m.model_copy(update={"shards": 4})
    assert label.model_copy(update={"safety4m": sharded}).key == label.key != label.model_copy(update={"device_map": "auto"}).key


def test_a_method_that_reads_an_mrm_without_naming_one_is_given_the_default(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = {**discovery.methods(), "rebase": replace(rebase.METHOD, reads=lambda settings: frozenset({"policy", "mrm"}))}
    monkeypatch.setattr(discovery, "methods", lambda: reading)
    job = jobs.search(config, 0, "scaling", "rebase-default")
    assert (job.mrm, job.variant) == ("default", config.mrm.variants["default"])
    (run,) = [run for run in config.search.experiments["scaling"].runs if run.method == "rebase"]
    assert workflow.mrms_of(config, run) == ["default"]


@pytest.mark.parametrize("size", [10, hub.WHOLE + 1000])
def test_local_files_are_known_by_what_they_hold(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "mirror"
    (folder / "below").mkdir(parents=True)
    file = folder / "below/model.safetensors"
    with file.open("wb") as stream:
        stream.truncate(size)
    before = hub.contents(folder)
    stat = file.stat()
    with file.open("r+b") as stream:  # as long, and as old
        stream.write(b"other")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hub.contents(folder) != before
    with file.open("r+b") as stream:
        stream.write(bytes(5))
    assert hub.contents(folder) == before


def test_a_mirror_replaced_in_place_changes_the_jobs_that_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    values = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    formats = tmp_path / "formats.json"
    for name in ("policy", "guard"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"one")
        values["models"]["hub"][name]["path"] = str(tmp_path / name)
    prompts = tmp_path / "prompts/data/safety_bench/Harmful-HEx-PHI.jsonl"
    prompts.parent.mkdir(parents=True)
    prompts.write_bytes(b"one")
    values["sources"]["prompts"]["harmful_hexphi"]["path"] = str(tmp_path / "prompts")
    values["models"]["hub"]["chat_formats"] = str(formats)
    formats.write_text("{}")
    config = configs.parse(values, "test")

    def lines() -> dict[str, str]:
        found = {which: jobs.model(config, which, 0).line for which in ("tokenizer", "policy", "guard")}
        return {**found, "sources": jobs.sources(config).line, "prompts": jobs.prompts(config, "harmful_hexphi").line}

    def changes(path: Path) -> set[str]:
        before = lines()
        path.write_bytes(b"two")
        return {name for name, line in lines().items() if before[name] != line}

    assert changes(tmp_path / "policy/model.safetensors") == {"policy", "tokenizer"}
    assert changes(tmp_path / "guard/model.safetensors") == {"guard", "tokenizer"}
    assert changes(formats) == {"tokenizer"}
    assert changes(prompts) == {"prompts"}
    prompts.write_bytes(b"one")  # as long, under the same name
    assert changes(prompts) == {"prompts"}


def test_jobs_are_what_is_stored(config: Config) -> None:
    for maker in MAKERS.values():
        job = maker(config)
        assert yaml.safe_load(job.line) == as_dict(job)
