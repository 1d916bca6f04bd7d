"""``python -m benchmarks``: measure everything, write a folder of JSON records and the tables made from them.

On a CPU the models are those that the targets of speed are stated for, and the results go to ``benchmarks/results/`` and
``benchmarks/results.md``. ``--device cuda`` takes Llama-3-8B and Llama-Guard-3-1B shapes with random bfloat16 weights, made
on the GPU, and writes ``benchmarks/results-cuda/`` and ``benchmarks/results-cuda.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import bandwidth, methods, profiling, report, rewards, savings, search, storage
from benchmarks.measure import clock, exponent, free, paired
from benchmarks.shapes import SHAPES, TARGETS, Pair, Shapes, pair, parameters, peaked
from saffron.models import device as devices
from saffron.models.device import DeviceMemoryError

HERE = Path(__file__).parent
#: Parts that are of the targets' models on a CPU alone: resident memory, and what listing candidates on the host saves.
CPU_PARTS = ("memory", "savings")
PARTS = ("bandwidth", "search", "stand_in", "memory", "storage", "growth", "savings", "methods", "profile", "rewards")
#: What is measured of the targets' models on a CPU, unless parts are named: searches of 16 prompts by a PRM take an hour there.
USUAL_ON_CPU = tuple(part for part in PARTS if part not in ("bandwidth", "methods"))
USUAL_SHAPES = {"cpu": TARGETS, "cuda": "llama3-8b"}
CORE = ["engine", "bare_forwards", "plain_batched"]


@dataclass(frozen=True)
class Job:
    """What is measured, and where its records go."""

    shapes: Shapes
    models: Pair
    folder: Path
    widths: list[int]
    batches: list[int]
    turns: int

    def save(self, name: str, record: Any) -> None:
        """Write one record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")

    @property
    def sharp(self) -> Pair:
        """The models with a peaked policy, made when asked for."""
        return peaked(self.models, self.shapes.sharpness)

    @property
    def few_turns(self) -> int:
        """For what varies little."""
        return max(1, self.turns // 2)

    def turns_for(self, rows: int) -> int:
        """Large batches take minutes and vary little."""
        return self.turns if rows <= 64 else min(self.turns, 2) if rows <= 512 else 1


def fits(what: str, part: Callable[[], None]) -> bool:
    """Run a part; whether the device held it. If not, the records that it has saved stay, and the memory is given back."""
    try:
        part()
        return True
    except (torch.OutOfMemoryError, DeviceMemoryError) as error:
        print(f"{what}: out of memory ({str(error).splitlines()[0]}); going on with the next part")
    free()
    return False


def run_bandwidth(job: Job) -> None:
    """What the device's memory can do, and what a step reads of it."""
    job.save("bandwidth", bandwidth.measure(job.models, job.turns))


def run_search(job: Job) -> None:
    """Search against the plain ways; each finished row is kept, so that a broken run loses nothing."""
    rows = []
    for count in job.batches:
        for width in job.widths:
            rows.append(search.compare(job.models, count, width, job.turns_for(count * width), CORE, "flat"))
            job.save("search", rows)
    rows.append(search.compare(job.sharp, 1, 32, job.turns, CORE, "peaked"))
    job.save("search", rows)


def run_stand_in(job: Job) -> None:
    """The released code's way at N = 32, in turns enough for a median."""
    names = ["engine", "bare_forwards", "per_token_trie_4", "per_token_trie_n"]
    job.save("stand_in", [search.compare(job.models, 1, 32, max(3, job.turns), names, "flat")])


def run_memory(job: Job) -> None:
    """Growth of resident memory; key and value storage is noted by the search part itself."""
    rows = [
        {"implementation": name, "prompts": count, "width": width, "bytes": search.resident_memory(name, count, width)}
        for count, width in ((1, 32), (1, 64), (16, 4))
        for name in CORE
    ]
    job.save("memory", rows)


def run_growth(job: Job) -> None:
    """Time and storage against width, new tokens and prompts; a sweep ends where memory does."""
    sweeps = {
        "width": [(1, width, 32) for width in (4, 8, 16, 32, 64)],
        "new_tokens": [(1, 16, tokens) for tokens in (8, 16, 32, 64, 128)],
        "prompts": [(count, 8, 16) for count in (1, 2, 4, 8, 16)],
    }
    models, record = job.models, {}
    for axis, points in sweeps.items():
        position = {"prompts": 0, "width": 1, "new_tokens": 2}[axis]
        seconds, storage, sizes = [], [], []
        for count, width, tokens in points:
            ids = search.ids_of(models, count)
            found: list[Any] = []
            engine = {"engine": lambda ids=ids, w=width, t=tokens, f=found: f.append(search.ours(models, ids, w, t))}
            timing = paired(engine, job.few_turns, device=models.device)["engine"]
            if not timing.seconds:
                break
            sizes.append((count, width, tokens)[position])
            seconds.append(min(timing.seconds))
            storage.append(sum(ledger.peak_kv_bytes for ledger in found[0]))
        record[axis] = {
            "sizes": sizes,
            f"{clock(models.device)}_seconds": seconds,
            "kv_bytes": storage,
            "time_exponent": exponent(sizes, seconds),
            "memory_exponent": exponent(sizes, storage),
        }
        job.save("growth", record)


def run_methods(job: Job) -> None:
    """One prompt batch of every search method, of the largest width up to 32 and the most prompts; each row is kept."""
    models, guard = job.sharp, job.shapes.labelling[0]
    chat = methods.formats(guard.prefix, guard.suffix)
    budget = max((width for width in job.widths if width <= 32), default=min(job.widths))
    rows = []
    for name in methods.RUNS:
        rows.append(methods.compare(models, chat, name, budget, max(job.batches), job.few_turns))
        job.save("methods", rows)


def run_profile(job: Job) -> None:
    """What a search spends its time on, and where its host waits."""
    short = methods.formats(prefix=8, suffix=8)  # how often the host reads depends on no length
    job.save("host_reads", profiling.host_reads(job.models, job.sharp, short))
    (job.folder / "profile.txt").write_text(profiling.operations(job.models))


def run_rewards(job: Job) -> None:
    """Labelling and training."""
    record: dict[str, Any] = {"labelling": rewards.labelling(job.shapes, job.models.device, job.turns)}
    job.save("rewards", record)
    job.save("rewards", record | {"training": rewards.training(job.shapes, job.models.device, job.turns)})


def destination(shapes: str, device: str) -> Path:
    """The folder of the records; the tables stand beside it. Both are named after what is not usual: CPU and its shapes."""
    parts = ["results", *([shapes] if shapes != USUAL_SHAPES[device] else []), *([device] if device != "cpu" else [])]
    return HERE / "-".join(parts)


def arguments() -> argparse.Namespace:
    """The command line, refused with the reason if the machine cannot do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--shapes", choices=SHAPES, help=f"models (default: {TARGETS} on a CPU, llama3-8b on a GPU)")
    parser.add_argument("--device", choices=USUAL_SHAPES, default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all that the device and the models have")
    parser.add_argument("--turns", type=int, default=3, help="turns per comparison (fewer for batches of over 64 rows)")
    parser.add_argument("--widths", type=int, nargs="+", help="N of the searches (default: as many as the models are meant for)")
    parser.add_argument("--batches", type=int, nargs="+", help="prompts per batch (default: as many as the models are meant for)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="folder of the records (default: named after shapes and device)")
    found = parser.parse_args()
    found.shapes = found.shapes or USUAL_SHAPES[found.device]
    targets = (found.shapes, found.device) == (TARGETS, "cpu")
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here; run on a machine with one, with a CUDA build of PyTorch")
    if refused := [part for part in found.parts or () if part in CPU_PARTS and not targets]:
        parser.error(f"--parts {' '.join(refused)}: measured with --shapes {TARGETS} --device cpu only; leave it out")
    found.parts = found.parts or (USUAL_ON_CPU if targets else [part for part in PARTS if part not in CPU_PARTS])
    found.widths = found.widths or list(SHAPES[found.shapes].widths)
    found.batches = found.batches or list(SHAPES[found.shapes].batches)
    found.out = found.out or destination(found.shapes, found.device)
    return found


def build(shapes: Shapes, device: str) -> Pair:
    """The models.

    Raises:
        SystemExit: if they do not fit, with their size.
    """
    try:
        return pair(shapes, device)
    except torch.OutOfMemoryError as error:
        size = shapes.dtype.itemsize * (shapes.policy.linear_weights + shapes.guard.linear_weights) / 1e9
        raise SystemExit(f"--device {device}: weights of {size:.0f} GB and more do not fit; use a larger GPU") from error


def main() -> None:
    """Parse arguments and run the parts asked for."""
    given = arguments()
    torch.set_num_threads(given.threads)
    shapes = SHAPES[given.shapes]
    models = build(shapes, given.device)
    job = Job(shapes, models, given.out, given.widths, given.batches, given.turns)
    setup = {
        "torch": torch.__version__,
        "threads": given.threads,
        "processor": platform.machine(),
        "policy_parameters": parameters(models.policy),
        "mrm_parameters": parameters(models.mrm),
        "prompt_tokens": search.PROMPT_TOKENS,
        "new_tokens": search.NEW_TOKENS,
        "dtype": str(shapes.dtype).removeprefix("torch."),
        "device": "CPU" if given.device == "cpu" else devices.name(models.device),
        "clock": clock(models.device),
    }
    job.save("setup", setup)
    runs: dict[str, Callable[[Job], None]] = {
        "bandwidth": run_bandwidth,
        "search": run_search,
        "stand_in": run_stand_in,
        "memory": run_memory,
        "storage": lambda job: job.save("storage", storage.measure(job.models.device.type)),
        "growth": run_growth,
        "savings": lambda job: job.save("savings", savings.savings(job.few_turns)),
        "methods": run_methods,
        "profile": run_profile,
        "rewards": run_rewards,
    }
    tables = given.out.with_suffix(".md")
    cut_short: list[str] = []
    for part in given.parts:
        if not fits(part, lambda part=part: runs[part](job)):
            cut_short.append(part)
            job.save("setup", setup | {"out_of_memory": cut_short})
        tables.write_text(report.markdown(given.out))
    print(f"{tables} and {given.out}/")


if __name__ == "__main__":
    main()
