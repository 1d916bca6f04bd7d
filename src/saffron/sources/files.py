"""The files that a source names, wherever they lie, and their rows: jsonl, jsonl.gz, json, parquet and csv."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from saffron import exhausted, hub
from saffron.config import Config, Rows
from saffron.sources.reading import Row, SourceError

#: Endings of the files that are read where none are named; a folder's json files are seldom rows.
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".csv")

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SPLIT = re.compile(r"(?:(?P<subset>.+)-)?(?P<split>train|test)(?:-\d{5}-of-\d{5})?\.(?:jsonl|jsonl\.gz|json|parquet|csv)")


@dataclass(frozen=True)
class File:
    """One file to read; ``name`` is its path below repository, folder or package."""

    path: Path
    name: str

    @property
    def split(self) -> str:
        """``test`` for a file of this name, otherwise ``train``."""
        found = _SPLIT.fullmatch(self.path.name)
        return found["split"] if found else "train"

    @property
    def says_split(self) -> bool:
        """Whether its name says which split it is."""
        return _SPLIT.fullmatch(self.path.name) is not None

    @property
    def subset(self) -> str:
        """What stands before the split in its name, otherwise its folder's name, otherwise its own."""
        found = _SPLIT.fullmatch(self.path.name)
        if found is None:
            return self.path.name.partition(".")[0]
        return found["subset"] or self.path.parent.name


@dataclass(frozen=True)
class Found:
    """The files of a source in reading order, and where they come from."""

    folder: Path
    files: tuple[File, ...]
    revision: str | None  # the commit that was read, for a dataset on the hub


def expanded(path: str, key: str) -> Path:
    """A path of a config, ``${NAME}`` replaced by the environment variable NAME.

    Raises:
        SourceError: if it is not set.
    """
    for name in _VARIABLE.findall(path):
        if not os.environ.get(name):
            raise SourceError(
                f"{key}.path: {path} needs the environment variable {name}, which is not set: export {name}=<folder>, or write "
                "the folder into the config"
            )
    return Path(_VARIABLE.sub(lambda found: os.environ[found[1]], path))


def find(rows: Rows, key: str) -> Found:
    """The files of a source; a dataset that is not cached is fetched from the hub.

    Args:
        rows: with origin hub, path or package.
        key: where it stands in the config, for messages.

    Raises:
        SourceError: if anything named is missing, or digests differ.
    """
    revision = None
    if rows.origin == "hub":
        file = rows.hub_file
        if file.path is not None:
            file = file.model_copy(update={"path": str(expanded(file.path, key))})
        folder = hub.fetch(file, key, "dataset", rows.files)
        revision = None if rows.path is not None else (rows.revision or folder.name)  # a snapshot's folder is its commit
    else:
        folder = place(rows, key)
    files = _matching(folder, rows, key)
    _check_digests(files, rows, key)
    return Found(folder, tuple(files), revision)


def place(rows: Rows, key: str) -> Path:
    """The local file or folder of a source that is not fetched.

    Raises:
        SourceError: if it is not there.
    """
    if rows.package is not None:
        return _package(rows.package, key)
    folder = expanded(str(rows.path), key)
    if not folder.exists():
        raise SourceError(f"{key}.path: no file or folder {folder}; correct the path, or put the data there")
    return folder


def _package(name: str, key: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"{key}.package: no installed package {name} with a folder; install it, or correct the name")
    return Path(next(iter(spec.submodule_search_locations)))


def require_local(config: Config, *, models: bool = False) -> None:
    """Refuse a config whose local files are not there; a run asks before its first job, and so does `saffron validate`.

    Args:
        config: any.
        models: whether mirrors of models must be there too, which a run whose models are made can do without.

    Raises:
        SourceError: naming every such key and the remedy.
    """
    missing = [
        f"{key}.path: no folder {file.path}; put the mirror of {file.id} there, or remove the key to use the hub"
        for key, kind, file in hub.files(config)
        if models and kind == "model" and file.path is not None and not Path(file.path).is_dir()
    ]
    for name, rows in config.sources.all_rows():
        key = f"sources.{name}"
        if rows.origin in ("path", "package") or (rows.origin == "hub" and rows.path is not None):
            try:
                _matching(place(rows, key), rows, key)
            except SourceError as error:
                missing.append(str(error))
    if missing:
        raise SourceError("\n".join(missing))


