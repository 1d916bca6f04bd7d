"""Saffron-1 search: time and memory against the bare forwards, the plain batched way and the released code's way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import memory, paired
from benchmarks.plain import bare_forwards, per_token_trie, plain_batched
from benchmarks.shapes import EOS, Pair, pair, prompts
from saffron.engine.compute import Ledger
from saffron.methods.saffron.algorithm import MRMScorer, search

PROMPT_TOKENS, NEW_TOKENS = 60, 32


def ids_of(models: Pair, count: int) -> list[list[int]]:
    """Prompts of the models' vocabulary."""
    return prompts(count, PROMPT_TOKENS, models.policy.config.vocab_size)


def ours(models: Pair, ids: list[list[int]], width: int, new_tokens: int) -> tuple[Ledger, Ledger]:
    """The ledgers of the engine's search, EOS forbidden throughout so that every run does the same work."""
    scorer = MRMScorer(models.mrm, ids, None, width=width, max_new_tokens=new_tokens)
    limits = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    outcome = search(models.policy, scorer, ids, width=width, top_p=0.8, eos_token_id=EOS, **limits)
    return outcome.ledger, scorer.ledger


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
    ids = ids_of(models, count)
    returned: dict[str, Any] = {}

    def kept(name: str, function: Callable[[], Any]) -> Callable[[], None]:
        return lambda: returned.update({name: function()})

    functions = {name: kept(name, function) for name, function in implementations(models, ids, width).items() if name in names}
    warm_up = count * width <= 16 or models.device.type != "cpu"
    timings = paired(functions, turns, device=models.device, warm_up=warm_up)
    row = {"policy": policy, "prompts": count, "width": width, "seconds": {name: t.as_dict() for name, t in timings.items()}}
    kv = {"kv": kv_memory(returned, models.policy.dtype.itemsize)} if "engine" in returned else {}
    return row | kv | memory(timings)


def kv_memory(returned: dict[str, Any], value: int) -> dict[str, Any]:
    """Peak key and value storage as a multiple of (unique trie nodes x bytes of one node), both models together.

    Args:
        returned: what the implementations returned, by name; the engine's must be among it.
        value: bytes of one number.
    """
    ledgers = returned["engine"]
    needed = sum(float(ledger.tokens.sum()) * ledger.shape.kv_bytes_per_token(value) for ledger in ledgers)
    peaks = {"engine": sum(ledger.peak_kv_bytes for ledger in ledgers)}
    if "bare_forwards" in returned:
        peaks["bare_forwards"] = returned["bare_forwards"].kv
    if "plain_batched" in returned:
        peaks["plain_batched"] = returned["plain_batched"][1].kv
    return {
        "unique_nodes": float(ledgers[0].tokens.sum()),
        "bytes_per_node": sum(ledger.shape.kv_bytes_per_token(value) for ledger in ledgers),
        "peak_bytes": peaks,
        "multiple_of_unique_nodes": {name: peak / needed for name, peak in peaks.items()},
    }


def resident_memory(name: str, count: int, width: int) -> int:
    """Bytes by which the peak resident memory of a fresh process grows while it searches."""
    command = [sys.executable, "-m", "benchmarks.search", name, str(count), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout)


def _measure_resident(name: str, count: int, width: int) -> None:
    torch.set_num_threads(1)
    models = pair()
    ids = ids_of(models, count)
    implementations(models, ids[:1], 1, 2)[name]()
    before = _peak_resident()
    implementations(models, ids, width)[name]()
    print(_peak_resident() - before)


def _peak_resident() -> int:
    """Bytes; getrusage would start from the parent's peak."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _measure_resident(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
