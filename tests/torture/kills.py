"""Kills at random moments of the smoke run: of Snakemake, of one job, of all at once; each run is then resumed.

A try takes a finished run, deletes a stage chosen by its seed and all later ones, runs again, kills at a moment between start
and the time that those stages took undisturbed, and resumes. What was finished before the kill must not be made again, and all
result tables must be the bytes of the undisturbed run.
"""

from __future__ import annotations

import base64
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from dag.conftest import RESULTS, Project, copy

from saffron import config as configs
from saffron.layout import Layout
from saffron.runs import provenance
from torture.parts import Fault, Part

#: Made again whenever anything was: they show times.
LAST = ("report.html", "provenance.json")
WHO = ("snakemake", "job", "all")
#: Seconds that Snakemake takes before its first job.
STARTING = 3
#: A resumed run may take so many seconds before it counts as hanging.
PATIENCE = 1800


def undisturbed(scratch: Path) -> Project:
    """A finished smoke run of the code as it is now, kept between calls."""
    folder = scratch / "undisturbed"
    shutil.rmtree(folder / "src", ignore_errors=True)
    project = copy(folder)
    complete(project)
    return project


def snakemake(project: Project, *targets: str) -> list[str]:
    """The command of the smoke run, one job at a time."""
    return project.command("--configfile", "config/smoke.yaml", "--cores", "1", *targets)


def complete(project: Project, *targets: str) -> str:
    """The smoke run to its end; returns what it printed."""
    command = snakemake(project, *targets)
    run = subprocess.run(command, cwd=project.root, env=project.environment(), capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode:
        raise Fault(f"the run ended with status {run.returncode}:\n{(run.stdout + run.stderr)[-3000:]}")
    return run.stdout + run.stderr


def encoded(name: str) -> str:
    """How Snakemake calls the file in which it keeps what it knows of an output."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def finished(project: Project) -> dict[str, int]:
    """When each output of a finished job, and each finished block, was written (ns)."""
    state = project.root / ".snakemake"

    def names(folder: Path) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file()) if folder.exists() else ()
        return {
            base64.urlsafe_b64decode("".join(p.removeprefix("@") for p in f.relative_to(folder).parts)).decode() for f in files
        }

    data = project.root / "data/smoke"
    outputs = [project.root / name for name in names(state / "metadata") - names(state / "incomplete")]
    blocks = [path for stage in ("safety4m", "search") for path in (data / stage).rglob(".blocks/**/*.parquet")]
    paths = [path for path in (*outputs, *blocks) if path.exists() and not path.name.startswith(".") and path.name not in LAST]
    return {path.relative_to(project.root).as_posix(): path.stat().st_mtime_ns for path in paths}


def victims(root: psutil.Process, who: str, rng: random.Random) -> list[psutil.Process]:
    """The processes to kill; all of the run where no job runs."""
    children = root.children(recursive=True)
    jobs = [process for process in children if process.name().startswith(("saffron", "python"))]
    if who == "job" and jobs:
        return [rng.choice(jobs)]
    return [root] if who == "snakemake" else [root, *children]


def attempt(scratch: Path) -> Callable[[int], str]:
    """Prepare a finished run; each try disturbs a copy of it."""
    before = undisturbed(scratch)
    results = before.results()
    layout = Layout("smoke", before.root)
    times = provenance.runtimes(configs.load(before.root / "config/smoke.yaml"), layout)["stages"]
    stages = (*RESULTS, "figures")

    def once(seed: int) -> str:
        rng = random.Random(seed)
        first = rng.randrange(len(stages))
        who = rng.choice(WHO)
        moment = rng.random()
        folder = scratch / f"kill{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        project = copy(folder, of=before.root, extra=("data", "figures", ".snakemake"))
        for stage in stages[first:]:
            shutil.rmtree(project.root / ("figures/smoke" if stage == "figures" else f"data/smoke/{stage}"))
        # Figures follow the analysis alone: they are drawn again where they are all that is missing.
        targets = () if stages[first] == "figures" else ("analysis",)
        running = [stage for stage in stages[first:] if stage != "figures" or not targets]
        after = STARTING + moment * sum(times[stage]["wall_s"] for stage in running)
        run = subprocess.Popen(
            snakemake(project, *targets),
            cwd=project.root,
            env=project.environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        root = psutil.Process(run.pid)
        time.sleep(after)
        try:
            processes = root.children(recursive=True)
            for process in victims(root, who, rng):
                process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            processes = []
        if who == "snakemake":  # whose jobs go on; what they finish is not known to have been
            psutil.wait_procs(processes, timeout=PATIENCE)
        ended = run.wait(PATIENCE)
        kept = finished(project)
        complete(project, *targets)
        now = finished(project)
        again = sorted(name for name, written in kept.items() if now.get(name) != written)
        if again:
            raise Fault(f"finished before the kill of {who} after {after:.1f} s, and made again: {again[:5]}")
        found = project.results()
        compared = {name for name in results.keys() | found.keys() if not (targets and name.startswith("figures/"))}
        differ = sorted(name for name in compared if results.get(name) != found.get(name))
        if differ:
            raise Fault(f"after the kill of {who} after {after:.1f} s other bytes: {differ[:5]}")
        shutil.rmtree(folder)
        return "finished before the kill" if ended == 0 else f"{who} killed, resumed"

    return once


PART = Part("kills", 100, attempt)
