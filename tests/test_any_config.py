"""Any config that is accepted is planned, analysed and drawn to the end; any other is refused in so many words.

Results are made up (:mod:`synthetic_results`). More examples than CI tries, from a seed, and the same line repeats what fails::

    SAFFRON_EXAMPLES=200 python -m pytest tests/test_any_config.py --hypothesis-seed=1
"""

from __future__ import annotations

import copy
import os
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import drawing
import pytest
import synthetic_results
import yaml
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from saffron import config as configs
from saffron import jobs, records, roles, workflow
from saffron.analysis import stage as analysis
from saffron.config import SANDBOX_SETS, Config, ConfigError
from saffron.figures import discovery
from saffron.figures.base import FigureError
from saffron.layout import Layout
from saffron.methods.discovery import method as described
from saffron.roles import Role
from saffron.runs import jobs as figure_jobs
from saffron.runs import plan

ROOT = Path(__file__).parents[1]
#: Without a number in the environment the same few examples each time.
EXAMPLES = os.environ.get("SAFFRON_EXAMPLES")


def tries(share: float) -> Any:
    """Hypothesis' settings for a share of the examples."""
    number = max(1, round(share * int(EXAMPLES or 16)))
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    # Shrinking an example of which each try takes seconds is for whoever looks for it.
    phases = set(Phase) - ({Phase.shrink, Phase.explain} if EXAMPLES is None else {Phase.explain})
    return settings(max_examples=number, derandomize=EXAMPLES is None, phases=phases, suppress_health_check=slow)


def shipped(name: str) -> dict[str, Any]:
    """A shipped config with few prompts and the fewest resamples."""
    values = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    if "sandbox" in values["sources"]:
        values["sources"]["sandbox"] |= {"guild_a": 4, "guild_b": 3, "development": 3, "benign": 2}
    values.setdefault("analysis", {})["bootstrap_samples"] = 100
    return values


CONFIGS = {path.stem: shipped(path.stem) for path in sorted((ROOT / "config").glob("*.yaml"))}


@pytest.fixture(scope="module", autouse=True)
def drawn_small() -> Iterator[None]:
    """Figures of few pixels in every test here."""
    with drawing.small():
        yield


# ---------------------------------------------------------------------------------------------------------- to the end
def to_the_end(config: Config, always: bool | None = None) -> None:
    """Everything that follows the searches of a config, on made-up results."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(config.name, Path(folder))
        if config.models.origin == "hub":  # whose size no config says
            size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
            for which in ("policy", "guard"):
                path = layout.model(which, config.train_seeds[0]) / "config.json"
                records.write_json(path, size | {"num_key_value_heads": 1, "vocab_size": 64, "head_dim": 8})
        for seed in config.train_seeds:
            for group in workflow.GROUPS:
                assert all(job.line for name in workflow.experiments(config, group) for job in [jobs.gather(config, seed, name)])
            assert jobs.trees(config, seed).line
        assert (
            all(figure_jobs.notebook(config, page).line for page in discovery.pages(config)) and figure_jobs.report(config).line
        )
        assert "| search |" in plan.render(config, layout)

        synthetic_results.write(config, layout, always)
        analysis.run(jobs.analyse(config).config, layout)
        page = drawing.draw(config, layout, note)
        assert all(f"Experiment {name}" in page for name in workflow.experiments(config))


def accepted(values: dict[str, Any]) -> Config | None:
    """The config, or None where it is refused as it should be: in one message of a line per problem, each with key and remedy."""
    try:
        config = configs.parse(copy.deepcopy(values), "config/x.yaml")
        discovery.pages(config)
    except (ConfigError, FigureError) as error:
        first, *lines = str(error).splitlines()
        assert not lines or (first == f"config/x.yaml: {len(lines)} problem(s) in the config:")
        assert all(": " in line for line in lines or [first])
        words = str(error).lower()
        assert not any(word in words for word in ("traceback", "pydantic", "validation error", "nonetype", "<class", "object at"))
        event("refused")
        return None
    event("accepted")
    return config


# ------------------------------------------------------------------------------------------------------- any config
METHODS = sorted(synthetic_results.CURVES)
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "beam_search": [{"children": 4}],
    "deal": [{"lookahead": 0}],
    "saffron": [{"semantics": "released"}, {"scorer": "prm"}, {"mrm": "other"}],
    "rebase": [{"widths": "release"}],
}
BUDGETS = st.lists(st.sampled_from([1, 2, 3, 8, 32, 64, 100_000]), min_size=1, max_size=3, unique=True)
WORDS = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=9)
SETS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
JUDGES = [
    {"kind": "guard"},
    {"kind": "sandbox"},
    {"kind": "refusals"},
    {"kind": "guard", "settings": {"threshold": 1.0}},
    {"kind": "other_guard"},
]


@st.composite
def run(draw: st.DrawFn, name: str | None = None, settings_id: str | None = None, attack: bool = True) -> dict[str, Any]:
    """A run of a method."""
    name = draw(st.sampled_from(METHODS)) if name is None else name
    found: dict[str, Any] = {"method": name, "budgets": [0] if described(name).budget is None else draw(BUDGETS)}
    found["settings_id"] = draw(st.sampled_from(["default", "other", "a.b_1"])) if settings_id is None else settings_id
    if name in SETTINGS and draw(st.booleans()):
        found["settings"] = draw(st.sampled_from(SETTINGS[name]))
    return found if attack else found | {"attack": False}


def key(run: dict[str, Any]) -> str:
    """Of a run, as a config knows it."""
    return f"{run['method']}-{run.get('settings_id', 'default')}"


@st.composite
def runs(draw: st.DrawFn, role: str | None, match: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Runs of an experiment: what its role needs, and others."""
    attack = role != "benign" and (role is not None or draw(st.booleans()))
    needed = {"scaling": ["no_defense", "best_of_n", "saffron"], "development": ["no_defense", "best_of_n"]}.get(role or "", [])
    needed += ["no_defense"] if role == "benign" else []
    found = [draw(run(name, "default", attack)) for name in needed]
    if match is not None:
        found.append({"method": match["method"], "budgets": [match["budget"]]})
    if role == "development":
        found.append({"method": "no_defense", "settings_id": "calm", "budgets": [0], "attack": False})
    if role == "section56":
        found.append({"method": "no_defense", "settings_id": "deep", "budgets": [0], "policy": "deepalign"})
    others = [name for name in METHODS if role != "exploration" or described(name).exploration is not None]
    settings_id = "default" if role == "scaling" else None
    extra = st.sampled_from(others).flatmap(lambda name: run(name, settings_id, attack))
    for entry in draw(st.lists(extra, min_size=0 if found else 1, max_size=4)):
        if key(entry) not in map(key, found):
            found.append(entry)
    return draw(st.permutations(found))


