from __future__ import annotations

import errno
import fcntl
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from saffron.runs import locks

HOLDER = """
import fcntl, sys, time
from pathlib import Path
from saffron.runs import locks

def flock(*_):
    raise OSError(int(sys.argv[2]), "no flock here")

if sys.argv[2] != "0":
    fcntl.flock = flock
lock = locks.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=[0, errno.ENOSYS, errno.ENOLCK], ids=["flock", "ENOSYS", "ENOLCK"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file system with flock (0), or one that answers with this error."""

    def flock(*_: object) -> None:
        raise OSError(request.param, "no flock here")

    if request.param:
        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


def test_one_holder_at_a_time_and_a_killed_one_leaves_nothing(tmp_path: Path, file_system: int) -> None:
    path = tmp_path / ".running"
    command = [sys.executable, "-c", HOLDER, str(path), str(file_system)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(locks.HeldError, match=r"\.running.* wait for it or stop it"):
        locks.acquire(path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    locks.acquire(path).release()


def test_a_released_lock_is_free(tmp_path: Path, file_system: int) -> None:
    for _ in range(2):
        locks.acquire(tmp_path / "gpu.lock").release()


def test_a_marker_of_another_machine_is_named_with_its_remedy(tmp_path: Path, file_system: int) -> None:
    """Whether a process of another machine still lives cannot be seen from here."""
    marker = tmp_path / ".running.held"
    marker.write_text(f"1\nnot-{socket.gethostname()}\n")
    if file_system:
        with pytest.raises(locks.HeldError, match=rf"delete {marker}"):
            locks.acquire(tmp_path / ".running")
        marker.unlink()
    locks.acquire(tmp_path / ".running").release()


def test_what_is_no_matter_of_locks_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken disk"):
        locks.acquire(tmp_path / ".running")
