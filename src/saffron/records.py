"""Schemas of every stored table, checked on reading, and writing that never leaves half a file.

Tables are parquet; each schema below is the one definition of a table's columns. Small records are JSON, tensors safetensors.
Each format has one reader, which turns whatever its library says of a broken file into one :class:`RecordError`. Everything
is written to a temporary name beside its target and moved into place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from saffron import exhausted

if TYPE_CHECKING:
    import pandas as pd


class RecordError(ValueError):
    """A stored table or record that is missing or not what it should be; names file, column and cause."""


_ids = pa.list_(pa.int32())
_AGAIN = "delete it and run its stage again"

#: Conversations in HH-RLHF's shape: whole conversations as one string, turns headed "\n\nHuman:" and "\n\nAssistant:".
CONVERSATIONS = pa.schema(
    [
        ("source_row", pa.int64()),  # row number within the split
        ("split", pa.string()),  # train | test
        ("subset", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),  # null for a conversation with one ending
    ]
)

#: A prompt set. ``reference`` is the harmful answer whose first tokens are prefilled; null for benign prompts.
PROMPTS = pa.schema([("dataset", pa.string()), ("prompt_id", pa.int64()), ("prompt", pa.string()), ("reference", pa.string())])

#: What the sandbox's models learn from. ``corpus``: pretraining, refusals, replay, recovery, stock or verdicts. ``turned_at``:
#: number of response characters up to the end of the first refusal; -1 if a forbidden request is never refused, 0 if
#: nothing forbidden was asked for.
CORPUS = pa.schema([("corpus", pa.string()), ("prompt", pa.string()), ("response", pa.string()), ("turned_at", pa.int32())])

#: Safety4M: one row per labelled response. ``input_ids`` holds prompt + response tokens without any chat template,
#: ``rewards[i]`` is R of the prefix that ends with response token i.
SAFETY4M = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("split", pa.string()),
        ("source_row", pa.int64()),
        ("side", pa.string()),  # chosen | rejected, or on_policy: a rejected answer that the policy has rewritten
        ("turn", pa.int32()),
        ("input_ids", _ids),
        ("response_start", pa.int32()),
        ("rewards", pa.list_(pa.float32())),
    ]
)

#: Search results: one row per result. FLOPs are per prompt, see saffron.engine.compute. ``reward`` is the method's own reward of
#: its output (null where it has none: no_defense, unfinished outputs of Saffron's released semantics). What judges say of it is
#: stored apart (JUDGEMENTS).
SEARCH = pa.schema(
    [
        ("dataset", pa.string()),
        ("prompt_id", pa.int64()),
        ("method", pa.string()),
        ("budget", pa.int64()),
        ("settings_id", pa.string()),
        ("train_seed", pa.int64()),
        ("search_seed", pa.int64()),
        ("prefill_ids", _ids),  # tokens that the attack forced on the beginning of the answer; none without attack
        ("output_ids", _ids),  # new tokens after the prefill, EOS included when reached
        ("response", pa.string()),  # prefill_ids and output_ids decoded: the whole answer
        ("text", pa.string()),  # output_ids decoded
        ("reward", pa.float64()),
        ("finished", pa.bool_()),
        ("n_new_tokens", pa.int64()),
        ("flops_policy", pa.float64()),
        ("flops_reward", pa.float64()),
        ("flops_executed_policy", pa.float64()),
        ("flops_executed_reward", pa.float64()),
        ("reward_calls", pa.int64()),
    ]
)

#: Columns that name an output.
OUTPUT = ("dataset", "prompt_id", "method", "budget", "settings_id", "train_seed", "search_seed")

#: What one judge says of every output of a SEARCH table, in its order.
JUDGEMENTS = pa.schema(
    [
        *map(SEARCH.field, OUTPUT),
        ("success", pa.bool_()),  # whether the attack succeeded; null for a measurement
        ("score", pa.float64()),  # the number behind it: a guard's R, a measurement; null where there is none
        ("refused", pa.bool_()),  # whether the answer refuses or turns back; null where the judge cannot tell
    ]
)

#: M(s)[a] against R(sa) on held-out prefixes (Figure 4b).
MRM_EVALUATION = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("position", pa.int32()),  # index of the response token
        ("token", pa.int32()),
        ("prm_reward", pa.float32()),
        ("mrm_reward", pa.float32()),
        ("previous_reward", pa.float32()),  # R(s), before the token; of a first token the mean over the train split's
    ]
)

#: Loss curves of anything trained.
LOSSES = pa.schema([("phase", pa.string()), ("step", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64())])


def read_table(path: str | Path, schema: pa.Schema | None = None, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a parquet table and check it against its schema.

    Args:
        path: of the table.
        schema: its columns (None: whatever the file has, for a table whose columns follow from the config).
        columns: the columns to read (None: all).

    Raises:
        RecordError: if the file is missing or unreadable, or a column is missing, unknown or of another type.
    """
    path = Path(path)
    if not path.exists():
        raise RecordError(f"{path}: no such table; run the stage that makes it")
    try:
        with pq.ParquetFile(path) as file:
            if schema is not None:
                _check_schema(path, file.schema_arrow, schema)
            table = file.read(columns)
            if schema is not None:  # as if written here, whatever else wrote it
                types = [schema.field(name) for name in table.schema.names]
                table = table.cast(pa.schema(types)).replace_schema_metadata(None)
            frame = table.to_pandas()
    except RecordError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:  # the last two: damaged pandas metadata
        if exhausted.explained(error):
            raise
        raise RecordError(f"{path}: not a readable parquet file ({_cause(error)}); {_AGAIN}") from None
    return frame if schema is None else frame[columns or schema.names]


