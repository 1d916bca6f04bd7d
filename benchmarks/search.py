"""Saffron-1 search: time and memory against the bare forwards, the plain batched way and the released code's way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import paired
from benchmarks.plain import bare_forwards, per_token_trie, plain_batched
from benchmarks.shapes import EOS, Pair, pair, prompts
from saffron.search.saffron import MRMScorer, Outcome, compaction_period, search

PROMPT_TOKENS, NEW_TOKENS = 60, 32


def ours(
    models: Pair, ids: list[list[int]], width: int, new_tokens: int, listed: bool | None = None
) -> tuple[Outcome, MRMScorer]:
    """The engine's search, EOS forbidden throughout so that every run does the same work."""
    scorer = MRMScorer(models.mrm, ids, None, width=width, max_new_tokens=new_tokens)
    limits = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    outcome = search(models.policy, scorer, ids, width=width, top_p=0.8, eos_token_id=EOS, listed=listed, **limits)
    return outcome, scorer


def implementations(models: Pair, ids: list[list[int]], width: int, new_tokens: int = NEW_TOKENS) -> dict[str, Callable[[], Any]]:
    """The contestants by name."""
    return {
        "engine": lambda: ours(models, ids, width, new_tokens),
        "bare_forwards": lambda: bare_forwards(models, ids, width, new_tokens),
        "plain_batched": lambda: plain_batched(models, ids, width, new_tokens),
        "per_token_trie_4": lambda: per_token_trie(models, ids, width, new_tokens, 4),
        "per_token_trie_n": lambda: per_token_trie(models, ids, width, new_tokens, width),
    }


def compare(models: Pair, count: int, width: int, turns: int, names: list[str], policy: str) -> dict[str, Any]:
    """One row of the table: all named implementations on the same prompts, and their key and value storage."""
    ids = prompts(count, PROMPT_TOKENS)
    returned: dict[str, Any] = {}

    def kept(name: str, function: Callable[[], Any]) -> Callable[[], None]:
        return lambda: returned.update({name: function()})

    functions = {name: kept(name, function) for name, function in implementations(models, ids, width).items() if name in names}
    timings = paired(functions, turns, warm_up=count * width <= 16)
    row = {"policy": policy, "prompts": count, "width": width, "seconds": {name: t.as_dict() for name, t in timings.items()}}
    return row | {"kv": kv_memory(returned)}


def kv_memory(returned: dict[str, Any]) -> dict[str, Any]:
    """Peak key and value storage as a multiple of (unique trie nodes x bytes of one node), both models together.

    Args:
        returned: what the implementations returned, by name; the engine's must be among it.
    """
    outcome, scorer = returned["engine"]
    ledgers = (outcome.ledger, scorer.ledger)
    needed = sum(float(ledger.tokens.sum()) * ledger.shape.kv_bytes_per_token(4) for ledger in ledgers)
    peaks = {"engine": sum(ledger.peak_kv_bytes for ledger in ledgers)}
    if "bare_forwards" in returned:
        peaks["bare_forwards"] = returned["bare_forwards"].kv
    if "plain_batched" in returned:
        peaks["plain_batched"] = returned["plain_batched"][1].kv
    return {
        "unique_nodes": float(ledgers[0].tokens.sum()),
        "bytes_per_node": sum(ledger.shape.kv_bytes_per_token(4) for ledger in ledgers),
        "peak_bytes": peaks,
        "multiple_of_unique_nodes": {name: peak / needed for name, peak in peaks.items()},
    }


def resident_memory(name: str, count: int, width: int) -> int:
    """Bytes by which the peak resident memory of a fresh process grows while it searches."""
    command = [sys.executable, "-m", "benchmarks.search", name, str(count), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout)


class HostReads(TorchFunctionMode):
    """Counts calls that make the host wait for the device."""

    NAMES = frozenset(("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"))

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in self.NAMES:
            self.calls.append(name)
        return function(*args, **(kwargs or {}))


def host_reads(models: Pair, width: int = 32) -> dict[str, Any]:
    """Host reads of a search that selects on the device, by number of decoding steps between two compactions."""
    period = compaction_period(width, NEW_TOKENS)
    rows = []
    for steps in (2, period, period + 2, 2 * period + 2, NEW_TOKENS):
        ids = prompts(1, PROMPT_TOKENS)
        with HostReads() as reads:
            scorer = MRMScorer(models.mrm, ids, None, width=width, max_new_tokens=steps)
            search(
                models.policy,
                scorer,
                ids,
                width=width,
                top_p=0.8,
                max_new_tokens=steps,
                min_new_tokens=steps,
                eos_token_id=EOS,
                listed=False,
            )
        compactions = max(0, (steps - 2) // compaction_period(width, steps))
        rows.append({"steps": steps, "compactions": compactions, "reads": len(reads.calls), "calls": sorted(set(reads.calls))})
    return {"width": width, "period": period, "runs": rows}


def operations(models: Pair, width: int = 32) -> str:
    """The profiler's table of one search."""
    ids = prompts(1, PROMPT_TOKENS)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ours(models, ids, width, NEW_TOKENS)
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30)


def _measure_resident(name: str, count: int, width: int) -> None:
    torch.set_num_threads(1)
    models, ids = pair(), prompts(count, PROMPT_TOKENS)
    implementations(models, ids[:1], 1, 2)[name]()
    before = _peak_resident()
    implementations(models, ids, width)[name]()
    print(_peak_resident() - before)


def _peak_resident() -> int:
    """Bytes; getrusage would start from the parent's peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _measure_resident(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
