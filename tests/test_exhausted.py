"""What a machine runs out of is said in one message; it is never taken for a damaged file."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from safetensors import SafetensorError

from saffron import exhausted, records
from saffron.records import RecordError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), r"^data/x: the disk is full: free some space, then run"),
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"), r"the disk is full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), "^data/x: permission denied: let this user"),
        (OSError(errno.EIO, "Input/output error"), "the disk or the network file system failed"),
        (MemoryError(), r"^out of memory: run fewer jobs .*\(MemoryError\)$"),
        (pa.ArrowMemoryError("malloc of size 64 failed"), r"^out of memory: .*malloc of size 64"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "^out of memory: run fewer"),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
            r"the GPU failed or was lost: .*encountered\)$",
        ),
        (RuntimeError("CUDA error: out of memory"), "^out of GPU memory"),
    ],
)
def test_each_is_said_with_its_remedy(error: Exception, message: str) -> None:
    text = exhausted.explained(error)
    assert text is not None
    assert "run the same command again" in text
    with pytest.raises(RuntimeError, match=message):
        raise RuntimeError(text)


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("a")]
)
def test_other_errors_are_not_the_machines(error: Exception) -> None:
    assert exhausted.explained(error) is None


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), pa.ArrowMemoryError("malloc failed")])
def test_a_reader_does_not_call_the_file_damaged(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "x.parquet"
    path.touch()
    with mock.patch("pyarrow.parquet.ParquetFile", side_effect=error), pytest.raises(type(error)):
        records.read_table(path)
    with pytest.raises(RecordError, match="delete it"):
        records.read_table(path)
