"""The paper's datasets from the hub, or from local mirrors of it, as the tables that every later stage reads.

Each reader takes a local folder (a hub snapshot and a mirror look the same) and checks schema, row counts and digests:
a dataset that is not the expected one stops the run here, in the first job, before any GPU is taken.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saffron import records
from saffron.config import HubDataset, HubSources
from saffron.hub import SourceError, fetch
from saffron.layout import Layout

HEX_PHI = "data/safety_bench/Harmful-HEx-PHI.jsonl"
REWARD_BENCH_SPLIT = "filtered"
REFUSALS = "refusals-"

#: Hub files of each dataset, by the name of its config key.
PATTERNS: dict[str, list[str]] = {
    "hh_rlhf": ["h*-*/*.jsonl.gz"],
    "harmful_hexphi": [HEX_PHI],
    "ai2_refusals": [f"data/{REWARD_BENCH_SPLIT}-*.parquet"],
}
LICENCES = {"hh_rlhf": "MIT", "harmful_hexphi": "gated, see its page on the hub", "ai2_refusals": "ODC-BY"}

_HH_FILE = re.compile(r"(?:(?P<subset>.+)-)?(?P<split>train|test)(?:-\d{5}-of-\d{5})?\.(?:jsonl|jsonl\.gz|parquet)")


def build(hub: HubSources, layout: Layout) -> dict[str, Any]:
    """Write conversations and both prompt sets.

    Returns:
        what ``sources.json`` keeps of them: ``origin``, ``counts`` by table, and by dataset its id, revision, licence and
        the sha256 of every file read.

    Raises:
        SourceError: if a dataset cannot be fetched or read, or is not the expected one.
    """
    sets = {"hh_rlhf": hub.hh_rlhf, "harmful_hexphi": hub.harmful_hexphi, "ai2_refusals": hub.ai2_refusals}
    # All three are fetched before any is read: a missing access shows at once, not after the work on another.
    folders = {name: fetch(file, f"sources.hub.{name}", "dataset", PATTERNS[name]) for name, file in sets.items()}
    conversations = read_hh_rlhf(folders["hh_rlhf"], expected=hub.hh_rlhf, max_rows=hub.max_rows)
    prompts = {
        "harmful_hexphi": read_harmful_hexphi(folders["harmful_hexphi"], expected=hub.harmful_hexphi, max_rows=hub.max_rows),
        "ai2_refusals": read_ai2_refusals(folders["ai2_refusals"], expected=hub.ai2_refusals, max_rows=hub.max_rows),
    }
    records.write_table(layout.conversations, conversations, records.CONVERSATIONS)
    for name, table in prompts.items():
        records.write_table(layout.prompts(name), table, records.PROMPTS)
    return {
        "origin": "hub",
        "counts": {"conversations": len(conversations), **{name: len(table) for name, table in prompts.items()}},
        "datasets": {name: _identity(name, file, folders[name]) for name, file in sets.items()},
    }


def _identity(name: str, file: HubDataset, folder: Path) -> dict[str, Any]:
    """Where a dataset came from; for a mirror no revision is claimed. A snapshot's folder is named after its commit."""
    digests = {path.relative_to(folder).as_posix(): records.sha256(path) for path in files_of(name, folder)}
    revision = (file.revision or folder.name) if file.path is None else "local mirror"
    return {"id": file.id, "revision": revision, "licence": LICENCES[name], "files": digests}


def files_of(name: str, folder: Path) -> list[Path]:
    """The files of a dataset that are read, in reading order.

    Raises:
        SourceError: if there are none.
    """
    if name == "hh_rlhf":
        found = [path for path in sorted(folder.rglob("*")) if _HH_FILE.fullmatch(path.name)]
        wanted = "<subset>/{train,test}.jsonl.gz"
    elif name == "harmful_hexphi":
        found = sorted(folder.rglob(Path(HEX_PHI).name))[:1]
        wanted = HEX_PHI
    else:
        found = sorted(folder.rglob(f"{REWARD_BENCH_SPLIT}-*.parquet"))
        wanted = PATTERNS[name][0]
    if not found:
        raise SourceError(f"sources.hub.{name}: {folder} holds no {wanted}; check the pinned revision, or the mirror's layout")
    return found


def read_hh_rlhf(folder: str | Path, *, expected: HubDataset | None = None, max_rows: int | None = None) -> pd.DataFrame:
    """HH-RLHF from a hub snapshot or mirror, as records.CONVERSATIONS.

    Files are ``<subset>/<split>.jsonl.gz`` as on the hub, or flat ``<subset>-<split>.jsonl.gz``; plain jsonl and parquet
    do as well. Subsets follow each other in alphabetical order, as ``datasets.load_dataset`` concatenates them.

    Args:
        folder: the local folder.
        expected: row counts by split and digests to check (None: nothing is known about this folder).
        max_rows: keep the first rows of each split only, after the check.

    Raises:
        SourceError: on a missing column, a value that is not text, another row count or digest.
    """
    key = "sources.hub.hh_rlhf"
    folder = Path(folder)
    files = files_of("hh_rlhf", folder)
    _check_digests(folder, files, expected, key)
    parts = []
    for path in files:
        match = _HH_FILE.fullmatch(path.name)
        assert match is not None
        rows = _text_columns(_rows(path, key), ("chosen", "rejected"), path, key)
        parts.append(pd.DataFrame({"split": match["split"], "subset": match["subset"] or path.parent.name, **rows}))
    table = pd.concat(parts).sort_values(["split", "subset"], ascending=[False, True], kind="stable", ignore_index=True)
    table.insert(0, "source_row", table.groupby("split").cumcount().astype("int64"))
    _check_counts(Counter(table["split"]), expected, key, what="split")
    return table if max_rows is None else table[table["source_row"] < max_rows].reset_index(drop=True)


