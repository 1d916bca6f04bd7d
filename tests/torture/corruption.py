"""Stored files of a finished run, damaged one at a time, whatever their format: found by name before use, or made again.

A try damages one file in one way, both chosen by its seed in turn, and does what `make smoke` does. Either a command ends with
an error that names the file, or all result tables are the bytes of the sound run afterwards.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from saffron.layout import Layout
from saffron.runs import provenance, seals
from torture.kills import undisturbed
from torture.parts import Fault, Part

KINDS = ("cut", "emptied", "flipped", "replaced")


def damage(path: Path, kind: str, other: Path, seed: int) -> None:
    """Damage a file in place: half of it cut off, all of it, one bit of one byte turned, or another file's content."""
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "emptied":
        content = bytearray()
    elif kind == "flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        content = bytearray(other.read_bytes())
    path.write_bytes(content)


def attempt(scratch: Path) -> Callable[[int], str]:
    """Prepare a finished run; each try damages one file of it and puts everything back."""
    sound = undisturbed(scratch)
    if not seals.path(Layout("smoke", sound.root)).exists():  # nothing was to be done, so nothing ended
        seals.write(Layout("smoke", sound.root))
    results = sound.results()
    names = [path.relative_to(sound.root) for path in provenance.outputs(Layout("smoke", sound.root)) if path.stat().st_size]

    def once(seed: int) -> str:
        name, kind = names[seed % len(names)], KINDS[seed // len(names) % len(KINDS)]
        folder = scratch / f"corruption{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound.root, folder)
        alike = [other for other in names if other.suffix == name.suffix and other != name] or [
            other for other in names if other != name
        ]
        project = type(sound)(folder)
        other = sound.root / alike[seed % len(alike)]
        if other.read_bytes() == (folder / name).read_bytes():
            kind = "cut"  # a file replaced by its like is not damaged
        damage(folder / name, kind, other, seed)
        if (folder / name).read_bytes() == (sound.root / name).read_bytes():
            raise Fault(f"{name} {kind}: not damaged")
        printed, failed = "", False
        for command in (
            project.command("--configfile", "config/smoke.yaml", "--cores", "1"),
            [sys.executable, "-m", "saffron.cli", "summary", "--config", "config/smoke.yaml"],
        ):
            done = subprocess.run(command, cwd=folder, env=project.environment(), capture_output=True, text=True)
            printed += done.stdout + done.stderr
            failed = done.returncode != 0
            if failed:
                break
        if "Traceback" in printed:
            raise Fault(f"{name} {kind}: a traceback\n{printed[-2000:]}")
        if failed and name.as_posix() not in printed:
            raise Fault(f"{name} {kind}: an error that does not name it\n{printed[-2000:]}")
        if not failed and project.results() != results:
            raise Fault(f"{name} {kind}: other results, and no error")
        shutil.rmtree(folder)
        return "refused by name" if failed else "made again"

    return once


PART = Part("corruption", 800, attempt)
