"""Where a search's time goes, and how often each method makes its host wait for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from benchmarks.methods import KEY, RUNS, prompts_of, searched
from benchmarks.search import NEW_TOKENS, ids_of, ours
from benchmarks.shapes import EOS, Pair
from saffron import config
from saffron.chat import ChatFormats
from saffron.search import registry
from saffron.search.base import SearchModels, SearchPrompt
from saffron.search.saffron import MRMScorer, PRMScorer, compaction_period, search

#: New tokens of searches that differ by one step without a compaction, and by eight steps and two compactions.
LIMITS = (6, 7, 14)


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


def host_reads(models: Pair, sharp: Pair, chat: ChatFormats, width: int = 32) -> dict[str, Any]:
    """Host reads of Saffron-1 as it selects on a GPU, by number of decoding steps; and of every method, by what asks for them.

    They are counted as calls that read a tensor; for ``methods`` on a GPU as what CUDA itself reports as synchronising.

    Args:
        models: for Saffron-1 by number of steps.
        sharp: with a policy of small nuclei, as a PRM is called on each of their tokens.
        chat: formats of the guard.
        width: N of the first.
    """
    period = compaction_period(width, NEW_TOKENS)
    rows = []
    ids = ids_of(models, 1)
    for steps in (2, period, period + 2, 2 * period + 2, NEW_TOKENS):
        with HostReads() as reads:
            ours(models, ids, width, steps, listed=False)
        compactions = max(0, (steps - 2) // compaction_period(width, steps))
        rows.append({"steps": steps, "compactions": compactions, "reads": len(reads.calls), "calls": sorted(set(reads.calls))})
    return {"width": width, "period": period, "runs": rows, "methods": reads_by_method(sharp, chat)}


def reads_by_method(models: Pair, chat: ChatFormats, width: int = 16) -> list[dict[str, Any]]:
    """Per entry of :data:`benchmarks.methods.RUNS`, the reads of a step, of a compaction besides, and of the rest, at the end."""
    count = _synchronisations if models.device.type == "cuda" else _calls
    rows, given = [], prompts_of(models, chat, 1)
    for name in RUNS:
        short, longer, longest = (count(partial(_run, searched(models, chat), given, name, width, limit)) for limit in LIMITS)
        step = longer - short
        compaction = (longest - short - (LIMITS[2] - LIMITS[0]) * step) / 2
        rest = short - LIMITS[0] * step - compaction
        rows.append({"run": name, "width": width, "step": step, "compaction": compaction, "rest": rest})
    return rows


def _calls(run: Callable[[], Any]) -> int:
    with HostReads() as reads:
        run()
    return len(reads.calls)


def _synchronisations(run: Callable[[], Any]) -> int:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def _run(models: SearchModels, given: list[SearchPrompt], name: str, width: int, limit: int) -> None:
    """One search of ``limit`` new tokens; Saffron-1 is told to select on the device, as it does by itself on a GPU."""
    method, changes = RUNS[name]
    if method != "saffron":
        settings = getattr(config.Methods(), method)
        registry.method(method)(models, given, settings, [width], key=KEY, max_new_tokens=limit)
        return
    scorer: MRMScorer | PRMScorer
    if changes.get("scorer") == "prm":
        scorer = PRMScorer(models, [prompt.guard_ids for prompt in given])
    else:
        scorer = MRMScorer(models.mrm, [prompt.mrm_ids for prompt in given], None, width=width, max_new_tokens=limit)
    limits = {"max_new_tokens": limit, "min_new_tokens": limit, "eos_token_id": EOS}
    search(models.policy, scorer, [prompt.policy_ids for prompt in given], width=width, top_p=0.8, listed=False, **limits)


def operations(models: Pair, width: int = 32) -> str:
    """The profiler's table of one search."""
    ids, gpu = ids_of(models, 1), models.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as profiler:
        ours(models, ids, width, NEW_TOKENS)
    key = "self_device_time_total" if gpu else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=key, row_limit=30)
