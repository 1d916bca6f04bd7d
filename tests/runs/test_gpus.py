from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saffron.runs import gpus

SMI = """#!/bin/sh
case "$*" in
    *index,uuid*) printf '0, GPU-a\\n1, GPU-b\\n' ;;
    *--id=GPU-b*) echo '2048, 75' ;;
esac
"""

HOLDER = """
import sys, time
from pathlib import Path
from saffron.runs import gpus
with gpus.claim(Path(sys.argv[1]), poll=0.02) as gpu:
    start = time.monotonic()
    time.sleep(0.15)
    print(gpu, start, time.monotonic())
"""


KEEPER = """
import sys, time
from pathlib import Path
from saffron.runs import gpus
with gpus.claim(Path(sys.argv[1])) as gpu:
    print(gpu, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs, as nvidia-smi tells."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in (gpus.RANK, gpus.VISIBLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "locks"


def test_two_claims_hold_two_gpus_and_a_third_waits(machine: Path) -> None:
    with gpus.claim(machine) as first:
        assert os.environ[gpus.VISIBLE] == first == "GPU-a"
        os.environ.pop(gpus.VISIBLE)  # what another process would see
        with gpus.claim(machine) as second:
            assert second == "GPU-b"
            os.environ.pop(gpus.VISIBLE)
            third = subprocess.Popen([sys.executable, "-c", HOLDER, str(machine)], stdout=subprocess.PIPE, text=True)
            time.sleep(1.0)
            assert third.poll() is None
            os.environ[gpus.VISIBLE] = second
        os.environ[gpus.VISIBLE] = first
        output, _ = third.communicate(timeout=30)
        assert output.split()[0] == "GPU-b"
    assert gpus.VISIBLE not in os.environ


def test_no_two_processes_hold_one_gpu_at_a_time(machine: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDER, str(machine)], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    held = [process.communicate(timeout=60)[0].split() for process in processes]
    assert {gpu for gpu, _, _ in held} == {"GPU-a", "GPU-b"}
    for gpu in ("GPU-a", "GPU-b"):
        spans = sorted((float(start), float(end)) for name, start, end in held if name == gpu)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_killed_process_gives_its_gpu_back(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "1")
    process = subprocess.Popen([sys.executable, "-c", KEEPER, str(machine)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "GPU-b"  # index 1 by its identity
    process.kill()
    process.wait()
    process.stdout.close()
    with gpus.claim(machine) as gpu:
        assert gpu == "GPU-b"


def test_what_accelerate_placed_stays_where_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.RANK, "3")
    monkeypatch.setenv(gpus.VISIBLE, "1")
    with gpus.claim(machine) as gpu:
        assert gpu is None
        assert os.environ[gpus.VISIBLE] == "1"


def test_jobs_within_one_allocation_of_one_gpu_wait_for_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv(gpus.VISIBLE, "1")
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDER, str(machine)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    held = [process.communicate(timeout=60)[0].split() for process in processes]
    (first, start, end), (second, later, _) = sorted(held, key=lambda item: float(item[1]))
    assert first == second == "GPU-b"
    assert float(start) < float(end) <= float(later)


def test_a_job_of_several_processes_holds_as_many_or_none(machine: Path) -> None:
    with gpus.claim(machine, count=2) as both:
        assert both == os.environ[gpus.VISIBLE] == "GPU-a,GPU-b"
    with gpus.claim(machine) as one:
        os.environ.pop(gpus.VISIBLE)  # what another process would see
        waiting = subprocess.Popen(
            [sys.executable, "-c", HOLDER.replace("poll=0.02", "poll=0.02, count=2"), str(machine)],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.0)
        assert waiting.poll() is None
        with gpus.claim(machine) as other:  # which the waiting job does not keep from others
            assert {one, other} == {"GPU-a", "GPU-b"}
        os.environ[gpus.VISIBLE] = str(one)
    assert waiting.communicate(timeout=30)[0].split()[0] == "GPU-a,GPU-b"
    with pytest.raises(gpus.GpuError, match="needs 3 GPUs, but it may use 2"), gpus.claim(machine, count=3):
        pass


def test_gpus_that_nothing_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path)
    with pytest.raises(gpus.GpuError, match=r"nvidia-smi does not answer.*CUDA_VISIBLE_DEVICES"), gpus.claim(tmp_path / "locks"):
        pass
    monkeypatch.setenv(gpus.VISIBLE, "0")
    with gpus.claim(tmp_path / "locks") as gpu:
        assert gpu == "0"


def test_jobs_within_one_slurm_allocation_share_its_gpus_out(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    with gpus.claim(machine) as first:
        monkeypatch.setenv(gpus.VISIBLE, "0,1")  # what another job of the allocation would see
        with gpus.claim(machine) as second:
            assert (first, second) == ("GPU-a", "GPU-b")


def test_a_machine_without_gpus_claims_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    with gpus.job(tmp_path / "record.json"):
        assert gpus.VISIBLE not in os.environ
    assert not (tmp_path / "record.json").exists()


def test_memory_and_utilisation_are_recorded(machine: Path, tmp_path: Path) -> None:
    record = tmp_path / "benchmarks" / "job.json"
    with gpus.watch(record, "GPU-b", every=0.05):
        time.sleep(0.1)
    values = json.loads(record.read_text())
    assert values["samples"] >= 1
    assert values["peak_memory_bytes"] == 2048 * 2**20
    assert values["mean_utilisation"] == 0.75
