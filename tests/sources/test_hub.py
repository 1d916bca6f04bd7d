from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from replica import datasets

from saffron import records
from saffron.config import HubDataset, HubSources
from saffron.hub import SourceError
from saffron.layout import Layout
from saffron.sources import hub

REAL = os.environ.get("SAFFRON_HH_RLHF_DIR")


def dataset(**changes: object) -> HubDataset:
    return HubDataset.model_validate({"id": "someone/dataset", "rows": {}, **changes})


def section(folder: Path, **changes: object) -> HubSources:
    rows = {
        "hh_rlhf": datasets.write_hh_rlhf(folder / "hh_rlhf", train=3, test=1),
        "harmful_hexphi": datasets.write_harmful_hexphi(folder / "harmful_hexphi", 5),
        "ai2_refusals": datasets.write_ai2_refusals(folder / "ai2_refusals", 2),
    }
    sets = {name: dataset(rows=counts, path=str(folder / name)) for name, counts in rows.items()}
    return HubSources.model_validate({**sets, **changes})


def test_build_writes_every_table_and_says_where_it_came_from(tmp_path: Path) -> None:
    layout = Layout("c", tmp_path / "out")
    facts = hub.build(section(tmp_path), layout)
    assert facts["counts"] == {"conversations": 16, "harmful_hexphi": 5, "ai2_refusals": 4}
    conversations = records.read_table(layout.conversations, records.CONVERSATIONS)
    assert conversations["split"].tolist() == ["train"] * 12 + ["test"] * 4
    assert conversations["source_row"].tolist() == [*range(12), *range(4)]
    assert conversations["subset"].unique().tolist() == list(datasets.SUBSETS)
    for name, count in (("harmful_hexphi", 5), ("ai2_refusals", 4)):
        prompts = records.read_table(layout.prompts(name), records.PROMPTS)
        assert prompts["prompt_id"].tolist() == list(range(count))
        assert set(prompts["dataset"]) == {name}
    identity = facts["datasets"]["harmful_hexphi"]
    assert identity["revision"] == "local mirror"
    assert identity["files"] == {hub.HEX_PHI: records.sha256(tmp_path / "harmful_hexphi" / hub.HEX_PHI)}
    assert set(facts["datasets"]["hh_rlhf"]["files"]) == {
        f"{subset}/{split}.jsonl.gz" for subset in datasets.SUBSETS for split in ("train", "test")
    }


def test_prompt_and_reference_are_the_messages_contents(tmp_path: Path) -> None:
    datasets.write_harmful_hexphi(tmp_path, 3)
    lines = [json.loads(line) for line in (tmp_path / hub.HEX_PHI).read_text().splitlines()]
    table = hub.read_harmful_hexphi(tmp_path)
    assert table["prompt"].tolist() == [user["content"] for user, _ in lines]
    assert table["reference"].tolist() == [assistant["content"] for _, assistant in lines]


def test_only_refusals_are_kept_and_the_rejected_answer_is_the_reference(tmp_path: Path) -> None:
    datasets.write_ai2_refusals(tmp_path, 3)
    whole = pd.read_parquet(tmp_path / "data/filtered-00000-of-00001.parquet")
    kept = whole[whole["subset"].str.startswith("refusals-")]
    table = hub.read_ai2_refusals(tmp_path)
    assert table["prompt"].tolist() == kept["prompt"].tolist()
    assert table["reference"].tolist() == kept["rejected"].tolist()
    assert len(table) == 6 < len(whole)


def test_flat_and_parquet_mirrors_read_like_the_hubs_layout(tmp_path: Path) -> None:
    datasets.write_hh_rlhf(tmp_path / "hub", train=2, test=1)
    expected = hub.read_hh_rlhf(tmp_path / "hub")
    for subset in datasets.SUBSETS:
        for split in ("train", "test"):
            content = gzip.decompress((tmp_path / "hub" / subset / f"{split}.jsonl.gz").read_bytes())
            flat = tmp_path / "flat" / f"{subset}-{split}.jsonl"
            flat.parent.mkdir(exist_ok=True)
            flat.write_bytes(content)
            parquet = tmp_path / "parquet" / subset / f"{split}-00000-of-00001.parquet"
            parquet.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame([json.loads(line) for line in content.splitlines()]).to_parquet(parquet)
    for mirror in ("flat", "parquet"):
        pd.testing.assert_frame_equal(hub.read_hh_rlhf(tmp_path / mirror), expected)


def test_max_rows_keeps_the_first_rows_of_each_split_after_the_count_was_checked(tmp_path: Path) -> None:
    rows = datasets.write_hh_rlhf(tmp_path, train=3, test=1)
    whole = hub.read_hh_rlhf(tmp_path)
    table = hub.read_hh_rlhf(tmp_path, expected=dataset(rows=rows), max_rows=2)
    assert table["source_row"].tolist() == [0, 1, 0, 1]
    assert table["chosen"].tolist() == whole[whole["source_row"] < 2]["chosen"].tolist()


