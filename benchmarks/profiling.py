"""Where a search's time goes, and how often each method makes its host wait for the device."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from benchmarks.methods import KEY, RUNS, as_on_gpu, prompts_of, searched, settings_of
from benchmarks.search import NEW_TOKENS, ids_of, ours
from benchmarks.shapes import Pair
from saffron.chat import ChatFormats
from saffron.engine.compute import Ledger
from saffron.methods import discovery
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.saffron.algorithm import compaction_period

#: New tokens of searches that differ by one step without a compaction, and by eight steps and two compactions.
LIMITS = (6, 7, 14)


class HostReads(TorchFunctionMode):
    """Counts calls that make the host wait for the device: they read a tensor, or need its contents for a shape.

    ``Tensor.to`` counts where it is given "cpu" by name: a device taken from another tensor is the CPU on a CPU, and no read.

    Attributes:
        calls: names of those calls, in order.
        functions: all calls of torch functions and of tensors' methods and attributes, reads or not.
    """

    #: They read a tensor.
    READING = frozenset(("item", "tolist", "cpu", "numpy", "__array__", "equal", "allclose", "is_nonzero", "__contains__"))
    NUMBERS = frozenset(("__bool__", "__int__", "__float__", "__index__"))
    #: Their results' shapes depend on a tensor's contents.
    SIZED = frozenset(("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"))
    NAMES = READING | NUMBERS | SIZED

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.functions = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, named = getattr(function, "__name__", ""), kwargs or {}
        self.functions += 1
        if (
            name in self.NAMES
            or (name == "to" and any(isinstance(given, str) and given == "cpu" for given in (*args[1:], *named.values())))
            or (name == "where" and len(args) + len(named) == 1)
            or (name in ("__getitem__", "__setitem__") and _masks(args[1]))
        ):
            self.calls.append(name)
        return function(*args, **named)


def _masks(index: Any) -> bool:
    """Whether an index holds a mask, whose true entries must be counted before the shape is known."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)


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
        with as_on_gpu(), HostReads() as reads:
            ours(models, ids, width, steps)
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
    """One search of ``limit`` new tokens as on a GPU; Saffron-1's never end before."""
    settings = settings_of(name)
    if hasattr(settings, "min_new_tokens"):
        settings = settings.model_copy(update={"min_new_tokens": limit})
    with as_on_gpu():
        discovery.search(RUNS[name][0])(Block(models, given, KEY, limit), settings, [width])


@dataclass(frozen=True)
class Steps:
    """What the decoding steps of one search by Saffron-1 ask of the host, selection on the device, one prompt.

    A step lasts from one forward of the policy to the next. The first one, which follows the prompt's forward, is left out,
    and so is what follows the last forward, where the answers are read.

    Attributes:
        width: N.
        nodes: that the policy's trie has read after the prompt.
        reads: calls of :class:`HostReads` in the whole search, by name.
        step: of each name, the most in a step without a compaction.
        compaction: of each name, the most in a step with one.
        functions: fewest and most torch calls in a step without a compaction.
        objects: most Python objects alive at a forward, above those at the first: what the garbage collector tracks, which
            tensors, containers and instances of classes are.
    """

    width: int
    nodes: int
    reads: Counter[str]
    step: Counter[str]
    compaction: Counter[str]
    functions: tuple[int, int]
    objects: int


def steps(models: Pair, width: int) -> Steps:
    """Two searches: one counts calls and keeps their names, which are objects; the other counts objects."""
    ids, counter = ids_of(models, 1), HostReads()
    with counter:
        marks, ledger = _at_forwards(models, ids, width, lambda: (len(counter.calls), counter.functions))
    gc.collect()
    gc.disable()  # so that no garbage of earlier work is collected between two counts
    try:
        objects, _ = _at_forwards(models, ids, width, lambda: len(gc.get_objects()))
    finally:
        gc.enable()
    period = compaction_period(width, NEW_TOKENS)
    step: Counter[str] = Counter()
    compaction: Counter[str] = Counter()
    functions = []
    for number, (before, after) in enumerate(pairwise(marks)):
        reads = Counter(counter.calls[before[0] : after[0]])
        if number and number % period == 0:
            compaction |= reads
        elif number:
            step |= reads
            functions.append(after[1] - before[1])
    reads, calls = Counter(counter.calls), (min(functions), max(functions))
    nodes = int(ledger.tokens.sum()) - len(ids[0])
    return Steps(width, nodes, reads, step, compaction, calls, max(objects) - objects[0])


def _at_forwards(models: Pair, ids: list[list[int]], width: int, count: Callable[[], Any]) -> tuple[list[Any], Ledger]:
    """What ``count`` gives at each forward of the policy, and the policy's ledger."""
    marks: list[Any] = []
    hook = models.policy.model.embed_tokens.register_forward_pre_hook(lambda *_: marks.append(count()))
    try:
        with as_on_gpu():
            return marks, ours(models, ids, width, NEW_TOKENS)[0]
    finally:
        hook.remove()


#: What ATen calls to read a number, and to learn a shape from a tensor's contents, whoever asks for it.
READING = ("aten::_local_scalar_dense", "aten::nonzero")


def operations(models: Pair, widths: Sequence[int] = (4, 32)) -> str:
    """A search that selects on the device: what a step asks of the host, and the profiler's table, of the largest N."""
    found = [steps(models, width) for width in widths]
    gpu = models.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with as_on_gpu(), profile(activities=activities) as profiler:
        ours(models, ids_of(models, 1), widths[-1], NEW_TOKENS)
    averages = profiler.key_averages()
    counts = {event.key: event.count for event in averages}
    lines = [
        *_reads_table(found[-1]),
        "",
        *_objects_table(found),
        "",
        f"Reading operations that the profiler saw in the search of N = {widths[-1]}, whoever asked for them:",
    ]
    lines += [f"{name}: {counts.get(name, 0)}" for name in READING]
    if gpu:
        lines.append(f"copies from device to host: {sum(count for name, count in counts.items() if 'DtoH' in name)}")
    return "\n".join([*lines, "", averages.table(sort_by=f"self_{'device' if gpu else 'cpu'}_time_total", row_limit=30)])


def _reads_table(found: Steps) -> list[str]:
    columns = ("whole search", "most in a step", "most in a compaction")
    total = [("together", *(count.total() for count in (found.reads, found.step, found.compaction)))]
    rows = [(name, found.reads[name], found.step[name], found.compaction[name]) for name in sorted(found.reads)]
    return [
        f"Saffron-1, N = {found.width}, {NEW_TOKENS} new tokens, one prompt, as on a GPU (selection on the device):",
        "calls that read a tensor or make the host wait for one; those outside steps and compactions read the answers.",
        "",
        f"{'call':16}" + "".join(f"{column:>24}" for column in columns),
        *(f"{name:16}" + "".join(f"{number:>24}" for number in numbers) for name, *numbers in rows + total),
    ]


def _objects_table(found: list[Steps]) -> list[str]:
    lines = [
        "The same search by N: torch calls of a step without a compaction, and Python objects alive at a forward of the policy",
        "above those at its first (tensors, containers, instances: what the garbage collector tracks). Where neither depends",
        "on N, a step keeps no Python object per node, and calls torch for all nodes at once.",
        "",
        f"{'N':>4}{'nodes read':>16}{'torch calls in a step':>28}{'most objects alive':>24}",
    ]
    for row in found:
        calls = " to ".join(str(number) for number in sorted(set(row.functions)))
        lines.append(f"{row.width:>4}{row.nodes:>16}{calls:>28}{row.objects:>24}")
    return lines
