"""``python -m benchmarks``: measure everything, write ``benchmarks/results/*.json`` and ``benchmarks/results.md``."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks import report, rewards, savings, search
from benchmarks.measure import exponent, paired
from benchmarks.shapes import Pair, pair, parameters, prompts

RESULTS = Path(__file__).parent / "results"
PARTS = ("search", "stand_in", "memory", "growth", "savings", "profile", "rewards")
CORE = ["engine", "bare_forwards", "plain_batched"]


def save(name: str, record: Any) -> None:
    """Write one record."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def turns_for(rows: int, turns: int) -> int:
    """Large batches take minutes and vary little."""
    return turns if rows <= 64 else min(turns, 2) if rows <= 512 else 1


def run_search(models: Pair, widths: list[int], batches: list[int], turns: int) -> None:
    """Search against the plain ways; each finished row is kept, so that a broken run loses nothing."""
    rows = []
    sharp = Pair(pair(savings.PEAKED).policy, models.mrm)
    for count in batches:
        for width in widths:
            rows.append(search.compare(models, count, width, turns_for(count * width, turns), CORE, "flat"))
            save("search", rows)
    rows.append(search.compare(sharp, 1, 32, turns, CORE, "peaked"))
    save("search", rows)


def run_stand_in(models: Pair, turns: int) -> None:
    """The released code's way at N = 32."""
    names = ["engine", "bare_forwards", "per_token_trie_4", "per_token_trie_n"]
    save("stand_in", [search.compare(models, 1, 32, max(1, turns // 2), names, "flat")])


def run_memory() -> None:
    """Growth of resident memory; key and value storage is noted by the search part itself."""
    rows = [
        {"implementation": name, "prompts": count, "width": width, "bytes": search.resident_memory(name, count, width)}
        for count, width in ((1, 32), (1, 64), (16, 4))
        for name in CORE
    ]
    save("memory", rows)


def run_growth(models: Pair, turns: int) -> None:
    """Time and storage against width, new tokens and prompts."""
    sweeps = {
        "width": [(1, width, 32) for width in (4, 8, 16, 32, 64)],
        "new_tokens": [(1, 16, tokens) for tokens in (8, 16, 32, 64, 128)],
        "prompts": [(count, 8, 16) for count in (1, 2, 4, 8, 16)],
    }
    record = {}
    for axis, points in sweeps.items():
        position = {"prompts": 0, "width": 1, "new_tokens": 2}[axis]
        seconds, storage = [], []
        for count, width, tokens in points:
            ids = prompts(count, search.PROMPT_TOKENS)
            found = []
            engine = {"engine": lambda ids=ids, w=width, t=tokens, f=found: f.append(search.ours(models, ids, w, t))}
            seconds.append(min(paired(engine, max(1, turns // 2))["engine"].cpu))
            storage.append(sum(part.ledger.peak_kv_bytes for part in found[0]))
        sizes = [point[position] for point in points]
        record[axis] = {
            "sizes": sizes,
            "cpu_seconds": seconds,
            "kv_bytes": storage,
            "time_exponent": exponent(sizes, seconds),
            "memory_exponent": exponent(sizes, storage),
        }
        save("growth", record)


def run_profile(models: Pair) -> None:
    """What a search spends its time on, and where its host waits."""
    RESULTS.mkdir(exist_ok=True)
    save("host_reads", search.host_reads(models))
    (RESULTS / "profile.txt").write_text(search.operations(models))


def main() -> None:
    """Parse arguments and run the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--turns", type=int, default=3, help="turns per comparison (fewer for batches of over 64 rows)")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="prompts per batch")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = pair()
    save(
        "setup",
        {
            "torch": torch.__version__,
            "threads": arguments.threads,
            "processor": platform.machine(),
            "policy_parameters": parameters(models.policy),
            "mrm_parameters": parameters(models.mrm),
            "prompt_tokens": search.PROMPT_TOKENS,
            "new_tokens": search.NEW_TOKENS,
        },
    )
    runs = {
        "search": lambda: run_search(models, arguments.widths, arguments.batches, arguments.turns),
        "stand_in": lambda: run_stand_in(models, arguments.turns),
        "memory": run_memory,
        "growth": lambda: run_growth(models, arguments.turns),
        "savings": lambda: save("savings", savings.savings(max(1, arguments.turns // 2))),
        "profile": lambda: run_profile(models),
        "rewards": lambda: save(
            "rewards", {"labelling": rewards.labelling(arguments.turns), "training": rewards.training(arguments.turns)}
        ),
    }
    for part in arguments.parts:
        runs[part]()
    (RESULTS.parent / "results.md").write_text(report.markdown(RESULTS))


if __name__ == "__main__":
    main()
