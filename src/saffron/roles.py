"""What an experiment stands for: figures, tables and claims ask for a role, whatever the experiment is called.

Each role needs runs that its figures are made of; :func:`problems` says which are missing, when a config is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from saffron.methods.discovery import method

if TYPE_CHECKING:
    from saffron.config import Config, Experiment, Run, Search

Role = Literal["scaling", "exploration", "matched", "development", "section56", "benign", "search_seeds"]
ROLES: tuple[Role, ...] = get_args(Role)

#: The method that leaves the policy as it is.
BASELINE = "no_defense"
#: The method that draws whole answers, which every other is compared with.
SAMPLING = "best_of_n"
#: The method that the paper proposes, which its claims are about.
PROPOSED = "saffron"

#: Roles whose figures stand in every report, so that `make replicate` has to build them.
REPLICATED = ("scaling", "exploration", "matched", "development", "section56", "benign")


#: The paper's own data: hub ids of its conversations and, by the role that its experiments have here, of its two benchmarks.
PAPER_CONVERSATIONS = "Anthropic/hh-rlhf"
PAPER_BENCHMARKS: dict[Role, tuple[str, str]] = {
    "scaling": ("Unispac/shallow-vs-deep-safety-alignment-dataset", "Harmful HEx-PHI"),
    "matched": ("allenai/reward-bench", "Ai2 Refusals"),
}


def on_paper_benchmark(config: Config, role: Role) -> bool:
    """Whether the experiment of a role is run on the prompts that the paper ran it on."""
    name = holder(config.search, role)
    return name is not None and config.sources.prompts[config.search.experiments[name].dataset].id == PAPER_BENCHMARKS[role][0]


def named(config: Config, text: str) -> str:
    """A statement of the paper with the names of the data that were run in place of the paper's own."""
    for role, (_, title) in PAPER_BENCHMARKS.items():
        name = holder(config.search, role)
        if name is not None and not on_paper_benchmark(config, role):
            text = text.replace(title, f"{config.search.experiments[name].dataset} in place of {title}")
    return text


def holders(search: Search, role: Role) -> dict[str, Experiment]:
    """Experiments of one role, by name."""
    return {name: item for name, item in search.experiments.items() if item.role == role}


def holder(search: Search, role: Role, convention: str = "once") -> str | None:
    """Name of the experiment of a role; of those matched by compute, the one that counts it this way. None without one."""
    found = holders(search, role)
    return next((name for name, item in found.items() if role != "matched" or _convention(item) == convention), None)


def deepalign_run(item: Experiment) -> Run | None:
    """The run of section 5.6: the DeepAlign policy with nothing but itself."""
    return next((run for run in item.runs if run.method == BASELINE and run.policy == "deepalign"), None)


def unattacked_run(item: Experiment) -> Run | None:
    """The run of the policy alone that is not attacked, which the gates read."""
    return next((run for run in item.runs if run.method == BASELINE and not run.attack), None)


def problems(search: Search) -> list[str]:
    """What the roles of a config's experiments lack, one line each with the remedy; empty if nothing."""
    found = [f"{name}: {problem}" for name, item in search.experiments.items() for problem in _problems(item)]
    for role in ROLES:
        found += _twice(role, holders(search, role))
    return found + _matched_apart(search) + _quality_apart(search)


