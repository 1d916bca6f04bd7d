"""The seal of a finished run: what its last successful end left there, so that a file damaged since is named before it is used.

The workflow seals a run when it ends without an error and looks at the seal before it starts a job; commands about a finished
run look at it as well. Any job that begins breaks it, as what the job writes is right to differ. Deleted files are no damage:
they are made again.
"""

from __future__ import annotations

import os
from pathlib import Path

from saffron import records
from saffron.layout import Layout
from saffron.runs import provenance

#: Snakemake's file in a folder that a job made, whose time is the folder's.
STAMP = ".snakemake_timestamp"


def path(layout: Layout) -> Path:
    """Where the seal of a run lies."""
    return layout.data / ".seal.json"


def write(layout: Layout) -> None:
    """Seal every output that is there now."""
    found = {file.relative_to(layout.root).as_posix(): _entry(file) for file in provenance.outputs(layout)}
    records.write_json(path(layout), found)


def discard(layout: Layout) -> None:
    """Break the seal: something is about to be made."""
    path(layout).unlink(missing_ok=True)


def check(layout: Layout) -> None:
    """Refuse outputs that are not what the run left there; without a seal nothing is checked.

    A file whose size, times and place are those that were noted is not read.

    Raises:
        RecordError: names the first damaged file, and how many there are.
    """
    if not path(layout).exists():
        return
    sealed = records.read_json(path(layout))
    damaged = [name for name, entry in sealed.items() if _differs(layout.root / name, entry)]
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise records.RecordError(
            f"{layout.root / damaged[0]}{more}: not what the finished run left there (damaged, or edited by hand); delete it, of "
            f"a model the whole folder, and run the same command again; to keep it as it is, delete {path(layout)}"
        )


def restore_times(layout: Layout) -> None:
    """Give the files of a sealed run that was copied the times that the run left, where they hold what the run left.

    Snakemake compares folders by their times alone: a copy with new times (``cp -r``) would train all models again.
    """
    if not path(layout).exists():
        return
    sealed = {layout.root / name: entry for name, entry in records.read_json(path(layout)).items()}
    newer = [file for file, entry in sealed.items() if file.is_file() and file.stat().st_mtime_ns != entry["stat"][1]]
    for file in newer:
        if records.sha256(file) == sealed[file]["sha256"]:
            os.utime(file, ns=(sealed[file]["stat"][1],) * 2)
    for stamp in layout.data.rglob(STAMP) if newer else ():
        inside = [entry["stat"][1] for file, entry in sealed.items() if stamp.parent in file.parents]
        if inside:
            os.utime(stamp, ns=(max(inside),) * 2)


def _entry(file: Path) -> dict[str, object]:
    return {"sha256": records.sha256(file), "stat": _stat(file)}


def _stat(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _differs(file: Path, entry: dict[str, object]) -> bool:
    return file.is_file() and _stat(file) != entry["stat"] and records.sha256(file) != entry["sha256"]
