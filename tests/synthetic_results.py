"""Made-up results of a whole run in every stage's schema, for tests of analysis, plots and report.

Attack success falls along a log law per method; the numbers are drawn from seeds and mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from saffron import config as configs
from saffron import records, workflow
from saffron.config import Config, Experiment, Judge, Run
from saffron.judges.discovery import kind
from saffron.layout import Layout

PROJECT = Path(__file__).resolve().parents[1]

#: ASR = start + slope · ln(budget), and MFLOP = fixed + each · budget, by method.
CURVES = {
    "no_defense": (0.9, 0.0, 40.0, 0.0),
    "best_of_n": (0.9, -0.13, 40.0, 52.0),
    "saffron": (0.78, -0.14, 45.0, 50.0),
    "rebase": (0.9, -0.10, 60.0, 240.0),
    "deal": (0.88, -0.06, 100.0, 400.0),
    "beam_search": (0.8, -0.05, 100.0, 300.0),
}
PHRASES = (
    "Let us try mint tea together .",
    "But wait , this is forbidden .",
    "Quickly grind the fierce stone .",
    "Then warm the pale resin .",
)


def config(name: str = "made", *, seeds: tuple[int, ...] = (0,), prompts: int = 48, **changes: Any) -> Config:
    """The sandbox config without its ablations, with fewer prompts and bootstrap samples."""
    values = yaml.safe_load((PROJECT / "config" / "sandbox.yaml").read_text())
    experiments = values["search"]["experiments"]
    values["search"]["experiments"] = {key: item for key, item in experiments.items() if item.get("group") != "ablations"}
    values["judges"] = [judge for judge in values["judges"] if "experiments" not in judge]
    values["name"], values["train_seeds"] = name, list(seeds)
    values["sources"]["sandbox"] |= {"guild_a": prompts, "guild_b": prompts, "development": prompts, "benign": prompts}
    values["analysis"] = {"bootstrap_samples": 200}
    return configs.parse(values | changes, "synthetic")


#: Prompts of a set whose size no config says.
FEW = 6


def _number_of_prompts(config: Config, dataset: str) -> int:
    rows, sandbox = config.sources.prompts[dataset], config.sources.sandbox
    if rows.origin != "sandbox" or sandbox is None:
        return FEW
    return int(getattr(sandbox, rows.part or dataset))


def _phrase(run: Run, difficulty: float) -> str:
    alike = run.policy == "deepalign" and difficulty < 0.8
    return PHRASES[0] if alike else PHRASES[int(difficulty * 997) % len(PHRASES)]


def _rows(
    config: Config, experiment: Experiment, run: Run, budget: int, seed: int, search_seed: int, always: bool | None
) -> list[dict[str, Any]]:
    start, slope, fixed, each = CURVES[run.method]
    settings = config.search.settings_of(run)
    limit = config.search.max_new_tokens
    if run.method == "beam_search":
        each, start = each * settings.children / 2, start - 0.08 * (settings.children > 2)
    if run.method == "deal":
        each *= 1 + 0.1 * settings.lookahead
    rate = start + slope * np.log(max(budget, 1))
    if not run.attack:
        rate = 0.03
    if run.policy == "deepalign":
        rate = 0.1
    n = min(experiment.prompts or 10**9, _number_of_prompts(config, experiment.dataset))
    generator = np.random.default_rng([seed, search_seed, len(experiment.dataset), ord(experiment.dataset[-1])])
    # One threshold per prompt for every method: this is what pairs the methods.
    difficulty, noise = generator.random(n), np.random.default_rng([budget, len(run.method), seed]).normal(size=n)
    unsafe = difficulty + 0.05 * noise < rate if always is None else np.full(n, always)
    rows = []
    for i in range(n):
        text = f"{_phrase(run, difficulty[i])} Step {int(difficulty[i] * 31)} of {i} ."
        text = " ".join(text.split()[:limit]) if limit > 1 or i % 2 else ""
        flops = (fixed + each * budget) * 1e6 * (1 + 0.05 * noise[i])
        rows.append(
            {
                "dataset": experiment.dataset,
                "prompt_id": i,
                "method": run.method,
                "budget": budget,
                "settings_id": run.settings_id,
                "train_seed": seed,
                "search_seed": search_seed,
                "prefill_ids": [4] if run.attack else [],
                "output_ids": [1, 2, 3][:limit],
                "response": text,
                "text": text,
                "reward": None
                if run.method == "no_defense" or getattr(settings, "semantics", "") == "released"
                else float(noise[i]),
                "guard": -1.0 - float(abs(noise[i])) if unsafe[i] else 1.0 + float(abs(noise[i])),
                "oracle": bool(unsafe[i] or (always is None and difficulty[i] > 0.97)),
                "refusals": bool(unsafe[i] or (always is None and difficulty[i] > 0.9)),
                "finished": bool(difficulty[i] > 0.2),
                "n_new_tokens": min(limit, 20 + i % 12),
                "flops_policy": 0.8 * flops,
                "flops_reward": 0.2 * flops,
                "flops_executed_policy": 0.9 * flops,
                "flops_executed_reward": 0.25 * flops,
                "reward_calls": 0 if run.method == "no_defense" else 32 * max(budget, 1),
            }
        )
    return rows


def _all_rows(config: Config, name: str, seed: int, always: bool | None = None) -> list[dict[str, Any]]:
    """One experiment's outputs and what each judge says of them.

    Where budgets are matched, the largest that costs at most what the method does that they are matched to.
    """
    experiment = config.search.experiments[name]
    rows: list[dict[str, Any]] = []
    for run in experiment.runs:
        budgets = experiment.budgets_of(run)
        if experiment.match is not None and len(budgets) > 1:
            _, _, fixed, each = CURVES[run.method]
            *_, reference_fixed, reference_each = CURVES[experiment.match.method]
            limit = experiment.match.tolerance * (reference_fixed + reference_each * experiment.match.budget)
            factor = 2 if experiment.match.convention == "per_model" and run.method == "saffron" else 1
            budgets = [max([b for b in budgets if factor * (fixed + each * b) <= limit], default=min(budgets))]
        for budget in budgets:
            for search_seed in config.search.seeds_of(experiment):
                rows += _rows(config, experiment, run, budget, seed, search_seed, always)
    return rows


def judgements(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """A judge's table of some search rows: success, score and refused, each null unless it is given."""
    said = {"success": None, "score": None, "refused": None} | columns
    return table[list(records.OUTPUT)].assign(**said).astype({"success": object, "score": float, "refused": object})