def local_digests(rows: Rows, key: str) -> dict[str, str]:
    """sha256 of every local file that a source reads, by name; empty for the hub, and where anything is missing."""
    if rows.origin not in ("path", "package") and not (rows.origin == "hub" and rows.path):
        return {}
    try:
        return {file.name: sha256(file.path) for file in _matching(place(rows, key), rows, key)}
    except SourceError:  # said by the job itself, and by `saffron validate`
        return {}


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def count(rows: Rows, key: str) -> int | None:
    """Number of rows that a source's local files hold; None for the hub, and where they are not there."""
    try:
        if rows.origin == "hub":
            return None
        found = _matching(place(rows, key), rows, key)
        return sum(selected(row, rows.where) for file in found for row in read(file, key))
    except SourceError:
        return None


def _matching(folder: Path, rows: Rows, key: str) -> list[File]:
    if folder.is_file():
        return [File(folder, folder.name)]
    if rows.files:
        found = {path for pattern in rows.files for path in folder.glob(pattern) if path.is_file()}
        for pattern in rows.files:
            if not any(folder.glob(pattern)):
                raise SourceError(
                    f"{key}.files: {folder} holds no {pattern}; correct the pattern, the revision or the mirror's layout"
                )
    else:
        found = {path for path in folder.rglob("*") if path.is_file() and path.name.endswith(ENDINGS)}
    if not found:
        raise SourceError(f"{key}: {folder} holds no file that ends in {', '.join(ENDINGS)}; put rows there, or name files")
    files = [File(path, path.relative_to(folder).as_posix()) for path in sorted(found)]
    # As datasets.load_dataset concatenates them: train before test, subsets in alphabetical order.
    return sorted(files, key=lambda file: (file.split != "train", file.subset if file.says_split else "", file.name))


def _check_digests(files: Sequence[File], rows: Rows, key: str) -> None:
    by_name = {file.name: file.path for file in files}
    for name, digest in rows.sha256.items():
        if name not in by_name:
            raise SourceError(f"{key}.sha256 names {name}, which is not among the files read: {', '.join(by_name)}; correct it")
        found = sha256(by_name[name])
        if found != digest:
            raise SourceError(
                f"{key}: {by_name[name]} has sha256 {found}, but {key}.sha256 says {digest}; fetch it again or check the revision"
            )
    unnamed = sorted(by_name.keys() - rows.sha256.keys())
    if rows.sha256 and rows.origin == "hub" and rows.revision is None and rows.path is None and unnamed:
        raise SourceError(f"{key}.sha256 lacks {', '.join(unnamed)}: without {key}.revision every file needs its digest there")


# ------------------------------------------------------------------------------------------------------------- parsing
def read(file: File, key: str) -> Iterator[Row]:
    """The rows of one file, in order.

    Raises:
        SourceError: if it cannot be read or parsed; names file and row.
    """
    for number, value in enumerate(_values(file.path, f"{key}: {file.path}"), start=1):
        yield Row(f"{key}: {file.path}, row {number}", value)


def _values(path: Path, where: str) -> Iterable[Any]:
    name = path.name
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _lines(path, where)
    if name.endswith(".json"):
        return _json(path, where)
    if name.endswith(".parquet"):
        return _parquet(path, where)
    if name.endswith(".csv"):
        return _csv(path, where)
    raise SourceError(f"{where}: no known ending; rows are read from {', '.join(ENDINGS)} and .json")


def _lines(path: Path, where: str) -> Iterator[Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parsed(line, f"{where}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise SourceError(f"{where} cannot be read ({error}); save it as UTF-8, or fetch it again") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or lists within lists without end
        cause = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise SourceError(f"{where}: not JSON ({cause}); mend it, or fetch the file again") from None


def _json(path: Path, where: str) -> list[Any]:
    try:
        value = _parsed(path.read_text("utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{where} cannot be read ({error}); save it as UTF-8, or fetch it again") from None
    if not isinstance(value, list):
        raise SourceError(
            f"{where}: should be one list of rows, found {type(value).__name__}; write a list, or one row a line (jsonl)"
        )
    return value


def _parquet(path: Path, where: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if exhausted.explained(error):
            raise
        raise SourceError(f"{where} is not a readable parquet file ({error}); fetch it again") from None


def _csv(path: Path, where: str) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where} cannot be read as csv ({error}); save it as UTF-8 with a header line") from None
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise SourceError(f"{where}, row {number}: another number of values than the header has; quote commas in texts")
    return rows


def selected(row: Row, where: Mapping[str, str]) -> bool:
    """Whether a row has the values that a source's ``where`` asks for."""
    return all(fnmatchcase(str(row.column(name)), pattern) for name, pattern in where.items())
