"""Locks between processes: one holder at a time, and none that outlives its holder.

The operating system keeps a lock where the file system can (flock). Where it cannot, as on some network file systems, a file
that names its process stands for the lock. A holder that is gone is then noticed on its own machine alone; on another one
the refusal says which file to delete.
"""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

#: What a file system without flock answers.
NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


class HeldError(RuntimeError):
    """A lock that another process holds; says how to get it."""


def acquire(path: Path) -> BaseFileLock:
    """Take a lock at once. It lasts until ``release`` or the end of the process, or until nothing refers to it.

    Raises:
        HeldError: if another process holds it.
    """
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise HeldError(f"{path} is locked by another process: wait for it or stop it") from None
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return _mark(path.with_name(f"{path.name}.held"))
    return lock


def _mark(marker: Path) -> BaseFileLock:
    lock = SoftFileLock(marker)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        remedy = f"wait for it or stop it; if none is left on any machine, delete {marker}"
        raise HeldError(f"{marker} says that another process is at work: {remedy}") from None
    return lock
