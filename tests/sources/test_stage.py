"""The stage: files of every kind, everything counted, and one source divided by question."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from replica import datasets

from saffron import config as configs
from saffron import jobs, records, workflow
from saffron.config import Config, PromptSet
from saffron.layout import Layout
from saffron.sources import files, stage
from saffron.sources.division import Divided, Read, divide, question
from saffron.sources.reading import Conversation, Prompt, SourceError

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("SAFFRON_HH_RLHF_DIR")
ROWS = [{"prompt": f"How do I make item {i}?", "reference": f"First, take item {i}.", "kind": "ab"[i % 2]} for i in range(40)]


def with_prompts(attack: bool = True, **rows: Any) -> Config:
    """The smoke config with a prompt set of one's own in place of its first benchmark."""
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    values["judges"] = [{"name": "guard", "kind": "guard"}]  # the sandbox's oracle knows no other prompts
    values["sources"]["prompts"]["mine"] = {"from": "path", "reader": "columns", **rows}
    runs = [{"method": "no_defense", "budgets": [0], "attack": attack}]
    values["search"]["experiments"]["mine"] = {"dataset": "mine", "runs": runs}
    return configs.parse(values, "test")


def with_conversations(rows: dict[str, Any], splits: dict[str, Any] | None = None, sets: tuple[str, ...] = ()) -> Config:
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    values["sources"] |= {"conversations": rows, "splits": splits or {}}
    values["sources"]["prompts"] |= {name: {"from": "split", "split": "whole"} for name in sets}
    return configs.parse(values, "test")


def build(config: Config, folder: Path) -> dict[str, Any]:
    layout = Layout("out", folder)
    stage.build(jobs.sources(config), layout)
    record = records.read_json(layout.sources_record)
    for name in workflow.own_prompts(config):
        stage.build_prompts(jobs.prompts(config, name), layout)
        for part, values in records.read_json(layout.prompts_record(name)).items():
            record[part] |= values
    return record


def prompts(folder: Path, name: str = "mine") -> pd.DataFrame:
    return records.read_table(Layout("out", folder).prompts(name), records.PROMPTS)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write(path: Path, kind: str) -> Path:
    """ROWS as a file of some kind."""
    path = path / f"rows.{kind.removeprefix('large.')}"
    if kind == "jsonl":
        return write_lines(path, ROWS)
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    if kind == "json":
        path.write_text(json.dumps(ROWS))
    if kind == "csv":
        pd.DataFrame(ROWS).to_csv(path, index=False)
    if kind.endswith("parquet"):
        text = pa.large_string() if kind.startswith("large") else pa.string()
        pq.write_table(pa.Table.from_pylist(ROWS, schema=pa.schema([(name, text) for name in ROWS[0]])), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "large.parquet"])
def test_a_file_of_every_kind_is_the_same_prompt_set(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind)
    config = with_prompts(path=str(path), rows={"b": 20}, where={"kind": "b"}, count_by="kind", licence="CC0-1.0")
    record = build(config, tmp_path)
    table = prompts(tmp_path)
    assert table["prompt"].tolist() == [row["prompt"] for row in ROWS if row["kind"] == "b"]
    assert table["reference"].tolist() == [row["reference"] for row in ROWS if row["kind"] == "b"]
    assert (set(table["dataset"]), table["prompt_id"].tolist()) == ({"mine"}, list(range(20)))
    assert record["rows"]["prompts.mine"] == {
        "read": 40,
        "written": 20,
        "dropped": {},
        "left_out": {"other values than where asks for": 20},
    }
    origin = record["origins"]["prompts.mine"]
    assert (origin["licence"], origin["licence_id"]) == ("CC0-1.0", "cc0-1.0")
    assert origin["files"] == {path.name: records.sha256(path)}


