"""The GPUs of one machine: one job, one GPU, and a record of what the job did to it.

Nothing here imports torch: a GPU is claimed before CUDA starts, by narrowing ``CUDA_VISIBLE_DEVICES``. A claim is a lock
on a file, held by the process, so it ends with the process however that ends. Under ``accelerate launch`` each process has
its own GPU already and is left as it is. In a Slurm allocation, in which a whole run may take place, jobs claim among its
GPUs as on any machine; a job that Slurm gave one GPU of its own claims that one and never waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock

from saffron.runs import locks

log = logging.getLogger(__name__)

#: Set by ``accelerate launch`` in each of its processes.
RANK = "LOCAL_RANK"
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Where NVIDIA's driver lists its GPUs.
DRIVER = Path("/proc/driver/nvidia/gpus")


class GpuError(RuntimeError):
    """GPUs that cannot be told apart, so that two jobs could get the same one."""


def devices() -> list[str]:
    """Identifiers of the GPUs this process may use; without ``nvidia-smi`` those that ``CUDA_VISIBLE_DEVICES`` names."""
    by_index = dict(line.split(", ") for line in _query("index,uuid"))
    if VISIBLE not in os.environ:
        return list(by_index.values())
    return [by_index.get(name, name) for name in os.environ[VISIBLE].split(",") if name.strip()]


@contextlib.contextmanager
def claim(folder: Path | None = None, poll: float = 1.0, count: int = 1) -> Iterator[str | None]:
    """Hold GPUs while the block runs and show the process these alone; waits while too many are held by others.

    Args:
        folder: that of the lock files (default: one per user in the system's temporary folder).
        poll: seconds between two looks.
        count: how many.

    Raises:
        GpuError: if there is a driver, but nothing names its GPUs, or if there are fewer than ``count``.

    Yields:
        The GPU (several as ``CUDA_VISIBLE_DEVICES`` lists them), or None if there is none, or ``accelerate`` has placed this
        process.
    """
    found = [] if RANK in os.environ else devices()
    if not found and RANK not in os.environ and VISIBLE not in os.environ and DRIVER.is_dir():
        raise GpuError(
            "there is an NVIDIA driver, but nvidia-smi does not answer, so jobs could not be kept from using one GPU at once: "
            "repair it (run `nvidia-smi` by hand to see what is wrong), or name this machine's GPUs in CUDA_VISIBLE_DEVICES"
        )
    if not found:
        yield None
        return
    if len(found) < count:
        raise GpuError(f"this job needs {count} GPUs, but it may use {len(found)} here: lower mrm.processes")
    folder = folder or Path(tempfile.gettempdir()) / f"saffron-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = os.environ.get(VISIBLE)
    gpu, held = _take(found, folder, poll, count)
    os.environ[VISIBLE] = gpu
    log.info("GPU %s", gpu)
    try:
        yield gpu
    finally:
        for lock in held:
            lock.release()
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _take(found: list[str], folder: Path, poll: float, count: int) -> tuple[str, list[BaseFileLock]]:
    waiting = False
    while True:
        held: dict[str, BaseFileLock] = {}
        for gpu in found:
            try:
                held[gpu] = locks.acquire(folder / f"{gpu}.lock")
            except locks.HeldError:
                continue
            if len(held) == count:
                return ",".join(held), list(held.values())
        for some in held.values():  # all or none: two jobs that each hold some would wait for each other
            some.release()
        if not waiting:
            log.info("too few of %d GPUs are free of other jobs; waiting", len(found))
            waiting = True
        time.sleep(poll)


@contextlib.contextmanager
def watch(record: Path, gpu: str | None, every: float = 5.0) -> Iterator[None]:
    """Write what the GPU reports while the block runs: peak memory (bytes) and mean utilisation (0 to 1), sampled.

    Without a GPU nothing is written. Sampling reads ``nvidia-smi`` from a thread of its own.
    """
    if gpu is None:
        yield
        return
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def sample() -> None:
        while True:
            samples.extend(_readings(gpu))
            if done.wait(every):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if samples:
            from saffron import records

            memory, utilisation = zip(*samples, strict=True)
            values = {
                "samples": len(samples),
                "peak_memory_bytes": max(memory),
                "mean_utilisation": sum(utilisation) / len(samples),
            }
            records.write_json(record, values)


@contextlib.contextmanager
def job(record: Path, count: int = 1) -> Iterator[None]:
    """GPUs for the block, and their record in ``record``: peak memory of one of them, mean utilisation."""
    with claim(count=count) as gpu, watch(record, gpu):
        yield


def _readings(gpu: str) -> list[tuple[float, float]]:
    rows = [line.split(", ") for line in _query("memory.used,utilization.gpu", gpu)]
    return [(float(memory) * 2**20, float(share) / 100) for memory, share in rows]


def _query(fields: str, gpu: str | None = None) -> list[str]:
    """Lines of ``nvidia-smi``; none if it is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *([f"--id={gpu}"] if gpu else [])]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=30
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