def write_search(config: Config, layout: Layout, name: str, seed: int, always: bool | None = None) -> None:
    """One experiment's table, and those of its judges: of every table, and of this experiment alone."""
    rows = pd.DataFrame(_all_rows(config, name, seed, always))
    records.write_table(layout.search(seed, name), rows, records.SEARCH)
    for judge in config.judges:
        if judge.experiments is None or name in judge.experiments:
            records.write_table(layout.judgements(seed, judge.name, name), _said(judge, rows), records.JUDGEMENTS)


def _said(judge: Judge, rows: pd.DataFrame) -> pd.DataFrame:
    """What a judge says of some rows, as its kind would."""
    found = kind(judge.kind)
    if found.measures:
        return judgements(rows, score=-1.0 - rows["n_new_tokens"] / 100)
    if found.rewards:
        return judgements(rows, success=rows["guard"] < 0, score=rows["guard"])
    if judge.kind == "refusals":
        return judgements(rows, success=rows["refusals"], refused=~rows["refusals"])
    refused = rows["text"].str.contains("forbidden") if found.tells_refusals else None
    return judgements(rows, success=rows["oracle"], refused=refused)


def write_verdicts(layout: Layout, seed: int, judge: str, name: str, success: Any) -> None:
    """Write a judge's table anew with these verdicts, of which a guard's rewards follow."""
    table = records.read_table(layout.search(seed, name), records.SEARCH)
    said = judgements(table, success=success)
    if judge == "guard":
        said = said.assign(score=[-1.0 if unsafe else 1.0 for unsafe in said["success"]])
    records.write_table(layout.judgements(seed, judge, name), said, records.JUDGEMENTS)


def write(config: Config, layout: Layout, always: bool | None = None) -> None:
    """Write everything the analysis and the figures read.

    Args:
        config: whose results are made up.
        layout: where they go.
        always: whether every attack succeeds, or none does (None: some do).
    """
    for dataset in config.sources.prompts:
        n = _number_of_prompts(config, dataset)
        rows = [
            {"dataset": dataset, "prompt_id": i, "prompt": f"How do I make item {i}?", "reference": f"First take item {i}."}
            for i in range(n)
        ]
        records.write_table(layout.prompts(dataset), rows, records.PROMPTS)
    for seed in config.train_seeds:
        for name in config.search.experiments:
            write_search(config, layout, name, seed, always)
        for variant in workflow.variants(config):
            write_mrm(layout, seed, min(2_000, config.mrm.evaluation_prefixes), variant)
        records.write_json(layout.search_trees(seed), trees(depth=min(14, config.search.max_new_tokens)))
        labels = [
            {"conversation_id": str(i), "split": "train", "source_row": i, "side": "chosen", "turn": 0}
            | {"input_ids": [1, 2, 3, 4], "response_start": 2, "rewards": [0.5, -0.5]}
            for i in range(10)
        ]
        records.write_table(layout.safety4m(seed) / "labels.parquet", labels, records.SAFETY4M)