def test_rows_dropped_are_counted_by_kind_printed_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [{"prompt": None, "reference": "a"}, {"prompt": "\ud800", "reference": "a"}]
    path = write_lines(tmp_path / "rows.jsonl", [*ROWS, *bad])
    record = build(with_prompts(path=str(path)), tmp_path)
    kinds = {"prompt holds a lone surrogate, half a character": 1, "prompt is null": 1}
    assert record["rows"]["prompts.mine"] == {"read": 42, "written": 40, "dropped": kinds, "left_out": {}}
    assert "sources.prompts.mine: 2 of 42 rows dropped: 1 × prompt is null" in caplog.text
    write_lines(path, [*ROWS, *bad, *bad])
    message = r"4 of 44 rows cannot be used \(2 × .*more than sources\.prompts\.mine\.allow_dropped 0\.05"
    with pytest.raises(SourceError, match=message):
        build(with_prompts(path=str(path)), tmp_path)
    assert build(with_prompts(path=str(path), allow_dropped=0.1), tmp_path)["counts"]["mine"] == 40


@pytest.mark.parametrize("reference", [None, "", " \n"])
def test_an_attack_without_an_answer_to_prefill_is_refused(reference: str | None, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "And this?", "reference": reference}])
    with pytest.raises(SourceError, match=r"sources\.prompts\.mine: .*rows\.jsonl, row 41: no answer to prefill.*attack: false"):
        build(with_prompts(path=str(path)), tmp_path)
    build(with_prompts(attack=False, path=str(path)), tmp_path)
    assert prompts(tmp_path)["reference"].isna().sum() == 1


