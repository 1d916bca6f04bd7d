"""Where a run's results come from: versions, commit, seeds, hardware, the digest of every output, and times.

Times never enter a result table. Wall time and memory are read here from the files that the workflow's ``benchmark``
directives leave; CPU time is recorded by the jobs themselves, as Snakemake's own (``cpu_time``) is sampled, every 30 s after
the first 15, and leaves out what a job computes after the last sample.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saffron import config as configs
from saffron import records, workflow
from saffron.config import Config
from saffron.figures import discovery
from saffron.layout import Layout

#: What results depend on besides the config's values.
DEPENDED_ON = ("Snakefile", "workflow", "src", "notebooks", "requirements.lock", "data/reference/paper")

STAGES = ("sources", "models", "safety4m", "mrm", "search", "judge", "analysis", "figures")

#: What lies in a run's folder and is no output: logs, times, the resolved config, and the records about the run.
NO_OUTPUTS = ("logs", "benchmarks", "config.yaml", "provenance.json", "runtimes.json", "speed.json")


# --------------------------------------------------------------------------------------------------------- provenance
def write(config: Config, layout: Layout) -> None:
    """Write ``data/<config>/provenance.json`` of the outputs that lie there now."""
    records.write_json(layout.provenance, collect(config, layout))


def collect(config: Config, layout: Layout) -> dict[str, Any]:
    """The record: what ran, from which code, on what, and the sha256 and size of every output by its path."""
    return {
        "config": config.name,
        "config_sha256": config_sha256(config),
        "seeds": seeds(config),
        "git": git(),
        "hardware": hardware(),
        "dtype": dtype(config, layout),
        "versions": versions(),
        "outputs": {
            path.relative_to(layout.root).as_posix(): {"sha256": records.sha256(path), "bytes": path.stat().st_size}
            for path in outputs(layout)
        },
    }


def outputs(layout: Layout) -> list[Path]:
    """Every file that the stages made, sorted: all of a run's folders but NO_OUTPUTS and hidden files (resumable blocks)."""
    places = [*sorted(path for path in layout.data.glob("*") if path.name not in NO_OUTPUTS), layout.figures]
    files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(layout.root).parts))


def config_sha256(config: Config) -> str:
    """Digest of the resolved config; equal values give equal digests, however the file is laid out."""
    return hashlib.sha256(json.dumps(configs.as_dict(config), sort_keys=True).encode()).hexdigest()


def seeds(config: Config) -> dict[str, Any]:
    """Every seed the results depend on."""
    world = config.sources.sandbox
    return {
        "train": config.train_seeds,
        "search": config.search.seeds,
        "analysis": config.analysis.seed,
        "world": world.world_seed if world else None,
        "benchmark": world.benchmark_seed if world else None,
    }


def dtype(config: Config, layout: Layout) -> dict[str, Any]:
    """The run's dtype, and how it was chosen if the config left that to a measurement (``runtime.dtype: auto``)."""
    return records.read_json(layout.dtype_record) if layout.dtype_record.exists() else {"dtype": config.runtime.dtype}


def git() -> dict[str, Any]:
    """Commit of the code and whether what results depend on differs from it; outside a repository null, and why.

    The sha256 of the code itself (:func:`code_sha256`) says which it was where no commit does.
    """
    found: dict[str, Any] = {"commit": None, "modified": None, "code_sha256": code_sha256(Path())}
    try:
        top, commit = _lines("git", "rev-parse", "--show-toplevel", "HEAD")
        changes = _lines("git", "status", "--porcelain", "--", *DEPENDED_ON)
    except FileNotFoundError:
        return found | {"why": "git is not installed"}
    except subprocess.CalledProcessError as error:
        return found | {"why": (error.stderr.strip() or "git failed").splitlines()[0].removeprefix("fatal: ")}
    except (OSError, subprocess.SubprocessError) as error:
        return found | {"why": f"git failed: {error}"}
    if Path(top).resolve() != Path.cwd().resolve():
        return found | {"why": f"this folder is not a clone, but lies in the repository {top}"}
    return found | {"commit": commit, "modified": bool(changes)}


