"""The replica's config: ``config/paper.yaml`` itself, with local mirrors in place of the hub and everything made small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replica import datasets, models

PAPER = Path(__file__).parents[2] / "config/paper.yaml"


@dataclass(frozen=True)
class Size:
    """How large a replica is."""

    train: int  # HH-RLHF rows per subset
    test: int
    prompts: int  # Harmful HEx-PHI rows; as many refusals of each kind
    largest_budget: int
    new_tokens: int
    layers: int
    shards: int


SMALL = Size(train=1, test=1, prompts=2, largest_budget=2, new_tokens=4, layers=1, shards=1)
LARGE = Size(train=16, test=4, prompts=24, largest_budget=8, new_tokens=24, layers=4, shards=2)


def write(folder: Path, size: Size = SMALL) -> Path:
    """Write mirrors and ``replica.yaml`` into ``folder`` (an absolute path); returns the config's path."""
    rows = {
        "hh_rlhf": datasets.write_hh_rlhf(folder / "hh_rlhf", train=size.train, test=size.test),
        "harmful_hexphi": datasets.write_harmful_hexphi(folder / "harmful_hexphi", size.prompts),
        "ai2_refusals": datasets.write_ai2_refusals(folder / "ai2_refusals", size.prompts),
    }
    models.write(folder / "models", layers=size.layers)
    config = yaml.safe_load(PAPER.read_text())
    config["name"] = "replica"
    config["runtime"] = {"device": "cpu", "dtype": "float32", "torch_threads": 1}
    sources = config["sources"]
    for name, file in (("hh_rlhf", sources["conversations"]), *sources["prompts"].items()):
        for pin in ("revision", "sha256"):
            file.pop(pin, None)
        file |= {"path": str(folder / name), "rows": rows[name]}
    for role in ("policy", "guard"):
        config["models"]["hub"][role] = {"id": config["models"]["hub"][role]["id"], "path": str(folder / "models" / role)}
    config["safety4m"] |= {"shards": size.shards, "block_size": 8, "batch_size": 4}
    config["mrm"] |= {"evaluation_prefixes": 32}
    config["search"] |= {"prefill_tokens": 3, "max_new_tokens": size.new_tokens, "block_size": 2, "shards": size.shards}
    config["search"]["methods"]["saffron"]["min_new_tokens"] = size.new_tokens // 2
    for experiment in config["search"]["experiments"].values():
        _shrink(experiment, size)
    path = folder / "replica.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _shrink(experiment: dict[str, Any], size: Size) -> None:
    if "prompts" in experiment:
        experiment["prompts"] = 2
    if "match" in experiment:
        experiment["match"]["budget"] = size.largest_budget
    for run in experiment["runs"]:
        matched = "match" in experiment and run["method"] == experiment["match"]["method"]
        small = [budget for budget in run["budgets"] if budget <= size.largest_budget]
        run["budgets"] = [size.largest_budget] if matched or not small else small
