"""Every reader turns whatever its library says of a broken file into one RecordError that names the file and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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
