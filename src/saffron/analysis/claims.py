"""Claim by claim: the paper's value, ours, and a verdict by a rule fixed beforehand (see ``claims.yaml``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from saffron import roles
from saffron.analysis.statistics import Estimate, detectable
from saffron.analysis.study import LABELS
from saffron.config import Config
from saffron.table import Table

Verdict = Literal["reproduced", "not reproduced", "undecided", "one seed", "not testable"]

#: In the order of the report's colours and counts.
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "undecided", "one seed", "not testable")

#: The models of the paper's tables: only with them are its absolute numbers expected.
PAPER_POLICY = "Meta-Llama-3-8B-Instruct"
PAPER_GUARD = "Llama-Guard-3-1B"


def has_paper_models(config: Config) -> bool:
    """Whether a config runs the paper's own models on its own datasets."""
    if config.models.origin != "hub" or config.models.hub is None:
        return False
    if config.sources.conversations.id != roles.PAPER_CONVERSATIONS:
        return False
    if not all(roles.on_paper_benchmark(config, role) for role in roles.PAPER_BENCHMARKS if roles.holders(config.search, role)):
        return False
    return config.models.hub.policy.id.endswith(PAPER_POLICY) and config.models.hub.guard.id.endswith(PAPER_GUARD)


def _side(value: float | None, low: float | None, high: float | None) -> int:
    """+1 if an interval lies above 0, -1 if below, 0 if it holds 0 or is not known."""
    if value is None or (low is None and high is None):
        return 0
    if low is not None and low > 0:
        return 1
    if high is not None and high < 0:
        return -1
    return 0


def sign_verdict(estimate: Estimate, sign: Literal[1, -1]) -> tuple[Verdict, str]:
    """Verdict on "the quantity has this sign", and which way it leans.

    Reproduced / not reproduced when the interval, of prompts with training seeds as clusters, excludes 0 with the claim's /
    the opposite sign; with one training seed a sampled quantity gets "one seed" whatever its interval says, as nothing is
    known of the next seed. The second value is "as claimed", "opposite" or "open": what the interval alone says.
    """
    side = _side(estimate.value, estimate.low, estimate.high)
    leaning = "open" if side == 0 else "as claimed" if side == sign else "opposite"
    if not estimate.exact and len(estimate.per_seed) < 2:
        return "one seed", leaning
    if side == 0:
        return "undecided", leaning
    return ("reproduced" if side == sign else "not reproduced"), leaning


def number_verdict(estimate: Estimate, published: float, tolerance: float) -> Verdict:
    """Verdict on "equals the published number within the tolerance": our whole interval inside it, outside it, or neither."""
    if estimate.value is None:
        return "undecided"
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    if published - tolerance <= low and high <= published + tolerance:
        return "reproduced"
    if high < published - tolerance or low > published + tolerance:
        return "not reproduced"
    return "undecided"


def seeds_as_claimed(by_seed: Sequence[Sequence[bool]]) -> list[int] | None:
    """How many of how many training seeds, each by its own estimates, are on the claimed side; None below two seeds.

    Args:
        by_seed: for each quantity of a claim, whether each training seed's own estimate is; all of them must be.
    """
    seeds = {len(own) for own in by_seed}
    if len(seeds) != 1 or min(seeds) < 2:
        return None
    return [sum(all(own) for own in zip(*by_seed, strict=True)), seeds.pop()]


def difference_seen(estimates: Sequence[Estimate], verdicts: Sequence[Verdict]) -> float | None:
    """The least difference that would have decided a claim whose verdict is open (power 0.8), in its quantities' units.

    Args:
        estimates: of the claim's quantities.
        verdicts: on each of them.

    Returns:
        The largest over its undecided differences; None if there are none, or any is not known.
    """
    undecided = [detectable(estimate) for estimate, verdict in zip(estimates, verdicts, strict=True) if verdict == "undecided"]
    known = [value for value in undecided if value is not None]
    return max(known) if known and len(known) == len(undecided) else None


def combine(verdicts: list[Verdict]) -> Verdict:
    """Verdict on a statement whose parts must all hold."""
    order: tuple[Verdict, ...] = ("not testable", "not reproduced", "undecided", "one seed", "reproduced")
    return next(verdict for verdict in order if verdict in verdicts)