def _lines(path: Path, rows: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def _bad_line(folder: Path) -> None:
    _lines(folder / hub.HEX_PHI, [[{"role": "user", "content": "tea"}, {"role": "assistant", "content": "ok"}], "{"])


def _one_message(folder: Path) -> None:
    _lines(folder / hub.HEX_PHI, [[{"role": "user", "content": "tea"}]])


def _renamed_column(folder: Path) -> None:
    _lines(folder / "harmless-base" / "test.jsonl", [{"chosen": "a", "refused": "b"}])


def _number(folder: Path) -> None:
    _lines(folder / "harmless-base" / "test.jsonl", [{"chosen": "a", "rejected": 3}])


def _cut_off(folder: Path) -> None:
    datasets.write_hh_rlhf(folder, train=1, test=1)
    path = folder / "helpful-base" / "train.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])


def _not_parquet(folder: Path) -> None:
    _lines(folder / "data" / "filtered-00000-of-00001.parquet", ["no"])


@pytest.mark.parametrize(
    ("make", "read", "message"),
    [
        (_bad_line, hub.read_harmful_hexphi, r"Harmful-HEx-PHI\.jsonl, line 2: not JSON"),
        (
            _one_message,
            hub.read_harmful_hexphi,
            r"line 1: not a list of a user's and an assistant's message; the schema has changed",
        ),
        (
            _renamed_column,
            hub.read_hh_rlhf,
            r"has columns \['chosen', 'refused'\], but rejected is needed; the schema has changed",
        ),
        (_number, hub.read_hh_rlhf, r"column rejected should be text, found int"),
        (_cut_off, hub.read_hh_rlhf, r"helpful-base/train\.jsonl\.gz cannot be read .*fetch it again"),
        (_not_parquet, hub.read_ai2_refusals, r"is not a readable parquet file"),
        (lambda folder: None, hub.read_ai2_refusals, r"holds no data/filtered-\*\.parquet; check the pinned revision"),
    ],
)
def test_a_changed_or_damaged_dataset_is_refused(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], pd.DataFrame], message: str
) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("sources.hub.")


def test_another_row_count_is_refused_with_both_numbers(tmp_path: Path) -> None:
    datasets.write_ai2_refusals(tmp_path, 3)
    message = (
        r"rows by subset are \{'refusals-dangerous': 3, 'refusals-offensive': 3\}, but .*rows says \{'refusals-dangerous': 100"
    )
    with pytest.raises(SourceError, match=message):
        hub.read_ai2_refusals(tmp_path, expected=dataset(rows={"refusals-dangerous": 100, "refusals-offensive": 100}))
    datasets.write_harmful_hexphi(tmp_path, 329)
    with pytest.raises(SourceError, match=r"\{'train': 329\}, but .* says \{'train': 330\}"):
        hub.read_harmful_hexphi(tmp_path, expected=dataset(rows={"train": 330}))


def test_another_digest_is_refused_with_both_digests(tmp_path: Path) -> None:
    rows = datasets.write_harmful_hexphi(tmp_path, 2)
    right = records.sha256(tmp_path / hub.HEX_PHI)
    hub.read_harmful_hexphi(tmp_path, expected=dataset(rows=rows, sha256={hub.HEX_PHI: right}))
    with pytest.raises(SourceError, match=rf"has sha256 {right}, but .* says {'0' * 64}"):
        hub.read_harmful_hexphi(tmp_path, expected=dataset(rows=rows, sha256={hub.HEX_PHI: "0" * 64}))
    with pytest.raises(SourceError, match=r"sha256 names other\.jsonl, which .* lacks"):
        hub.read_harmful_hexphi(tmp_path, expected=dataset(rows=rows, sha256={"other.jsonl": right}))


def test_without_a_revision_digests_name_every_file(tmp_path: Path) -> None:
    rows = datasets.write_hh_rlhf(tmp_path, train=1, test=1)
    digests = {path.relative_to(tmp_path).as_posix(): records.sha256(path) for path in hub.files_of("hh_rlhf", tmp_path)}
    hub.read_hh_rlhf(tmp_path, expected=dataset(rows=rows, sha256=digests))
    name = min(digests)
    del digests[name]
    with pytest.raises(SourceError, match=f"sha256 lacks {name}: without sources.hub.hh_rlhf.revision every file needs"):
        hub.read_hh_rlhf(tmp_path, expected=dataset(rows=rows, sha256=digests))
    hub.read_hh_rlhf(tmp_path, expected=dataset(rows=rows, sha256=digests, revision="0" * 40))


@pytest.mark.skipif(REAL is None, reason="set SAFFRON_HH_RLHF_DIR to a folder with harmless-base-test.jsonl.gz")
def test_the_real_test_conversations_read() -> None:
    assert REAL is not None
    table = hub.read_hh_rlhf(REAL, expected=dataset(rows={"test": 2312}))
    assert set(table["subset"]) == {"harmless-base"}
    assert (table["chosen"].str.startswith("\n\nHuman:") & table["rejected"].str.startswith("\n\nHuman:")).all()