@st.composite
def replications(draw: st.DrawFn) -> dict[str, Any]:
    """A replication in the sandbox: any roles, names, judges, seeds and sizes."""
    values = shipped("smoke")
    parts = draw(st.lists(st.sampled_from(SANDBOX_SETS), min_size=1, unique=True))
    names = st.lists(SETS, min_size=len(parts), max_size=len(parts), unique=True)
    sets = dict(zip(parts, draw(names), strict=True))
    values["sources"]["prompts"] = {name: {"from": "sandbox", "part": part} for part, name in sets.items()}
    values["sources"]["sandbox"] |= {part: draw(st.sampled_from([1, 2, 5])) for part in SANDBOX_SETS}
    values["train_seeds"] = draw(st.sampled_from([[0], [3, 1]]))
    values["mrm"]["variants"] = {"default": {}, "other": {"bias": "absent"}}
    search: dict[str, Any] = {"max_new_tokens": draw(st.sampled_from([1, 2, 20])), "seeds": draw(st.sampled_from([[0], [2, 0]]))}
    search["shards"] = draw(st.sampled_from([1, 2]))
    search["jobs"] = draw(st.sampled_from(["runs", "models", "seeds"]))
    attacked = [sets[part] for part in parts if part != "benign"] or list(sets.values())
    main, few = draw(st.sampled_from(attacked)), draw(st.sampled_from([None, 1, 3]))
    match = {"method": draw(st.sampled_from(["best_of_n", "deal"])), "budget": draw(st.sampled_from([1, 4, 32]))}
    wanted: list[Role | None] = [*draw(st.lists(st.sampled_from(roles.ROLES), max_size=6, unique=True))]
    wanted += [None] * draw(st.integers(0 if wanted else 1, 2))
    titles = draw(st.lists(WORDS, min_size=len(wanted) + 1, max_size=len(wanted) + 1, unique=True))
    experiments = search["experiments"] = {}
    for role, title in zip(wanted, titles, strict=False):
        item: dict[str, Any] = {"dataset": main if role in ("scaling", "section56") else draw(st.sampled_from(attacked))}
        if role == "benign":
            item["dataset"] = sets.get("benign", main)
        if role in ("scaling", "section56"):
            item |= {} if few is None else {"prompts": few}
        elif draw(st.booleans()):
            item["prompts"] = draw(st.integers(1, 4))
        item |= {} if role is None else {"role": role}
        ruled = role == "matched" or (role is None and draw(st.booleans()))
        if ruled:
            item["match"] = match
        if role in (None, "search_seeds"):
            item["group"] = draw(st.sampled_from(workflow.GROUPS))
            item["seeds"] = draw(st.sampled_from([[0], [5, 2, 0]]))
        experiments[title] = item | {"runs": draw(runs(role, match if ruled else None))}
        if role == "matched" and draw(st.booleans()):
            other = copy.deepcopy(experiments[title])
            other["match"] = {**match, "convention": "per_model"}
            experiments[titles[-1]] = other
    values["search"] = search
    kinds = draw(st.lists(st.sampled_from(JUDGES), min_size=1, max_size=4))
    called = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True), min_size=5, max_size=5, unique=True))
    values["judges"] = [{**judge, "name": name} for judge, name in zip(kinds, called, strict=False)]
    if draw(st.booleans()):
        some = draw(st.lists(st.sampled_from(sorted(experiments)), min_size=1, unique=True))
        kind = draw(st.sampled_from(["other_guard", "likelihood"]))
        values["judges"].append({"name": called[4], "kind": kind, "experiments": some})
    several = {title: item["runs"] for title, item in experiments.items() if len(item["runs"]) > 1}
    values["analysis"] = {"bootstrap_samples": 100, "confidence": draw(st.sampled_from([0.5, 0.95]))}
    if several and draw(st.booleans()):
        title = draw(st.sampled_from(sorted(several)))
        values["analysis"]["ablations"] = {"ablation_mine": {"experiment": title, "runs": [key(run) for run in several[title]]}}
    values["report"] = {"show_text": draw(st.booleans())}
    return values