def _combine_leanings(leanings: list[str]) -> str:
    for leaning in ("opposite", "open"):
        if leaning in leanings:
            return leaning
    return "as claimed"


def judge(claim: Mapping[str, Any], quantities: Mapping[str, Estimate], *, paper_models: bool) -> dict[str, Any]:
    """Verdict on one claim.

    Args:
        claim: an entry of ``claims.yaml``.
        quantities: ours by name.
        paper_models: whether the config runs the paper's own models and datasets.

    Returns:
        The claim's id, source, statement and test, every quantity with the paper's value beside ours, the verdict, which
        way the intervals lean, how many of how many training seeds are on the claimed side, each by its own estimates, the
        difference that would have been seen where a comparison is undecided, and the cause where it
        cannot be tested.
    """
    test = claim["test"]
    published: dict[str, float] = claim.get("numbers", {})
    names = list(published) if test == "numbers" else list(claim["quantities"])
    record: dict[str, Any] = {key: claim[key] for key in ("id", "source", "statement", "test")}
    record |= {"threshold": claim.get("threshold"), "leaning": None, "seeds_as_claimed": None, "difference_seen": None}
    record["quantities"] = [{"name": name, "paper": published.get(name), "ours": _ours(quantities, name)} for name in names]
    missing = [name for name in names if name not in quantities]
    steps = [name for prefix in claim.get("steps", ()) for name in quantities if name.startswith(f"{prefix}/")]
    record["quantities"] += [{"name": name, "paper": None, "ours": quantities[name].as_record()} for name in steps]
    if test == "numbers" and not paper_models:
        return record | {
            "verdict": "not testable",
            "cause": "an absolute number of the paper's own models and datasets",
        }
    if missing:
        return record | {"verdict": "not testable", "cause": f"this config gives no {', '.join(missing)}"}
    estimates = [quantities[name] for name in names]
    causes = sorted({estimate.note for estimate in estimates if estimate.note})
    if test == "numbers":
        tolerances = [claim.get("tolerance") or claim["relative_tolerance"] * abs(published[name]) for name in names]
        each = list(zip(estimates, [published[name] for name in names], tolerances, strict=True))
        verdicts = [number_verdict(*one) for one in each]
        by_seed = [[value is not None and abs(value - p) <= t for value in e.per_seed] for e, p, t in each]
    elif test == "exact":
        tolerance = claim["tolerance"]
        by_seed = [[value is not None and abs(value) <= tolerance for value in e.per_seed] for e in estimates]
        verdicts = ["reproduced" if e.value is not None and abs(e.value) <= tolerance else "not reproduced" for e in estimates]
    else:
        sign: Literal[1, -1] = 1 if test in ("positive", "at_least") else -1
        threshold = claim.get("threshold", 0.0)
        shifted = [estimate.mapped(lambda value: value - threshold) for estimate in estimates]
        by_seed = [[value is not None and value * sign > 0 for value in e.per_seed] for e in shifted]
        pairs = [sign_verdict(estimate, sign) for estimate in shifted]
        seen = difference_seen(estimates, [verdict for verdict, _ in pairs])
        pairs += [_step_verdict(quantities[name]) for name in steps]
        verdicts = [verdict for verdict, _ in pairs]
        record["leaning"] = _combine_leanings([lean for _, lean in pairs])
        record["difference_seen"] = seen if combine(verdicts) == "undecided" else None
    record["seeds_as_claimed"] = seeds_as_claimed(by_seed)
    return record | {"verdict": combine(verdicts), "cause": "; ".join(causes) or None}


def _ours(quantities: Mapping[str, Estimate], name: str) -> dict[str, Any] | None:
    return quantities[name].as_record() if name in quantities else None


def _step_verdict(step: Estimate) -> tuple[Verdict, str]:
    """A step between neighbouring budgets of a steady fall: it must not rise outside its paired interval."""
    verdict, leaning = sign_verdict(step, 1)
    if leaning != "as claimed":  # no rise outside the interval
        return ("one seed" if len(step.per_seed) < 2 else "reproduced"), "as claimed"
    return ("not reproduced" if verdict == "reproduced" else verdict), "opposite"