def _problems(item: Experiment) -> list[str]:
    role = item.role
    if role is None:
        return []
    found = []
    if role in REPLICATED and item.group != "replicate":
        found.append(f"role {role} is part of `make replicate`; set group: replicate, or leave the role out")
    if (role == "matched") != (item.match is not None) and role != "search_seeds":
        found.append(
            "role matched needs the key match" if role == "matched" else f"role {role} shows every budget; leave match out"
        )
    keys = {run.key for run in item.runs if run.policy == "policy" and (run.attack or role == "benign")}
    found += [
        f"role {role} needs a run of {name} with settings_id default; add {{method: {name}, budgets: …}}"
        for name in _needed(item)
        if f"{name}-default" not in keys
    ]
    if role == "exploration":
        found += [
            f"role exploration: Table 1 varies nothing of {run.method}; remove run {run.key}"
            for run in item.runs
            if method(run.method).exploration is None
        ]
    if role == "scaling":
        others = sorted({run.method for run in item.runs} - {run.method for run in item.runs if run.settings_id == "default"})
        found += [f"role scaling draws settings_id default, which {name} lacks; rename one of its runs" for name in others]
    if role == "development" and unattacked_run(item) is None:
        found.append(f"role development needs a run of {BASELINE} with attack: false, for the gates; add it")
    if role == "section56" and deepalign_run(item) is None:
        found.append(f"role section56 needs a run of {BASELINE} with policy: deepalign; add it")
    if role == "benign" and any(run.attack for run in item.runs):
        found.append("role benign counts refusals of harmless prompts; set attack: false for every run")
    return found


def _needed(item: Experiment) -> list[str]:
    """Methods of which a role's figures need the run with settings_id default."""
    if item.role == "scaling":
        return [BASELINE, SAMPLING, PROPOSED]
    if item.role == "development":
        return [BASELINE, SAMPLING]
    if item.role == "matched" and item.match is not None:
        return [item.match.method]
    return [BASELINE] if item.role == "benign" else []


def _convention(item: Experiment) -> str | None:
    return item.match.convention if item.match is not None else None


def _twice(role: Role, found: Mapping[str, Experiment]) -> list[str]:
    seen: dict[str | None, str] = {}
    lines = []
    for name, item in found.items():
        kind = _convention(item) if role == "matched" else None
        if kind in seen:
            of = f" with match.convention {kind}" if kind else ""
            lines.append(f"{name}: role {role}{of} is that of {seen[kind]} already; leave it out of one of them")
        seen.setdefault(kind, name)
    return lines


def _matched_apart(search: Search) -> list[str]:
    """An experiment matched per model stands beside the one matched once, and differs from it in that alone."""
    once, per_model = holder(search, "matched"), holder(search, "matched", "per_model")
    if per_model is None:
        return []
    if once is None:
        return [f"{per_model}: role matched with convention per_model completes one with convention once; add that"]
    one, other = search.experiments[once], search.experiments[per_model]
    assert one.match is not None and other.match is not None  # they are told apart by it
    differing = [name for name in ("dataset", "prompts") if getattr(one, name) != getattr(other, name)]
    differing += [f"match.{name}" for name in ("method", "budget") if getattr(one.match, name) != getattr(other.match, name)]
    differing += ["seeds"] if search.seeds_of(one) != search.seeds_of(other) else []
    return [f"{per_model}: {name} differs from {once}'s, whose rows complete its own; give both the same" for name in differing]


def _quality_apart(search: Search) -> list[str]:
    """Section 5.6 compares outputs of two experiments on the same prompts."""
    scaling, section56 = holder(search, "scaling"), holder(search, "section56")
    if scaling is None or section56 is None:
        return []
    one, other = search.experiments[scaling], search.experiments[section56]
    found = [
        f"{section56}: {name} differs from {scaling}'s, which it is compared with; give both the same"
        for name in ("dataset", "prompts")
        if getattr(one, name) != getattr(other, name)
    ]
    found += [
        f"{name}: seeds lack {search.seeds[0]}, the first of search.seeds, whose outputs section 5.6 compares; add it"
        for name, item in ((scaling, one), (section56, other))
        if search.seeds[0] not in search.seeds_of(item)
    ]
    matched = holder(search, "matched")
    rule = search.experiments[matched].match if matched else None
    if rule is not None and f"{rule.method}-default" not in {run.key for run in one.runs}:
        found.append(f"{scaling}: section 5.6 shows {rule.method}, the method that {matched} matches; add its run")
    return found