def code_sha256(root: Path) -> str:
    """sha256 over names and bytes of all files that results depend on besides the config, caches left out."""
    digest = hashlib.sha256()
    for name in DEPENDED_ON:
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path] * path.is_file():
            if file.is_file() and not any(part == "__pycache__" or part.endswith(".egg-info") for part in file.parts):
                digest.update(f"{file.relative_to(root).as_posix()}\0{records.sha256(file)}\n".encode())
    return digest.hexdigest()


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine."""
    gpus = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus.splitlines() if gpus else [],
    }


def versions() -> dict[str, str]:
    """Python and every installed distribution."""
    installed = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions() if item.metadata["Name"]}
    return {"python": platform.python_version(), **dict(sorted(installed.items(), key=lambda item: item[0].lower()))}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown"
    )


def _output(*command: str) -> str | None:
    """What a command prints, or None if it is not installed or fails."""
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _lines(*command: str) -> list[str]:
    """The lines that a command prints."""
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=60
    ).stdout.splitlines()


# ----------------------------------------------------------------------------------------------------------- runtimes
def write_runtimes(config: Config, layout: Layout) -> dict[str, Any]:
    """Write ``data/<config>/runtimes.json`` and return it (see :func:`runtimes`)."""
    record = runtimes(config, layout)
    records.write_json(layout.runtimes, record)
    return record


def write_usage(path: Path) -> None:
    """Write what this process, and all that it has started and waited for, used so far.

    ``{"cpu_s": seconds, "max_rss_mb": largest memory of one of them}``. Snakemake's own figures are those of the command that
    it started, which may wait for a fork (``saffron.forkserver``).
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    memory = max(one.ru_maxrss for one in used) / unit
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    records.write_json(path, {"cpu_s": round(seconds, 2), "max_rss_mb": round(memory, 1)})


def runtimes(config: Config, layout: Layout) -> dict[str, Any]:
    """Wall time, CPU time and memory by stage, from what Snakemake and the jobs recorded.

    ``wall_s`` of a stage is the time during which at least one of its jobs ran (jobs run side by side, and a stage may
    have been rerun in part); ``job_s`` adds up its jobs, ``cpu_s`` their CPU time (None if a job recorded none);
    ``max_rss_mb`` is the largest memory of one job. Jobs of `make ablations` are in no stage and not in the total; they
    have a row of their own.

    Raises:
        RecordError: if there are no benchmark files.
    """
    jobs: dict[str, list[Job]] = {}
    beyond: list[Job] = []
    for stage in STAGES:
        for path in sorted((layout.benchmarks / stage).glob("*.tsv")):
            group = beyond if _beyond_replication(config, path.stem) else jobs.setdefault(stage, [])
            group.append(_job(path))
    if not jobs:
        raise records.RecordError(f"{layout.benchmarks}: no benchmark files; run `make replicate CONFIG={config.name}` first")
    summary = {stage: _summary(items) for stage, items in jobs.items()}
    total = _summary([item for items in jobs.values() for item in items])
    record = {"config": layout.name, "hardware": hardware(), "stages": summary, "total": total}
    if beyond:
        record["ablations"] = _summary(beyond)
    return record


def _beyond_replication(config: Config, job: str) -> bool:
    """Whether a job, named as its log, is one of `make ablations` or `make criteria` rather than of `make replicate`."""
    first, *parts = job.split(".")
    others = {name for name, item in config.search.experiments.items() if item.group != "replicate"}
    others |= set(workflow.variants(config, None)) - set(workflow.variants(config))
    if first in [f"search_{group}" for group in workflow.GROUPS]:
        return first != "search_replicate"
    if first.startswith("judge_"):
        return first.removeprefix("judge_").removeprefix("early_") != "replicate"
    return (
        first in ("other_guard", "compare_on_outputs", "criteria")
        or any(first in discovery.pages(config, group) for group in workflow.GROUPS if group != "replicate")
        or bool(others & set(parts))
    )