@tries(1)
@given(replications(), st.sampled_from([None, None, True, False]))
def test_any_config_that_is_accepted_is_analysed_and_drawn_to_the_end(values: dict[str, Any], always: bool | None) -> None:
    note(yaml.safe_dump({name: values[name] for name in ("search", "judges", "analysis")}, sort_keys=False))
    config = accepted(values)
    if config is not None:
        to_the_end(config, always)


# ---------------------------------------------------------------------------------------------------------- mutations
DELETED: Any = object()
ODD = [DELETED, None, "", 0, 1, -1, 2, 0.5, 10**12, float("nan"), float("inf"), True, [], {}, [0], [1, 1]]
ODD += ["a/b", "{x}", "ä b", "none"]
Place = tuple[str | int, ...]


def places(values: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a config, from the top down."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(values: dict[str, Any], changes: list[tuple[Place, Any]]) -> dict[str, Any]:
    """A config with other values at some places; a place that is no longer there is left alone."""
    found: Any = copy.deepcopy(values)
    for path, value in changes:
        try:
            holder, key = at(found, path[:-1]), path[-1]
            holder[key]
            if value is DELETED:
                del holder[key]
            else:
                holder[key] = value
        except (KeyError, IndexError, TypeError):
            continue
    return found


def odd(value: Any) -> list[Any]:
    """What may stand in the place of a value: of its own type, or anything."""
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, (int, float)):
        return [0, 1, 2, 3, -1, 0.5, 0.95, 10**12, DELETED, "1"]
    return [DELETED, value * 2] if isinstance(value, list) and value else ODD


def at(values: Any, path: Place) -> Any:
    """What stands at a place."""
    for key in path:
        values = values[key]
    return values


def mutation(pick: Callable[[Sequence[Any]], Any], names: Sequence[str], most: int = 3) -> tuple[str, str, dict[str, Any]]:
    """A shipped config by name with some odd places, which the second value tells; ``pick`` chooses one of several."""
    name = pick(names)
    known = [path for path in places(CONFIGS[name])]
    heads = sorted({path[0] for path in known}, key=str)
    changes = []
    for _ in range(pick(range(1, most + 1))):
        head = pick(heads)  # sections alike, however long
        path = pick([path for path in known if path[0] == head])
        changes.append((path, pick(odd(at(CONFIGS[name], path)))))
    told = f"{name}: {[(path, 'deleted' if value is DELETED else value) for path, value in changes]}"
    return name, told, mutated(CONFIGS[name], changes)


@st.composite
def mutations(draw: st.DrawFn, names: list[str], most: int = 3) -> tuple[str, dict[str, Any]]:
    """A shipped config by name with some odd places."""
    name, told, values = mutation(lambda items: draw(st.sampled_from(items)), names, most)
    note(told)
    return name, values


@tries(12)
@given(mutations(sorted(CONFIGS)))
def test_a_shipped_config_with_odd_values_is_refused_in_one_message_or_read(found: tuple[str, dict[str, Any]]) -> None:
    accepted(found[1])


@tries(0.5)
@given(mutations(["smoke", "smoke", "paper-1b"], most=1))
def test_a_shipped_config_with_odd_values_is_refused_or_analysed_to_the_end(found: tuple[str, dict[str, Any]]) -> None:
    config = accepted(found[1])
    if config is not None:
        to_the_end(config)