def write_mrm(layout: Layout, seed: int, points: int = 2_000, variant: str = "default") -> None:
    """An MRM's head and its evaluation."""
    generator = np.random.default_rng(seed)
    prm = np.where(generator.random(points) < 0.26, generator.normal(-5, 2, points), generator.normal(4.5, 2, points))
    frame = pd.DataFrame(
        {
            "conversation_id": [f"c{i // 20}" for i in range(points)],
            "position": np.arange(points) % 20,
            "token": generator.integers(0, 500, points),
            "prm_reward": prm,
            "mrm_reward": prm + generator.normal(0.1, 0.7, points),
            "previous_reward": np.roll(prm, 1),
        }
    )
    records.write_table(layout.mrm(seed, variant) / "evaluation.parquet", frame, records.MRM_EVALUATION)
    records.write_json(layout.mrm(seed, variant) / "evaluation.json", {"held_out_prefixes": points})
    unseen = np.arange(50) >= 45
    save_file(
        {"lm_head_bias": np.where(unseen, 0, generator.normal(size=50)).astype(np.float32), "unseen_mask": unseen},
        layout.mrm(seed, variant) / "head.safetensors",
    )


def trees(prompts: int = 3, width: int = 6, depth: int = 14) -> dict[str, Any]:
    """Recorded searches: beams that share prefixes, samples that soon part."""
    searches = [_search(prompt, method, width, depth) for prompt in range(prompts) for method in ("saffron", "best_of_n")]
    generator = np.random.default_rng(5)
    prm = np.array([2.8, -1.1, 0.4, -3.9, 3.3, 1.2])
    texts = [" grind", " warm", " stir", " forbidden", " But", " quickly"]
    candidates = [
        {"token": i, "text": texts[i], "probability": 0.3 / (i + 1), "mrm_reward": float(prm[i] + generator.normal(0, 0.3))}
        | {"prm_reward": float(prm[i]), "seen": i != 5, "kept": i in (0, 4)}
        for i in range(6)
    ]
    step = {"prompt_id": 0, "step": 5, "prefix_text": [" First", ",", " take", " the", " pale"], "candidates": candidates}
    step |= {"mrm_calls": 1, "prm_calls": 6, "mrm_flops": 4.0e5, "prm_flops": 4.1e7}
    return {"dataset": "guild_a", "train_seed": 0, "search_seed": 0, "searches": searches, "step": step}


def _search(prompt: int, method: str, width: int, depth: int) -> dict[str, Any]:
    generator = np.random.default_rng([prompt, len(method)])
    words = [" the", " pale", " stone", " stir", " warm", " But", " resin", " ,", " slowly", " grind"]
    parent: list[int] = []
    token: list[int] = []
    beam = [-1] * width if method == "best_of_n" else [-1]
    for _ in range(depth):
        children: list[tuple[int, int]] = []
        for node in beam:
            branches = 1 if method == "best_of_n" else 3
            children += [(node, int(t)) for t in generator.choice(len(words), branches, replace=False)]
        if method == "saffron":
            kept = sorted(generator.choice(len(children), min(width, len(children)), replace=False))
            children = [children[i] for i in kept]
        start = len(parent)
        known: dict[tuple[int, int], int] = {
            pair: i for i, pair in enumerate(zip(parent, token, strict=True)) if method == "best_of_n"
        }
        beam = []
        for pair in children:
            if pair not in known:
                known[pair] = len(parent)
                parent.append(pair[0])
                token.append(pair[1])
            beam.append(known[pair])
        assert len(parent) >= start
    nodes = {
        "parent": parent,
        "token": token,
        "text": [words[t] for t in token],
        "reward": [float(r) for r in generator.normal(size=len(parent))],
    }
    length: list[int] = []
    for above in parent:
        length.append(1 + (length[above] if above >= 0 else 0))
    ends = [node for node, new in enumerate(length) if new == depth]
    read = [*range(1, 25), *(24 + new for new in length if new < depth)]  # context of each token that is read
    return {
        "prompt_id": prompt,
        "method": method,
        "budget": width,
        "prompt_tokens": 24,
        "nodes": nodes,
        "ends": ends,
        "engine": {"tokens": len(read), "context": sum(read)},
        "output": len(parent) - 1,
    }
