"""``python tests/torture PART``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from saffron.pages import robustness
from torture import checkpoints, corruption, faults, kills, mutations, texts
from torture.parts import ROOT, run, save

PARTS = {p.name: p for p in (kills.PART, corruption.PART, mutations.PART, faults.PART, texts.PART, checkpoints.PART)}


def main() -> int:
    """Try the parts that were asked for; the exit status is 1 if any try ended in a fault."""
    parser = argparse.ArgumentParser(prog="python tests/torture", description="Do faults to the project; count what goes wrong.")
    parser.add_argument("part", choices=["all", *PARTS], help="what to try")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first try; each further one counts up [default: 0]")
    parser.add_argument(
        "--count", type=int, help="tries [default: " + ", ".join(f"{p.full} {p.name}" for p in PARTS.values()) + "]"
    )
    parser.add_argument(
        "--record", action="store_true", help=f"write {robustness.RECORD.name}, from which `saffron docs` makes the page"
    )
    parser.add_argument("--scratch", type=Path, default=ROOT / "build/torture", help="folder for copies of the project")
    given = parser.parse_args()
    failed = False
    for part in PARTS.values() if given.part == "all" else [PARTS[given.part]]:
        record, faults = run(part, given.scratch.resolve(), given.seed, given.count or part.full)
        failed = failed or bool(faults)
        print(f"{part.name}: {record['tries']} tries, {record['faults']} faults; {record['outcomes']}")
        if given.record:
            save(robustness.RECORD, {part.name: record})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
