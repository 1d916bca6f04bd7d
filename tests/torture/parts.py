"""What a part of the torture is, and how its tries are run, counted and recorded."""

from __future__ import annotations

import collections
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from saffron import records

ROOT = Path(__file__).parents[2]


class Fault(AssertionError):
    """What must not happen."""


@dataclass(frozen=True)
class Part:
    """One kind of torture.

    Args:
        full: tries of ``make torture``.
        prepare: given a folder for scratch files that may outlive a run, returns a try: seed in, outcome out, :class:`Fault`
            raised. An outcome is a few words, counted in the record.
    """

    name: str
    full: int
    prepare: Callable[[Path], Callable[[int], str]]


def run(part: Part, scratch: Path, seed: int, count: int) -> tuple[dict[str, Any], list[int]]:
    """Try a part with seeds from ``seed`` on.

    Returns:
        The part's record, and the seeds of tries that ended in a fault; after Ctrl-C of the tries up to then.
    """
    begin = time.monotonic()
    attempt = part.prepare(scratch)
    outcomes: collections.Counter[str] = collections.Counter()
    faults = []
    for number in tqdm(range(seed, seed + count), desc=part.name, unit="try"):
        try:
            outcomes[attempt(number)] += 1
        except KeyboardInterrupt:
            break
        except Exception as error:  # whatever a try did not expect is a fault as well
            faults.append(number)
            if not isinstance(error, Fault):
                traceback.print_exc()
            tqdm.write(
                f"{part.name}: {error}\nrepeat with: python tests/torture {part.name} --seed {number} --count 1", sys.stderr
            )
    record = {
        "seed": seed,
        "tries": outcomes.total() + len(faults),
        "full": part.full,
        "outcomes": dict(sorted(outcomes.items())),
        "faults": len(faults),
        "minutes": round((time.monotonic() - begin) / 60, 1),
    }
    return record, faults


def save(path: Path, found: dict[str, Any]) -> None:
    """Put the records of some parts into the file that holds those of all."""
    known = records.read_json(path) if path.exists() else {}
    records.write_json(path, known | found)
