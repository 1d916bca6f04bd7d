"""A finished run's files, damaged one after another: each is named; what was deleted or is being made is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torture import corruption

from saffron.layout import Layout
from saffron.records import RecordError
from saffron.runs import seals


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout("mine", tmp_path)
    for number, name in enumerate(("search/seed0/x.parquet", "models/seed0/guard/model.safetensors", "analysis/analysis.json")):
        (layout.data / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.data / name).write_text(f"{number}" * 9)
    layout.figures.mkdir(parents=True)
    (layout.figures / "table1.csv").write_text("a,b\n")
    seals.write(layout)
    return layout


@pytest.mark.parametrize("kind", corruption.KINDS)
@pytest.mark.parametrize(
    "name", ["data/mine/search/seed0/x.parquet", "data/mine/models/seed0/guard/model.safetensors", "figures/mine/table1.csv"]
)
def test_a_damaged_file_is_named_with_the_remedy(layout: Layout, kind: str, name: str) -> None:
    path = layout.root / name
    times = path.stat()
    corruption.damage(path, kind, layout.data / "analysis/analysis.json", seed=0)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a file may keep its time
    with pytest.raises(RecordError, match=f"^{path}: not what the finished run left there .*; delete it.*same command again"):
        seals.check(layout)


def test_what_is_the_same_or_deleted_or_new_is_no_damage(layout: Layout) -> None:
    os.utime(layout.data / "analysis/analysis.json", (0, 0))
    (layout.data / "search/seed0/x.parquet").unlink()
    (layout.data / "search/seed0/y.parquet").write_text("new")
    seals.check(layout)


def test_several_damaged_files_are_counted(layout: Layout) -> None:
    for name in ("search/seed0/x.parquet", "analysis/analysis.json"):
        (layout.data / name).write_text("other")
    with pytest.raises(RecordError, match=r"analysis\.json and 1 more: not what"):
        seals.check(layout)


def test_what_is_being_made_is_not_checked(layout: Layout) -> None:
    seals.discard(layout)
    (layout.data / "analysis/analysis.json").write_text("made anew")
    seals.check(layout)


def test_a_copy_with_new_times_gets_those_of_the_run(layout: Layout) -> None:
    guard, table = layout.data / "models/seed0/guard/model.safetensors", layout.data / "search/seed0/x.parquet"
    stamp, edited = guard.with_name(seals.STAMP), layout.data / "analysis/analysis.json"
    stamp.touch()
    before = {file: file.stat().st_mtime_ns for file in (guard, table)}
    later = max(before.values()) + 10**10
    edited.write_text("edited")
    for file in (guard, table, stamp, edited):
        os.utime(file, ns=(later, later))
    seals.restore_times(layout)
    assert {file: file.stat().st_mtime_ns for file in (guard, table)} == before
    assert stamp.stat().st_mtime_ns == before[guard] and edited.stat().st_mtime_ns == later
    with pytest.raises(RecordError, match=r"analysis\.json: not what the finished run left"):
        seals.check(layout)