@dataclass(frozen=True)
class Job:
    """What a job took: start and end in s, CPU time in s (None if it was not recorded), largest memory in MB."""

    start: float
    end: float
    cpu: float | None
    memory: float


def _job(path: Path) -> Job:
    """A job from its benchmark file.

    The file holds how long the job took, but not when. It is written at the job's end, so its own time says when that was:
    a copy has to keep times, or jobs that ran one after another seem to have run side by side.
    """
    with path.open(encoding="utf-8") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    end = path.stat().st_mtime
    memory = row.get("max_rss", "-")
    recorded = path.with_name(f"{path.stem}.cpu.json")
    used = records.read_json(recorded, ("cpu_s",)) if recorded.exists() else {}
    return Job(
        start=end - float(row["s"]),
        end=end,
        cpu=used.get("cpu_s"),
        memory=max(used.get("max_rss_mb", 0.0), 0.0 if memory in ("-", "NA") else float(memory)),
    )


def runtime_rows(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and times of every line of a runtimes table: the stages, their total, and the ablations where they ran."""
    rows = [*record["stages"].items(), ("total", record["total"])]
    return [*rows, ("ablations", record["ablations"])] if "ablations" in record else rows


#: Columns of a runtimes table as the README and the report show it.
RUNTIME_COLUMNS = ("stage", "jobs", "wall time", "job time", "CPU time", "memory of the largest job")


def runtime_cells(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells of RUNTIME_COLUMNS, a tuple per line; runs that were recorded without CPU time have a dash for it."""
    return [
        (name, str(row["jobs"]), *(_seconds(row.get(key)) for key in ("wall_s", "job_s", "cpu_s")), f"{row['max_rss_mb']:.0f} MB")
        for name, row in runtime_rows(record)
    ]


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} s"


def _summary(jobs: list[Job]) -> dict[str, Any]:
    wall, last = 0.0, float("-inf")
    for job in sorted(jobs, key=lambda job: (job.start, job.end)):
        wall += max(0.0, job.end - max(job.start, last))
        last = max(last, job.end)
    cpu = [job.cpu for job in jobs if job.cpu is not None]
    return {
        "jobs": len(jobs),
        "wall_s": round(wall, 1),
        "job_s": round(sum(job.end - job.start for job in jobs), 1),
        "cpu_s": round(sum(cpu), 1) if len(cpu) == len(jobs) else None,
        "max_rss_mb": round(max(job.memory for job in jobs), 1),
    }


def render_runtimes(record: dict[str, Any]) -> str:
    """The table of times, one line per stage."""
    lines = [f"{'stage':<12}{'jobs':>6}{'wall':>10}{'job time':>11}{'CPU time':>11}{'memory':>10}"]
    for stage, row in runtime_rows(record):
        times = f"{_time(row['wall_s']):>10}{_time(row['job_s']):>11}{_time(row.get('cpu_s')):>11}"
        lines.append(f"{stage:<12}{row['jobs']:>6}{times}{row['max_rss_mb']:>7.0f} MB")
    return "\n".join(lines)


def render_total(record: dict[str, Any]) -> str:
    """Wall time of the whole run and, longest first, of its stages, with CPU times in parentheses, in one line."""
    stages = sorted(record["stages"].items(), key=lambda item: -item[1]["wall_s"])
    each = ", ".join(f"{name} {_both(row)}" for name, row in stages)
    return f"time (CPU time): {_both(record['total'])}; {each}"


def _both(row: dict[str, Any]) -> str:
    return f"{_time(row['wall_s'])} ({_time(row.get('cpu_s'))})"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
