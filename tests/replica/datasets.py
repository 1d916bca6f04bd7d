"""Datasets in the hub's exact layouts with made-up benign content: bread, soup and garden fences."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd

from replica.tokenizer import WORDS

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def _conversation(rng: random.Random, turns: int) -> str:
    """Whole turns of both sides, as HH-RLHF writes them."""
    return "".join(f"\n\nHuman: {_sentence(rng, 6)}\n\nAssistant: {_sentence(rng, rng.randint(3, 12))}" for _ in range(turns))


def _write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


def write_hh_rlhf(folder: Path, *, train: int, test: int) -> dict[str, int]:
    """``<subset>/{train,test}.jsonl.gz``, ``train`` and ``test`` rows in each subset; returns rows by split."""
    for number, subset in enumerate(SUBSETS):
        for split, rows in (("train", train), ("test", test)):
            rng = random.Random(f"{number} {split}")
            lines = []
            for _ in range(rows):
                start, last = _conversation(rng, rng.randint(0, 2)), f"\n\nHuman: {_sentence(rng, 5)}\n\nAssistant: "
                lines.append({side: start + last + _sentence(rng, rng.randint(3, 12)) for side in ("chosen", "rejected")})
            _write_lines(folder / subset / f"{split}.jsonl.gz", lines)
    _write_lines(folder / "red-team-attempts" / "red_team_attempts.jsonl.gz", [{"transcript": "not read"}])
    return {"train": train * len(SUBSETS), "test": test * len(SUBSETS)}


def write_harmful_hexphi(folder: Path, rows: int) -> dict[str, int]:
    """``data/safety_bench/Harmful-HEx-PHI.jsonl``: one list of two messages a line."""
    rng = random.Random("hexphi")
    lines = [
        [{"role": "user", "content": _sentence(rng, 8)}, {"role": "assistant", "content": _sentence(rng, 20)}]
        for _ in range(rows)
    ]
    _write_lines(folder / "data/safety_bench/Harmful-HEx-PHI.jsonl", lines)
    return {"train": rows}


def write_ai2_refusals(folder: Path, rows: int) -> dict[str, int]:
    """``data/filtered-00000-of-00001.parquet`` with RewardBench's columns; ``rows`` in each refusals subset, others between."""
    rng = random.Random("refusals")
    subsets = [
        "alpacaeval-easy",
        *["refusals-dangerous"] * rows,
        "xstest-should-refuse",
        *["refusals-offensive"] * rows,
        "hep-python",
    ]
    table = pd.DataFrame(
        {
            "prompt": [_sentence(rng, 7) for _ in subsets],
            "chosen": ["Sorry, not that." for _ in subsets],
            "chosen_model": "a",
            "rejected": [_sentence(rng, 18) for _ in subsets],
            "rejected_model": "b",
            "subset": subsets,
            "id": range(len(subsets)),
        }
    )
    path = folder / "data/filtered-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
    return {"refusals-dangerous": rows, "refusals-offensive": rows}