@pytest.mark.parametrize(
    ("name", "content", "rows", "message"),
    [
        ("rows.jsonl", '{"prompt": "a", "reference": "b"}\n{', {}, r"rows\.jsonl, line 2: not JSON"),
        ("rows.json", '{"prompt": "a"}', {}, r"rows\.json: should be one list of rows, found dict"),
        ("rows.csv", "prompt,reference\na,b,c\n", {}, r"rows\.csv, row 1: another number of values than the header"),
        ("rows.parquet", "no", {}, r"rows\.parquet is not a readable parquet file"),
        ("rows.jsonl.gz", "no", {}, r"rows\.jsonl\.gz cannot be read"),
        ("rows.txt", "a", {}, r"rows\.txt: no known ending"),
        ("rows.csv", "prompt,reference\na,b\n", {"rows": 2}, r"rows are 1, but sources\.prompts\.mine\.rows says 2"),
        ("rows.csv", "prompt,reference\na,b\n", {"rows": {"test": 1}}, r"rows by split are train 1, but .* says test 1"),
        ("rows.csv", "prompt,reference\na,b\n", {"sha256": {"rows.csv": "0" * 64}}, r"has sha256 .*, but .*sha256 says 0000"),
        ("rows.csv", "prompt,reference\na,b\n", {"sha256": {"other": "0"}}, r"sha256 names other, which is not among the files"),
        ("rows.csv", "prompt,reference\n", {}, r"sources\.prompts\.mine: no prompt is left"),
        ("rows.csv", "prompt,answer\na,b\n", {}, r"rows\.csv, row 1: no column reference, there are answer, prompt"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    name: str, content: str, rows: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message) as caught:
        build(with_prompts(path=str(tmp_path / name), **rows), tmp_path / "out")
    assert str(caught.value).startswith("sources.prompts.mine")


def test_a_digest_and_max_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", "jsonl")
    build(
        with_prompts(path=str(tmp_path / "in"), sha256={path.name: records.sha256(path)}, max_rows=3, rows=40), tmp_path / "out"
    )
    assert len(prompts(tmp_path / "out")) == 3


# ----------------------------------------------------------------------------------------------------------- where files lie
def test_a_folder_named_by_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_prompts(path="${MY_ROWS}/here", files=["*.jsonl"])
    monkeypatch.delenv("MY_ROWS", raising=False)
    with pytest.raises(SourceError, match=r"sources\.prompts\.mine\.path: \$\{MY_ROWS\}/here needs .* MY_ROWS, which is not set"):
        files.require_local(config)
    monkeypatch.setenv("MY_ROWS", str(tmp_path))
    with pytest.raises(SourceError, match=r"sources\.prompts\.mine\.path: no file or folder .*/here"):
        files.require_local(config)
    (tmp_path / "here").mkdir()
    with pytest.raises(SourceError, match=r"sources\.prompts\.mine\.files: .*/here holds no \*\.jsonl"):
        files.require_local(config)
    write(tmp_path / "here", "jsonl")
    files.require_local(config)
    record = build(config, tmp_path)
    assert record["origins"]["prompts.mine"]["name"] == "${MY_ROWS}/here"
    assert str(tmp_path) not in json.dumps(record)


def test_rows_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_prompts/data").mkdir(parents=True)
    (tmp_path / "my_prompts/__init__.py").write_text("")
    write(tmp_path / "my_prompts/data", "csv")
    values = {"from": "package", "path": None, "package": "my_prompts", "files": ["data/*.csv"]}
    with pytest.raises(SourceError, match=r"sources\.prompts\.mine\.package: no installed package my_prompts"):
        build(with_prompts(**values), tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path)
    assert build(with_prompts(**values), tmp_path / "out")["counts"]["mine"] == 40


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_another_job(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    config = with_prompts(path=str(path))
    before, shared, stat = jobs.prompts(config, "mine"), jobs.sources(config).line, path.stat()
    assert before.content == {path.name: records.sha256(path)}
    other = path.read_text().replace("item 3?", "item 8?")
    path.unlink()
    path.write_text(other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert jobs.prompts(config, "mine").line != before.line
    assert jobs.sources(config).line == shared  # what reads the conversations does not run again


# ------------------------------------------------------------------------------------------------------------ conversations
def test_hub_folders_and_flat_mirrors_read_the_same(tmp_path: Path) -> None:
    rows = datasets.write_hh_rlhf(tmp_path / "hub", train=2, test=1)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (tmp_path / "hub").glob("h*-*/*.jsonl.gz"):
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    tables = []
    for folder, pattern in (("hub", "h*-*/*.jsonl.gz"), ("flat", "*.jsonl.gz")):
        source = {"from": "path", "path": str(tmp_path / folder), "files": [pattern], "reader": "preference_pairs", "rows": rows}
        build(with_conversations(source), tmp_path / folder / "out")
        tables.append(records.read_table(Layout("out", tmp_path / folder / "out").conversations, records.CONVERSATIONS))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["split"].tolist() == ["train"] * 8 + ["test"] * 4
    assert tables[0]["source_row"].tolist() == [*range(8), *range(4)]
    assert tables[0]["subset"].tolist()[:4] == ["harmless-base"] * 2 + ["helpful-base"] * 2


def test_conversations_need_both_splits(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    source = {"from": "path", "path": str(path), "reader": "columns"}
    with pytest.raises(SourceError, match=r"no conversation is left for the split test; .* set sources\.conversations\.test"):
        build(with_conversations(source), tmp_path)
    build(with_conversations({**source, "test": 0.1}), tmp_path)
    table = records.read_table(Layout("out", tmp_path).conversations, records.CONVERSATIONS)
    assert table["split"].value_counts().to_dict() == {"train": 36, "test": 4}
    assert table["rejected"].isna().all() and table["source_row"].is_unique


# ----------------------------------------------------------------------------------------------------------------- division
def _read(number: int, turns: list[str], answer: str) -> Read:
    start = "".join(f"\n\nHuman: {turn}\n\nAssistant: yes" for turn in turns[:-1])
    whole = f"{start}\n\nHuman: {turns[-1]}\n\nAssistant: {answer}"
    prompt = Prompt(turns[-1], answer) if len(turns) == 1 else None
    return Read("train", "x", number, Conversation(whole, whole), prompt)


rows_of = st.lists(st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), st.sampled_from("xyz")), max_size=30)


@given(rows_of, st.integers(0, 3), st.integers(0, 2**16))
def test_a_division_puts_every_row_once_and_trains_on_no_prompt(
    made: list[tuple[list[str], str]], wanted: int, seed: int
) -> None:
    rows = [_read(number, *row) for number, row in enumerate(made)]
    single = len({question(row) for row in rows if row.prompt is not None})
    parts = {"one": max(1, min(wanted, single)), "two": 1}
    if sum(parts.values()) > single:
        with pytest.raises(SourceError, match="different questions with one answer; ask for fewer"):
            divide(rows, parts, 0.3, seed, "key")
        return
    found = divide(rows, parts, 0.3, seed, "key")
    assert {name: len(prompts) for name, prompts in found.prompts.items()} == parts
    taken = {prompt.text for prompts in found.prompts.values() for prompt in prompts}
    assert len(taken) == sum(parts.values())
    assert len(found.conversations) + len(taken) + found.left_out.total() == len(rows)
    for _, row in found.conversations:
        assert not taken & {turn.split("\n")[0] for turn in row.conversation.chosen.split("\n\nHuman: ")[1:]}
    by_question: dict[str, set[str]] = {}
    for split, row in found.conversations:
        by_question.setdefault(question(row), set()).add(split)
    assert all(len(splits) == 1 for splits in by_question.values())
    assert _names(divide(rows[::-1], parts, 0.3, seed, "key")) == _names(found)


def _names(divided: Divided) -> tuple[dict[str, set[str]], Counter[tuple[str, int]]]:
    """What a division gives, whatever the order of the rows."""
    questions = {name: {prompt.text for prompt in prompts} for name, prompts in divided.prompts.items()}
    return questions, Counter((split, row.source_row) for split, row in divided.conversations)


SPLIT = {"from": "path", "reader": "preference_pairs", "licence": "MIT", "test": 0.1}


@pytest.mark.skipif(REAL is None, reason="set SAFFRON_HH_RLHF_DIR to a folder with harmless-base-test.jsonl.gz")
def test_the_real_conversations_are_divided_and_every_row_accounted_for(tmp_path: Path) -> None:
    parts = {"first": 300, "second": 100, "third": 100}
    place = {"path": "${SAFFRON_HH_RLHF_DIR}", "files": ["harmless-base-test.jsonl.gz"], "rows": 2312}
    whole = {"whole": {**SPLIT, **place, "parts": parts}}
    record = build(with_conversations({"from": "split", "split": "whole"}, whole, tuple(parts)), tmp_path)
    account = record["rows"]["splits.whole"]
    assert account["read"] == 2312 == account["written"] + sum(account["dropped"].values()) + sum(account["left_out"].values())
    assert account["written"] == sum(account["parts"].values())
    assert sum(account["dropped"].values()) < 10
    texts = {name: set(prompts(tmp_path, name)["prompt"]) for name in parts}
    assert {name: len(found) for name, found in texts.items()} == parts
    table = records.read_table(Layout("out", tmp_path).conversations, records.CONVERSATIONS)
    taken = set.union(*texts.values())
    assert not any(f"Human: {text}\n" in row for text in taken for row in table["chosen"])


def test_a_split_is_named_in_what_cards_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "pairs.jsonl", [{"prompt": f"Item {i}?", "chosen": "Ask.", "rejected": f"Take {i}."} for i in range(30)]
    )
    whole = {"whole": {**SPLIT, "path": str(path), "parts": {"few": 4}}}
    record = build(with_conversations({"from": "split", "split": "whole"}, whole, ("few",)), tmp_path)
    assert record["origins"]["conversations"]["licence_id"] == "mit"
    assert record["origins"]["prompts.few"]["split"] == "whole"
    assert record["rows"]["splits.whole"]["parts"] == {"few": 4, "train": 23, "test": 3}
    with pytest.raises(SourceError, match=r"sources\.splits\.whole\.parts: 31 prompts asked for, but there are 30 different"):
        whole["whole"]["parts"] = {"few": 31}
        build(with_conversations({"from": "split", "split": "whole"}, whole, ("few",)), tmp_path)


def test_prompt_sets_of_the_sandbox_take_any_name(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    values["judges"] = [{"name": "guard", "kind": "guard"}]  # the sandbox's oracle knows no other prompts
    values["sources"]["prompts"]["mine"] = {"from": "sandbox", "part": "guild_b"}
    build(configs.parse(values, "test"), tmp_path)
    pd.testing.assert_frame_equal(prompts(tmp_path).drop(columns="dataset"), prompts(tmp_path, "guild_b").drop(columns="dataset"))
    assert set(prompts(tmp_path)["dataset"]) == {"mine"}


def test_a_prompt_sets_pin_is_its_file_or_its_commit() -> None:
    rows = {"from": "hub", "id": "a/b", "files": ["x.csv"], "reader": "columns", "revision": "main"}
    with pytest.raises(ValueError, match="needs the 40 hex digits of a commit, not 'main'"):
        PromptSet.model_validate(rows)