def judge_all(
    claims: list[dict[str, Any]],
    quantities: Mapping[str, Estimate],
    others: Mapping[str, Mapping[str, Estimate]],
    config: Config,
) -> list[dict[str, Any]]:
    """Verdicts on all claims; where attack success enters, also with each other judge in the place of the one that decides it.

    Args:
        claims: entries of ``claims.yaml``.
        quantities: ours by name, attack success by the judge that decides it.
        others: the same by each other judge, by its name; what no judge decides is not among them.
        config: of the results.
    """
    paper_models = has_paper_models(config)
    records = []
    for claim in claims:
        record = judge(claim, quantities, paper_models=paper_models)
        record["statement"] = roles.named(config, record["statement"])
        record["by"] = {}
        names = claim.get("quantities", [])
        for name, theirs in others.items():
            if names and all(quantity in theirs for quantity in names):
                other = judge(claim, theirs, paper_models=paper_models)
                kept = ("verdict", "leaning", "seeds_as_claimed", "difference_seen", "quantities")
                record["by"][name] = {key: other[key] for key in kept}
        records.append(record)
    return records


def other_judges(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Judges beside the one that decides attack success, in their order."""
    return list(dict.fromkeys(judge for record in records for judge in record["by"]))


def holds(record: Mapping[str, Any]) -> bool:
    """Whether a verdict is for the claim: reproduced, or of one training seed whose interval is on the claimed side."""
    return record["verdict"] == "reproduced" or (record["verdict"], record["leaning"]) == ("one seed", "as claimed")


def not_by(record: Mapping[str, Any]) -> list[str]:
    """Other judges by which a claim does not hold that holds by the one that decides attack success; none if it does not."""
    return [judge for judge, theirs in record["by"].items() if not holds(theirs)] if holds(record) else []


def by_judges(records: Sequence[Mapping[str, Any]], first: str) -> str:
    """Which claims hold by the judge that decides attack success and not by others, in a paragraph.

    Args:
        records: of :func:`judge_all`.
        first: name of the judge that decides attack success.
    """
    others, held = other_judges(records), [record for record in records if record["by"] and holds(record)]
    if not others:
        return f"Attack success is by {first} alone: no other judge stands beside it."
    beside = ", ".join(others)
    if not held:
        return f"No claim about attack success holds by {first}; other judges: {beside}."
    apart: dict[tuple[str, ...], list[str]] = {}
    for record in held:
        apart.setdefault(tuple(not_by(record)), []).append(_cited(record))
    both = apart.pop((), [])
    said = [f"Claims about attack success that hold by {first}: {len(held)}. By every other judge too ({beside}): {len(both)}."]
    for judges, cited in sorted(apart.items(), key=lambda item: -len(item[0])):
        words = f"By {first} alone" if list(judges) == others else f"By {first}, but not by {' or '.join(judges)}"
        said.append(f"{words}: {'; '.join(cited)}.")
    return " ".join(said)


def _cited(record: Mapping[str, Any]) -> str:
    """A claim by its place in the paper and its statement."""
    return f"“{statement(record).rstrip('.')}” ({record['source']})"


def describe(record: Mapping[str, Any]) -> str:
    """A verdict in words, e.g. ``reproduced (8 of 8 seeds)`` or ``one seed (as claimed)``."""
    if record["verdict"] == "one seed" and record["leaning"]:
        return f"one seed ({record['leaning']})"
    if record.get("seeds_as_claimed"):  # records published before this count have none
        return f"{record['verdict']} ({' of '.join(map(str, record['seeds_as_claimed']))} seeds)"
    return str(record["verdict"])


def power(record: Mapping[str, Any]) -> str:
    """What an undecided verdict could have seen, in words; empty where that is not known."""
    seen = record.get("difference_seen")  # records published before this have none
    return "" if seen is None else f"a difference of {seen:.3f} would have been seen"


def verdict_line(record: Mapping[str, Any]) -> str:
    """A verdict in one line, with what it could have seen if it is undecided."""
    return ": ".join(part for part in (describe(record), power(record)) if part)


#: What parts of a quantity's name are called in labels; empty: left out.
_WORDS = {
    **LABELS,
    "scaling": "first benchmark",
    "matched": "second benchmark",
    "exploration": "",
    "once": "each FLOP counted once",
    "per_model": "counted per model",
    "asr": "ASR",
    "scaleff": "ScalEff",
    "compute": "TFLOP",
    "mae": "MAE",
    "rmse": "RMSE",
    "r_squared": "R²",
    "pearson_r": "Pearson's r",
    "fraction_within_1": "share within ±1",
    "time_share": "time, both methods together",
    "space_share": "space, both methods together",
}


def labels(names: list[str]) -> list[str]:
    """What tells a claim's quantities apart: the parts of their names that they do not all share."""
    split = [name.split("/") for name in names]
    if len(names) > 1 and len({len(parts) for parts in split}) == 1:
        places = [i for i in range(len(split[0])) if len({parts[i] for parts in split}) > 1]
        return [_words([parts[i] for i in places]) for parts in split]
    shared = set.intersection(*(set(parts) for parts in split)) if len(names) > 1 else set()
    return [_words([part for part in parts if part not in shared]) for parts in split]


def _words(parts: list[str]) -> str:
    """Parts of a name as a reader knows them; a difference "a-b" is "a less b"."""
    pairs = [[_WORDS.get(side, side.replace("_", " ")) for side in part.split("-")] for part in parts]
    return " ".join(word for word in (" less ".join(sides) for sides in pairs) if word)


def statement(record: Mapping[str, Any]) -> str:
    """A claim's statement, with the threshold it is held against where it does not name it."""
    threshold = record.get("threshold")
    if threshold is None or f"{threshold:g}" in record["statement"]:
        return str(record["statement"])
    return f"{record['statement']} [{record['test'].replace('_', ' ')} {threshold:g}]"


def format_number(value: float | None) -> str:
    """A number by itself: a whole one without decimals, others as :func:`_decimals` says; "undefined" for None."""
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if float(value).is_integer() else _format(value, _decimals([value]))


def format_estimate(record: Mapping[str, Any] | None) -> str:
    """``value [low, high]``, all three with the same decimals; a dash for what the config does not give."""
    if record is None:
        return "–"
    found = [end for end in (record["value"], record["low"], record["high"]) if end is not None]
    if record["value"] is None or record["exact"] or len(found) == 1:
        return format_number(record["value"])
    decimals = _decimals(found)
    ends = ["…" if end is None else _format(end, decimals) for end in (record["low"], record["high"])]
    return f"{_format(record['value'], decimals)} [{ends[0]}, {ends[1]}]"


def _decimals(values: Sequence[float]) -> int | None:
    """Decimals that numbers printed together share: three as in the other tables, fewer from 10 on.

    Where the largest is below 0.1, as many as show three of its digits; None (an exponent) below 0.0001.
    """
    largest = max(map(abs, values))
    if largest >= 10:
        return 2 if largest < 1000 else 0
    if largest >= 0.1 or largest == 0:
        return 3
    return None if largest < 1e-4 else 2 - math.floor(math.log10(largest))


def _format(value: float, decimals: int | None) -> str:
    return f"{value:.2e}" if decimals is None else f"{value:z,.{decimals}f}"


def labelled(quantities: list[dict[str, Any]]) -> str:
    """A claim's quantities in one line, each with what it is where there are several."""
    named = labels([q["name"] for q in quantities]) if len(quantities) > 1 else [""] * len(quantities)
    return "; ".join(f"{format_estimate(q['ours'])} {name}".strip() for q, name in zip(quantities, named, strict=True))


def markdown(records: list[dict[str, Any]]) -> str:
    """The claims table for the README and the report."""
    others, rows = other_judges(records), []
    for record in records:
        main = [q for q in record["quantities"] if not q["name"].startswith("step/")]
        paper = "; ".join(format_number(q["paper"]) for q in main if q["paper"] is not None) or "–"
        ours = labelled(main)
        theirs = [verdict_line(record["by"][judge]) if judge in record["by"] else "–" for judge in others]
        rows.append((record["source"], statement(record), paper, ours, verdict_line(record), *theirs))
    columns = ("source", "claim", "paper", "ours [95 % interval]", "verdict", *(f"by {judge}" for judge in others))
    return Table(columns, tuple(rows)).markdown_rows()
