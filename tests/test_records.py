"""Every reader turns whatever its library says of a broken file into one RecordError that names the file and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from saffron import records
from saffron.records import RecordError

SCHEMA = pa.schema([("name", pa.string()), ("values", pa.list_(pa.float32())), ("count", pa.int64())])
ROWS: list[dict[str, Any]] = [{"name": f"row {i}", "values": [i / 7] * (i % 5), "count": i} for i in range(40)]


def write(kind: str, path: Path) -> Callable[[], Any]:
    """Write a sound file of a kind; returns its reader."""
    if kind == "table":
        records.write_table(path, ROWS, SCHEMA)
        return lambda: records.read_table(path, SCHEMA)
    if kind == "any table":
        pd.DataFrame({"name": ["a", "b"], "value": [1.0, 2.0]}).to_parquet(path)
        return lambda: records.read_table(path)
    if kind == "tensors":
        save_file({"bias": np.arange(9, dtype=np.float32), "mask": np.arange(9) > 4}, path)
        return lambda: records.read_tensors(path, ["bias", "mask"], "numpy")
    records.write_json(path, {"texts": ["prüfe", "b"], "value": 1.5})
    return lambda: records.read_json(path)


KINDS = ["table", "any table", "tensors", "record"]
broken = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", KINDS)
@broken
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "file"
    read = write(kind, path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RecordError, match=rf"{path}: not .*; delete it and run its stage again"):
        read()


@pytest.mark.parametrize("kind", KINDS)
@broken
@given(data=st.data())
def test_a_file_with_other_bytes_is_read_or_refused(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / "file"
    read = write(kind, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read()
    except RecordError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_names_the_remedy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    read = write(kind, path)
    assert len(read()) > 0
    path.unlink()
    with pytest.raises(RecordError, match=rf"{path}: no such .*; run the stage that makes it"):
        read()


def test_chosen_columns_are_read_and_the_schema_still_checked(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    records.write_table(path, ROWS, SCHEMA)
    assert records.read_table(path, SCHEMA, ["values"])["values"].map(len).sum() == sum(len(row["values"]) for row in ROWS)
    narrow = pa.schema([field for field in SCHEMA if field.name != "values"])
    records.write_table(path, pd.DataFrame(ROWS), narrow)
    with pytest.raises(RecordError, match="column values is missing"):
        records.read_table(path, SCHEMA, ["values"])


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    write("tensors", tmp_path / "head")
    with pytest.raises(RecordError, match=r"head: tensors \['other'\] are missing; delete it"):
        records.read_tensors(tmp_path / "head", ["bias", "other"], "numpy")


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "[1, {}]"])
def test_a_record_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=rf"{path}: holds a \w+, not a JSON object; delete it"):
        records.read_json(path)


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write_json(path, {"seed": 1})
    assert records.read_json(path, ["seed"]) == {"seed": 1}
    with pytest.raises(RecordError, match=rf"{path}: fields \['commit', 'name'\] are missing; delete it"):
        records.read_json(path, ["seed", "name", "commit"])


def test_a_list_of_records_is_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    records.write_json(path, [{"id": 1}, {"id": 2}])
    assert records.read_json_list(path, ["id"]) == [{"id": 1}, {"id": 2}]
    for content, message in (
        ("{}", "holds a dict, not a JSON list"),
        ("[{}]", r"fields \['id'\] are missing"),
        ("[[]]", "object"),
    ):
        path.write_text(content)
        with pytest.raises(RecordError, match=rf"{path}: .*{message}.*; delete it"):
            records.read_json_list(path, ["id"])


def test_a_folder_in_place_of_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=rf"{tmp_path}: not readable \(Is a directory\)"):
        records.read_json(tmp_path)


LAYOUTS: dict[str, Callable[[pa.Schema], pa.Schema]] = {
    "large": lambda schema: _with(schema, name=pa.large_string(), values=pa.large_list(pa.float32())),
    "view": lambda schema: _with(schema, name=pa.string_view()),
    "dictionary": lambda schema: _with(schema, name=pa.dictionary(pa.int8(), pa.string())),
}


def _with(schema: pa.Schema, **types: pa.DataType) -> pa.Schema:
    return pa.schema([(field.name, types.get(field.name, field.type)) for field in schema])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_reads_alike_however_its_values_are_laid_out(tmp_path: Path, layout: str) -> None:
    records.write_table(tmp_path / "ours.parquet", ROWS, SCHEMA)
    pq.write_table(pa.Table.from_pylist(ROWS, schema=SCHEMA).cast(LAYOUTS[layout](SCHEMA)), tmp_path / "theirs.parquet")
    ours, theirs = (records.read_table(tmp_path / name, SCHEMA) for name in ("ours.parquet", "theirs.parquet"))
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_table_that_pandas_wrote_again_reads_alike(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.parquet", tmp_path / "theirs.parquet"
    records.write_table(ours, ROWS, SCHEMA)
    records.read_table(ours, SCHEMA).to_parquet(theirs)
    assert pq.read_schema(theirs).field("name").type == pa.large_string()
    pd.testing.assert_frame_equal(records.read_table(ours, SCHEMA), records.read_table(theirs, SCHEMA))
    columns = ["count", "name"]
    pd.testing.assert_frame_equal(records.read_table(ours, SCHEMA, columns), records.read_table(theirs, SCHEMA, columns))


def test_a_column_of_another_type_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    for wrong in (pa.binary(), pa.large_list(pa.string())):
        pq.write_table(
            pa.table({"name": pa.array([], wrong), "values": pa.array([], pa.list_(pa.float32())), "count": [0][:0]}), path
        )
        with pytest.raises(RecordError, match=rf"{path}: column name has type .*, expected string; delete it"):
            records.read_table(path, SCHEMA)


@pytest.mark.parametrize("there", ["link", "link that leads nowhere", "file"])
def test_a_written_folder_replaces_a_link_or_a_file(tmp_path: Path, there: str) -> None:
    target, path = tmp_path / "elsewhere", tmp_path / "model"
    if there == "link":
        target.mkdir()
        (target / "kept").write_text("kept")
    if there == "file":
        path.write_text("old")
    else:
        path.symlink_to(target)
    with records.replacing_folder(path) as folder:
        (folder / "new").write_text("new")
    assert not path.is_symlink()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert there != "link" or (target / "kept").read_text() == "kept"
    assert not list(tmp_path.glob(".model.*"))