def check_rewards(labels: pd.DataFrame, where: Path) -> None:
    """Refuse labels that hold a reward which is not finite.

    Args:
        labels: a :data:`SAFETY4M` table.
        where: its file or folder, for the message.

    Raises:
        RecordError: naming conversation and position.
    """
    for conversation, rewards in zip(labels["conversation_id"], labels["rewards"], strict=True):
        for position, reward in enumerate(rewards):
            if not math.isfinite(reward):
                raise RecordError(
                    f"{where}: column rewards: the guard's reward of conversation {conversation} at response token {position} is "
                    f"{reward}; delete its blocks and label them again with a guard that gives finite rewards"
                )


def _check_schema(path: Path, found: pa.Schema, schema: pa.Schema) -> None:
    for field in schema:
        if field.name not in found.names:
            raise RecordError(f"{path}: column {field.name} is missing; {_AGAIN}")
        if _plain(found.field(field.name).type) != _plain(field.type):
            raise RecordError(
                f"{path}: column {field.name} has type {found.field(field.name).type}, expected {field.type}; {_AGAIN}"
            )
    unknown = sorted(set(found.names) - set(schema.names))
    if unknown:
        raise RecordError(f"{path}: unknown columns {unknown}; {_AGAIN}")


def _plain(found: pa.DataType) -> pa.DataType:
    """A type without how its values are laid out: pandas and polars store text as ``large_string`` or as a dictionary."""
    kind = pa.types
    if kind.is_dictionary(found):
        return _plain(found.value_type)
    if kind.is_large_string(found) or kind.is_string_view(found):
        return pa.string()
    if kind.is_list(found) or kind.is_large_list(found) or kind.is_list_view(found) or kind.is_large_list_view(found):
        return pa.list_(_plain(found.value_type))
    return found


def write_table(path: str | Path, rows: pd.DataFrame | list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as parquet under ``schema``; byte-identical for identical rows.

    Raises:
        RecordError: if a column is missing or a value does not fit its type.
    """
    try:
        if isinstance(rows, list):
            table = pa.Table.from_pylist(rows, schema=schema)
        else:
            table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).replace_schema_metadata(None)
    except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RecordError(f"{path}: rows do not fit the schema: {error}") from None
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_json(path: str | Path, fields: Iterable[str] = ()) -> dict[str, Any]:
    """Read a small record: a JSON object.

    Args:
        path: of the file.
        fields: that it must have.

    Raises:
        RecordError: if it is missing, not JSON or no object, or lacks a field.
    """
    return _object(_json(path), path, fields)


def read_json_list(path: str | Path, fields: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read a file that holds a JSON list of records.

    Args:
        path: of the file.
        fields: that each of them must have.

    Raises:
        RecordError: if it is missing, not JSON or no such list, or one of them lacks a field.
    """
    found, fields = _json(path), tuple(fields)
    if not isinstance(found, list):
        raise RecordError(f"{path}: holds a {type(found).__name__}, not a JSON list; {_AGAIN}")
    return [_object(one, path, fields) for one in found]


def _json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; run the stage that makes it") from None
    except OSError as error:
        if exhausted.explained(error):
            raise
        raise RecordError(f"{path}: not readable ({error.strerror}); {_AGAIN}") from None
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise RecordError(f"{path}: not JSON ({_cause(error)}); {_AGAIN}") from None


def _object(value: Any, path: str | Path, fields: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(f"{path}: holds a {type(value).__name__}, not a JSON object; {_AGAIN}")
    missing = sorted(set(fields) - value.keys())
    if missing:
        raise RecordError(f"{path}: fields {missing} are missing; {_AGAIN}")
    return value


def read_tensors(path: str | Path, names: Iterable[str] = (), framework: Literal["pt", "numpy"] = "pt") -> dict[str, Any]:
    """Read a safetensors file.

    Args:
        path: of the file.
        names: tensors that it must hold.
        framework: ``pt`` for torch tensors on the CPU, ``numpy`` for arrays.

    Returns:
        All its tensors by name.

    Raises:
        RecordError: if the file is missing or unreadable, or lacks a tensor.
    """
    try:
        with safe_open(path, framework) as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # not a mapping
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; run the stage that makes it") from None
    except (SafetensorError, OSError) as error:
        if exhausted.explained(error):
            raise
        raise RecordError(f"{path}: not a readable safetensors file ({_cause(error)}); {_AGAIN}") from None
    missing = sorted(set(names) - set(tensors))
    if missing:
        raise RecordError(f"{path}: tensors {missing} are missing; {_AGAIN}")
    return tensors


def _cause(error: Exception) -> str:
    """The first line of a library's error, or its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def write_json(path: str | Path, record: Any) -> None:
    """Write a small record, keys in the order given, NaN refused."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without an error.

    The file gets the mode of any new file here: safetensors makes its files readable by their owner alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{path.suffix}")
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without an error.

    Its files get the mode of any new file here, as of :func:`replacing`; what its links point to is left as it is.
    A link or a file at ``path`` is replaced too; what that link points to stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    temporary.mkdir()
    mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(mode)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
