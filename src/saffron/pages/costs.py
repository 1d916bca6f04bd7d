"""What each shipped config costs: times of published runs, and what is planned for those on GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saffron import config as configs
from saffron.layout import Layout
from saffron.pages.worlds import Records, is_run
from saffron.runs import plan
from saffron.table import Table

#: What a config is, the hardware it is for, and what is expected of it until a run is published; GPU hours are planned.
CONFIGS: Mapping[str, tuple[str, str, str | None]] = {
    "smoke": ("the whole workflow, tiny; its numbers mean nothing", "2 CPU cores", "a minute or two"),
    "sandbox": ("the default: a small benign world, one training seed", "2 CPU cores, 4 GiB", "about 20 min"),
    "sandbox-seeds": ("the same with eight training seeds, which decide verdicts", "2 CPU cores, 4 GiB", "about 2 h"),
    "smollm": ("SmolLM2-135M-Instruct and HH-RLHF, a real model on real text", "2 CPU cores, 16 GiB", "about 1 h a seed"),
    "smollm-recipe": ("which part of its MRM's recipe matters, on the development split", "2 CPU cores, 16 GiB", "about 1 h"),
    "paper-1b": ("the paper's setting with a 1B policy", "one GPU of 24 GB", None),
    "paper": ("the paper's setting, Llama 3 8B Instruct", "one GPU of 40 GB, several, or Slurm", None),
}
GPU = "H100"
#: The shipped configs: part of the project, not of a run.
FOLDER = Path(__file__).resolve().parents[3] / "config"


def markdown(ours: Records) -> str:
    """The table of configs."""
    rows = tuple((f"`{name}`", what, on, _time(name, expected, ours)) for name, (what, on, expected) in CONFIGS.items())
    return Table(("`CONFIG=`", "what", "hardware", "time"), rows).markdown_rows()


def _time(name: str, expected: str | None, ours: Records) -> str:
    record = ours.get(name, {})
    if is_run(record) and "runtimes" in record:
        return _measured(record["runtimes"]["total"])
    return _planned(name) if expected is None else f"{expected}, estimated"


def _measured(total: Mapping[str, Any]) -> str:
    cpu = "" if total.get("cpu_s") is None else f", {_hours(total['cpu_s'])} of CPU time"
    return f"{_hours(total['wall_s'])}{cpu}, measured"


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _planned(name: str) -> str:
    """From the config alone, whatever was run here before."""
    config = configs.load(FOLDER / f"{name}.yaml")
    hours = sum(plan.gpu_hours(row, GPU) for row in plan.rows(config, Layout(name, Path("nowhere"))))
    return f"{hours:.0f} {GPU} hours, planned"
