"""The machine fails in the middle of a job: the disk is full, memory is out, the GPU is lost; in every stage.

Each try runs one command of a tiny run (:mod:`replica.other_family`) in the folder as its predecessors left it, with one
stand-in. Files larger than a limit cannot be written (whatever library writes them), or the n-th read, write or forward raises
what torch or Python would. The command must end in one message, and every file under its final name must be whole.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from replica import other_family

from saffron import cli, records
from saffron.layout import Layout
from torture.parts import Fault, Part

#: Commands in the order of the workflow, and the folder of data/ or the file that each makes.
STAGES: dict[str, str] = {
    "sources": "sources",
    "models tokenizer": "models/tokenizer",
    "models policy": "models/seed0/policy",
    "models guard": "models/seed0/guard",
    "safety4m label": "safety4m/seed0/shard0.parquet",
    "safety4m gather": "safety4m/seed0/labels.parquet",
    "mrm train": "mrm/seed0/default/head.safetensors",
    "mrm evaluate": "mrm/seed0/default/evaluation.json",
    "search all": "search/seed0/scaling.parquet",
    "judge guard": "judge",
    "analysis": "analysis",
}
KEEP_BLOCKS = ("safety4m label", "search all")
ERRORS: dict[str, Callable[[], Exception]] = {
    "memory": MemoryError,
    "host memory": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    "lost GPU": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
    "GPU memory": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "lost disk": lambda: OSError(5, "Input/output error", "data"),
}
KINDS = ("full disk", *ERRORS)


@contextlib.contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def raising(error: Callable[[], Exception], after: int) -> Iterator[None]:
    """The call after so many of what reads, writes and computes raises."""
    left = after

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == -1:
                raise error()
            return function(*arguments, **named)

        return call

    places = [(records, "read_table"), (records, "write_table"), (records, "write_json"), (torch.nn.functional, "embedding")]
    with contextlib.ExitStack() as stack:
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, counted(getattr(module, name))))
        yield


def command(words: str, config: Path, out: Path) -> tuple[int, str]:
    """Exit status of a `saffron` command and what it printed to stderr."""
    printed = io.StringIO()
    arguments = ["saffron", *words.split(), "--config", str(config), "--out", str(out)]
    handlers = logging.getLogger().handlers[:]
    with (
        contextlib.redirect_stderr(printed),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(sys, "argv", arguments),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0), printed.getvalue()
        except BaseException as error:
            raise Fault(f"{words}: a traceback: {type(error).__name__}: {error}") from error
        finally:
            logging.getLogger().handlers[:] = handlers
    return 0, printed.getvalue()


def messages(printed: str) -> list[str]:
    """What `saffron` itself said; a progress bar may stand before it."""
    return re.findall(r"saffron: (.+)", printed)


def files(layout: Layout) -> dict[str, bytes]:
    """Content of everything that stages write, hidden blocks included."""
    found = [path for path in layout.data.rglob("*") if path.is_file() and "benchmarks" not in path.parts]
    return {path.relative_to(layout.data).as_posix(): path.read_bytes() for path in found}


def same(name: str, content: bytes, now: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether a file is as expected: byte for byte, but for what other batches may change where memory ran out.

    A batch of another size sums in another order. A record beside the tables says that it was halved, and their
    numbers agree to rounding.
    """
    if name.endswith(".batches.json"):
        return True
    if now.get(name) == content:
        return True
    halved = any(other.endswith(".batches.json") and now[other] != expected.get(other) for other in now)
    return halved and name in now and name.endswith(".parquet") and close(content, now[name])


def close(before: bytes, after: bytes) -> bool:
    """Whether two tables agree in everything but the last digits of numbers."""
    tables = [pq.read_table(io.BytesIO(content)) for content in (before, after)]
    if tables[0].schema.names != tables[1].schema.names or tables[0].num_rows != tables[1].num_rows:
        return False
    for one, other in zip(*(table.columns for table in tables), strict=True):
        if pa.types.is_floating(one.type):
            if not np.allclose(one.to_numpy(), other.to_numpy(), rtol=1e-4, atol=1e-4, equal_nan=True):
                return False
        elif one.to_pylist() != other.to_pylist():
            return False
    return True


def finished(folder: Path) -> tuple[Path, Layout]:
    """A run whose commands all ended well, and its config; kept between calls."""
    config, layout = folder / "mirrors/mine.yaml", Layout("mine", folder / "out")
    shutil.rmtree(folder, ignore_errors=True)
    other_family.write(folder / "mirrors")
    for words in STAGES:
        status, printed = command(words, config, folder / "out")
        if status:
            raise Fault(f"{words}: {printed}")
    return config, layout


def attempt(scratch: Path) -> Callable[[int], str]:
    """Prepare a finished run; each try makes one stage of a copy again while the machine fails."""
    config, whole = finished(scratch / "faults")
    expected = files(whole)

    def once(seed: int) -> str:
        rng = random.Random(seed)
        words, kind = list(STAGES)[seed % len(STAGES)], KINDS[seed // len(STAGES) % len(KINDS)]
        layout = Layout("mine", scratch / f"faults{seed}")
        shutil.rmtree(layout.root, ignore_errors=True)
        shutil.copytree(whole.root, layout.root)
        made = layout.data / STAGES[words]
        shutil.rmtree(made) if made.is_dir() else made.unlink()
        for blocks in list(made.parent.rglob(".blocks")) if words in KEEP_BLOCKS else ():
            shutil.rmtree(blocks)
        stand_in = (
            small_files(rng.choice([0, 64, 500, 2000, 8000, 40_000]))
            if kind == "full disk"
            else raising(ERRORS[kind], rng.randrange(12))
        )
        with stand_in:
            status, printed = command(words, config, layout.root)
        said = messages(printed)
        if status and (
            len(said) != 1 or not any(remedy in said[0] for remedy in ("run the same command again", "out of memory"))
        ):
            raise Fault(f"{words}, {kind}: not one message with a remedy: {printed[-1500:]}")
        now = files(layout)
        wrong = [name for name in expected.keys() & now.keys() if not same(name, expected[name], now, expected)]
        hidden = [path for path in layout.data.rglob(".*") if path.name not in (".blocks", ".seal.json") and path.is_file()]
        if wrong:
            raise Fault(f"{words}, {kind}: under its final name, but not whole: {wrong[:3]}")
        if hidden:
            raise Fault(f"{words}, {kind}: left behind: {hidden[:3]}")
        status_again, printed_again = command(words, config, layout.root)
        now = files(layout)
        other = [name for name, content in expected.items() if not same(name, content, now, expected)]
        if status_again or other:
            raise Fault(f"{words}, {kind}: not made good by running it again: {other[:3]} {printed_again[-1500:]}")
        shutil.rmtree(layout.root)
        return f"{kind}: one message, then made good" if status else f"{kind}: went on"

    return once


PART = Part("faults", 10 * len(STAGES) * len(KINDS), attempt)
