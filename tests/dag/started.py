"""Snakemake in processes that have loaded it already, as loading it takes as long as a dry run and the tests do a hundred."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Such processes are forked from one that has nothing but these modules loaded: none of the project's code, and no threads.
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["snakemake.cli", "snakemake.api", "snakemake.workflow", "snakemake.dag"])


def run(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path) -> int:
    """What `snakemake` with these arguments does in a folder; its output goes to a file. Returns its exit status."""
    process = _LOADED.Process(target=_main, args=(list(arguments), folder, dict(environment), output))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _main(arguments: list[str], folder: Path, environment: dict[str, str], output: Path) -> None:
    with output.open("wb") as stream, open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    from snakemake.cli import main

    main(arguments)