def read_harmful_hexphi(folder: str | Path, *, expected: HubDataset | None = None, max_rows: int | None = None) -> pd.DataFrame:
    """Harmful HEx-PHI from a snapshot or mirror, as records.PROMPTS of the dataset ``harmful_hexphi``.

    Every line is a list of two messages: the user's, which is the prompt, and the assistant's, which is the reference.

    Raises:
        SourceError: on a line of another shape, another row count or digest.
    """
    key = "sources.hub.harmful_hexphi"
    folder = Path(folder)
    (path,) = files_of("harmful_hexphi", folder)
    _check_digests(folder, [path], expected, key)
    pairs = [_message_pair(line, f"{key}: {path}, line {number}") for number, line in enumerate(_lines(path, key), start=1)]
    _check_counts({"train": len(pairs)}, expected, key, what="split")
    return _prompts("harmful_hexphi", pairs[:max_rows])


def read_ai2_refusals(folder: str | Path, *, expected: HubDataset | None = None, max_rows: int | None = None) -> pd.DataFrame:
    """The ``refusals-*`` subsets of RewardBench's filtered split, as records.PROMPTS of the dataset ``ai2_refusals``.

    The rejected answer is the harmful one and becomes the reference.

    Raises:
        SourceError: on a missing column, another row count by subset, or another digest.
    """
    key = "sources.hub.ai2_refusals"
    folder = Path(folder)
    files = files_of("ai2_refusals", folder)
    _check_digests(folder, files, expected, key)
    columns = [_text_columns(_rows(path, key), ("prompt", "rejected", "subset"), path, key) for path in files]
    rows = [row for part in columns for row in zip(part["subset"], part["prompt"], part["rejected"], strict=True)]
    rows = [row for row in rows if row[0].startswith(REFUSALS)]
    _check_counts(Counter(subset for subset, _, _ in rows), expected, key, what="subset")
    return _prompts("ai2_refusals", [(prompt, rejected) for _, prompt, rejected in rows][:max_rows])


# ------------------------------------------------------------------------------------------------------------- parsing
def _rows(path: Path, key: str) -> dict[str, list[Any]]:
    """Columns of a jsonl, jsonl.gz or parquet file."""
    if path.suffix == ".parquet":
        try:
            return pq.read_table(path).to_pydict()
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{key}: {path} is not a readable parquet file ({error}); fetch it again") from None
    rows = list(_lines(path, key))
    if not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{key}: {path}: every line should be an object; the schema has changed, check the pinned revision")
    columns = rows[0].keys() if rows else ()
    return {column: [row.get(column) for row in rows] for column in columns}


def _lines(path: Path, key: str) -> Iterable[Any]:
    """Parsed lines of a jsonl file, blank ones left out."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parse(line, f"{key}: {path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SourceError(f"{key}: {path} cannot be read ({error}); fetch it again") from None


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise SourceError(f"{where}: not JSON ({error.msg}); fetch the file again") from None


def _text_columns(rows: Mapping[str, list[Any]], names: tuple[str, ...], path: Path, key: str) -> dict[str, list[str]]:
    for name in names:
        if name not in rows:
            raise SourceError(
                f"{key}: {path} has columns {sorted(rows)}, but {name} is needed; the schema has changed, check the revision"
            )
        wrong = next((value for value in rows[name] if not isinstance(value, str)), None)
        if not all(isinstance(value, str) for value in rows[name]):
            raise SourceError(
                f"{key}: {path}: column {name} should be text, found {type(wrong).__name__}; check the pinned revision"
            )
    return {name: rows[name] for name in names}


def _message_pair(line: Any, where: str) -> tuple[str, str]:
    roles = ("user", "assistant")
    messages = line if isinstance(line, list) else []
    good = len(messages) == 2 and all(
        isinstance(message, dict) and message.get("role") == role and isinstance(message.get("content"), str)
        for message, role in zip(messages, roles, strict=True)
    )
    if not good:
        raise SourceError(
            f"{where}: not a list of a user's and an assistant's message; the schema has changed, check the revision"
        )
    return messages[0]["content"], messages[1]["content"]


def _prompts(dataset: str, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    rows = [(dataset, number, prompt, reference) for number, (prompt, reference) in enumerate(pairs)]
    return pd.DataFrame(rows, columns=list(records.PROMPTS.names))


# ------------------------------------------------------------------------------------------------------------ checking
def _check_counts(found: Mapping[str, int], expected: HubDataset | None, key: str, *, what: str) -> None:
    if expected is None or dict(found) == expected.rows:
        return
    raise SourceError(
        f"{key}: rows by {what} are {dict(sorted(found.items()))}, but {key}.rows says {dict(sorted(expected.rows.items()))}; "
        "check the pinned revision, or correct the expectation"
    )


def _check_digests(folder: Path, files: list[Path], expected: HubDataset | None, key: str) -> None:
    digests = {} if expected is None else expected.sha256
    for name, digest in digests.items():
        path = folder / name
        if path not in files:
            raise SourceError(
                f"{key}.sha256 names {name}, which {folder} lacks; check the pinned revision, or the mirror's layout"
            )
        found = records.sha256(path)
        if found != digest:
            raise SourceError(
                f"{key}: {path} has sha256 {found}, but {key}.sha256 says {digest}; fetch it again, or check the revision"
            )
    unnamed = sorted({path.relative_to(folder).as_posix() for path in files} - digests.keys())
    if digests and expected is not None and expected.revision is None and expected.path is None and unnamed:
        raise SourceError(f"{key}.sha256 lacks {', '.join(unnamed)}: without {key}.revision every file needs its digest there")
