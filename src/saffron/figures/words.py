"""How results are put into words: units, rates, and who was asked. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saffron import workflow
from saffron.config import Convention
from saffron.judges.discovery import kind
from saffron.methods.discovery import methods
from saffron.roles import Role

if TYPE_CHECKING:
    from saffron.analysis.view import View

UNITS = ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP"))

#: What the tables call the conventions of counting compute.
COUNTED: dict[Convention, str] = {"once": "once", "per_model": "per model"}
#: Systems that are no search method.
SYSTEMS = {"deepalign": "DeepAlign"}


def label(system: str) -> str:
    """Name of a method, or of another system, in every figure and table."""
    return methods()[system].label if system in methods() else SYSTEMS.get(system, system)


def unit(flops: Sequence[float] | float) -> tuple[float, str]:
    """Scale and name of the unit in which these FLOPs are read best."""
    largest = max([flops] if isinstance(flops, (int, float)) else flops)
    return next(((scale, name) for scale, name in UNITS if largest >= scale), UNITS[-1])


def with_unit(flops: float) -> str:
    """FLOPs with their unit: three digits, zeros among them, or all before the point."""
    scale, name = unit(flops)
    value = flops / scale
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {name}"


def prose(text: str) -> str:
    """A caption on one line."""
    return " ".join(text.split())


def listed(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def rate(record: dict[str, Any] | None) -> str:
    """An estimate as ``0.123 [0.100, 0.150]``."""
    if record is None or record["value"] is None:
        return "–"
    if record["low"] is None or record["high"] is None or record["exact"]:
        return f"{record['value']:z.3f}"
    return f"{record['value']:z.3f} [{record['low']:z.3f}, {record['high']:z.3f}]"


# ------------------------------------------------------------------------------------------------------------- judges
def judge_columns(view: View) -> list[str]:
    """Columns of :func:`judged`."""
    return ["ASR", *(f"ASR by {judge}" for judge in view.judges[1:])]


def judged(view: View, row: dict[str, Any]) -> list[str]:
    """Attack success by every judge, from a row that has an estimate of each."""
    return [rate(row[judge]) for judge in view.judges]


def kinds(view: View, names: Sequence[str]) -> str:
    """What some judges or measurements read, in sentences."""
    found = [workflow.judge_of(view.config, name) for name in names]
    return " ".join(f"{judge.name.capitalize()}: {kind(judge.kind).summary}." for judge in found)


# ------------------------------------------------------------------------------------------------- prompts and seeds
def seeds(view: View) -> str:
    """How many training seeds a run has."""
    found = view.analysis["train_seeds"]
    return "one training seed" if len(found) == 1 else f"{len(found)} training seeds"


def trained(count: int) -> str:
    """A number of training seeds."""
    return f"{count} training seed" + ("s" if count != 1 else "")


def asked(view: View, role: Role) -> str:
    """On how many prompts of which set the experiment of a role was run, and with how many training seeds."""
    rows = view.cells[view.cells["experiment"] == view.study.name(role)]
    prompts, dataset = int(rows["n_prompts"].iloc[0]), rows["dataset"].iloc[0]
    return f"n = {prompts} prompts of {dataset}, {trained(int(rows['n_seeds'].iloc[0]))}"


def prompts_of(view: View, role: Role) -> int:
    """On how many prompts the experiment of a role was run."""
    return int(view.cells.loc[view.cells["experiment"] == view.study.name(role), "n_prompts"].iloc[0])
