"""Every search on a device that is not the CPU, without one: see :mod:`stand_in`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import stand_in
import torch
from benchmarks import methods, shapes
from stand_in import DEVICE, DeviceTensor, WrongDeviceError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from saffron.methods import discovery
from saffron.methods.base import Block, Result
from saffron.models.verdicts import verdicts
from saffron.sources.conversations import TokenisedResponse

RECORD = Path(__file__).parents[1] / "benchmarks/results/host_reads.json"
CHAT = methods.formats(6, 4)
TINY = shapes.SHAPES["tiny"]
METHODS = str(Path(discovery.__file__).parent)
WIDTH, LIMIT = 16, 6  # a compaction after four steps, Saffron-1's too
RUNS = [*methods.RUNS, *(name for name, method in discovery.methods().items() if method.budget is None)]


@cache
def pair() -> shapes.Pair:
    """Policy of small nuclei and MRM, in float32, of one layer each: what a step does in a layer, it does in all."""
    sizes = (replace(shape, layers=1) for shape in (TINY.policy, TINY.guard))
    policy, guard = (shapes.llama(shape, seed, tied=seed == 1) for seed, shape in enumerate(sizes))
    return shapes.peaked(shapes.Pair(policy, guard), TINY.sharpness)


@cache
def on_device() -> shapes.Pair:
    """The same on the device."""
    with stand_in.stand_in():
        return shapes.Pair(*(stand_in.moved(model) for model in (pair().policy, pair().mrm)))


def search(models: shapes.Pair, name: str, limit: int = LIMIT, steps: Callable[[range], Iterable[int]] = iter) -> list[Result]:
    """Two prompts of unlike length, long enough for a compaction."""
    given = methods.prompts_of(models, CHAT, 2)
    given[1].policy_ids.pop()
    method, changes = methods.RUNS.get(name, (name, {}))
    settings = discovery.method(method).settings().model_copy(update=changes)
    if hasattr(settings, "min_new_tokens"):
        settings = settings.model_copy(update={"min_new_tokens": limit})
    budgets = [WIDTH] if name in methods.RUNS else [0]
    return discovery.search(method)(Block(methods.searched(models, CHAT), given, methods.KEY, limit, steps), settings, budgets)


@dataclass
class Run:
    """One search on the device.

    Attributes:
        results: of the search.
        reads: of the device, by step.
        crossings: between device and CPU, either way.
        sites: lines of methods that make tensors on the device, or call what does.
    """

    results: list[Result]
    reads: list[int]
    crossings: tuple[list[str], list[str]]
    sites: list[str]


@cache
def run(name: str) -> Run:
    """A search without a fault."""
    marks: list[int] = []

    def steps(through: range) -> Iterator[int]:
        for step in through:
            marks.append(len(crossings.reads))
            yield step

    with stand_in.stand_in() as crossings, Forgetful(None) as seen:
        results = search(on_device(), name, steps=steps)
    return Run(results, [b - a for a, b in pairwise(marks)], (crossings.reads, crossings.uploads), sorted(seen.sites))


class Forgetful(TorchFunctionMode):
    """One line of a method makes its tensors on the CPU, as if it did not name the device; None: none does.

    Attributes:
        sites: lines of methods that named a device, or called what did.
    """

    def __init__(self, site: str | None) -> None:
        super().__init__()
        self._site = site
        self.sites: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        named = dict(kwargs or {})
        if named.get("device") is not None:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and not frame.f_code.co_filename.startswith(METHODS):
                frame = frame.f_back
            if frame is not None:
                site = f"{frame.f_code.co_filename.removeprefix(METHODS)}:{frame.f_lineno}"
                self.sites.add(site)
                if site == self._site:
                    named["device"] = "cpu"
        return function(*args, **named)


@pytest.mark.parametrize("name", RUNS)
def test_a_search_on_the_device_gives_what_it_gives_on_the_cpu(name: str) -> None:
    with methods.as_on_gpu():
        expected = search(pair(), name)
    assert [result.output_ids for result in run(name).results] == [result.output_ids for result in expected]
    assert [result.reward or 0 for result in run(name).results] == pytest.approx(
        [each.reward or 0 for each in expected], rel=1e-4
    )


#: Methods that search several times over: how often they wait here, adaptive Best-of-N between two rounds as well, and no search
#: of archive search lasts until a compaction.
IN_ROUNDS = {"adaptive_best_of_n": {0, 1, 4}, "archive_search": {0}}


@pytest.mark.parametrize("name", methods.RUNS)
def test_a_step_waits_for_the_device_as_often_as_the_record_says(name: str) -> None:
    recorded = {row["run"]: row for row in json.loads(RECORD.read_text())["methods"]}
    assert recorded.keys() == methods.RUNS.keys()
    step, compaction = recorded[name]["step"], recorded[name]["compaction"]
    assert len(run(name).reads) > 4
    assert set(run(name).reads) == IN_ROUNDS.get(name, {step, step + compaction})


@pytest.mark.parametrize("name", RUNS)
def test_a_tensor_in_the_wrong_place_is_found_in_every_search(name: str) -> None:
    whole = run(name)
    site = random.Random(name).choice(whole.sites)
    with stand_in.stand_in() as crossings, Forgetful(site):
        try:
            search(on_device(), name)
        except WrongDeviceError as error:
            assert "on the CPU meets one on the device" in str(error)
        else:  # CUDA takes indices of the CPU, and copies them
            assert (crossings.reads, crossings.uploads) != whole.crossings, site


def test_labels_are_read_on_the_device() -> None:
    def read(guard: Any) -> list[list[float]]:
        responses = [TokenisedResponse([5, 6, 7], [9, 10, 11, 12]), TokenisedResponse([8], [13, 14])]
        return [row.tolist() for row in verdicts(guard, CHAT, responses, batch_size=2)[0]]

    with stand_in.stand_in() as crossings:
        found = read(on_device().mrm)
    assert found == [pytest.approx(row, rel=1e-3, abs=1e-5) for row in read(pair().mrm)]
    assert crossings.reads == ["_to_copy"]


# ------------------------------------------------------------------------------------------------------- the stand-in
def meets(x: Tensor) -> dict[str, Callable[[], Any]]:
    """What CUDA refuses of a tensor x [2, 3] there and others on the CPU."""
    here, scalar = torch.ones(2, 3), torch.tensor(1.0)
    return {
        "add": lambda: x + here,
        "in place": lambda: x.add_(here),
        "where": lambda: torch.where(x > 0, x, here),
        "linear": lambda: torch.nn.functional.linear(x, here),
        "gather": lambda: x.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        "select": lambda: x.index_select(0, torch.tensor([0])),
        "concatenate": lambda: torch.cat([x, here]),
        "stack": lambda: torch.stack([x.sum(), scalar]),
        "a mask": lambda: x.masked_fill(here > 0, 0.0),
        "values": lambda: x.__setitem__(torch.tensor([0], device=DEVICE), here[:1]),
        "an index of the device": lambda: here[torch.tensor([0], device=DEVICE)],
        "embedding": lambda: torch.nn.functional.embedding(torch.tensor([0]), x),
    }


def numbers() -> Tensor:
    """[2, 3] on the device; to be called within the stand-in."""
    return torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device=DEVICE)


@pytest.mark.parametrize("name", meets(torch.ones(2, 3)))
def test_the_stand_in_refuses_what_cuda_refuses(name: str) -> None:
    with stand_in.stand_in(), pytest.raises(WrongDeviceError, match="on the CPU meets one on the device"):
        meets(numbers())[name]()


READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "int": lambda x: int(x.sum()),
    "bool": lambda x: bool(x.sum() > 0),
    "list": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: torch.nonzero(x),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 2],
    "set by mask": lambda x: x.__setitem__(x > 2, torch.zeros(4, device=DEVICE)),
    "repeats": lambda x: x.repeat_interleave(torch.tensor([1, 2], device=DEVICE), 0),
    "of scalars": lambda x: torch.tensor([x.sum()]),
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", READS)
def test_the_stand_in_counts_what_waits_for_the_device(name: str, inference: bool) -> None:
    with torch.inference_mode(inference), stand_in.stand_in() as crossings:
        READS[name](numbers())
    assert len(crossings.reads) == 1


def test_the_stand_in_takes_what_cuda_takes_and_computes_in_place() -> None:
    with torch.inference_mode(), stand_in.stand_in() as crossings:
        x = numbers()
        assert x.device == DEVICE and isinstance(x.new_zeros(2), DeviceTensor)
        x[:, 1:].add_(torch.tensor(100.0))  # a number of the CPU
        x[0] = 7
        y = torch.where(x > 50, x, 0.0)[:, torch.tensor([1, 0])]  # indices of the CPU
        assert crossings.reads == [] and crossings.uploads == ["tensor", "index"]
        assert y.tolist() == [[0.0, 0.0], [105.0, 0.0]]


def test_a_tensor_of_the_device_does_nothing_elsewhere() -> None:
    with stand_in.stand_in():
        x = numbers()
    with pytest.raises(WrongDeviceError, match="outside of the stand-in"):
        x + 1
