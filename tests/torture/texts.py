"""Fuzzed conversations and prompts through sources, tokenizer, labelling and search, on tiny models.

Texts are made of what has broken such software: names of control tokens, turn headers, lone surrogates, CRLF, NUL, marks of
direction, long words, nothing at all. A try ends in one message that names a key, or all texts come through: no token of a
label or a prompt is a control token's, every row is accounted for, every prompt is searched.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from replica import other_family

from saffron import models, records
from saffron.chat import ChatFormats, control_ids
from saffron.layout import Layout
from torture.faults import command, messages
from torture.parts import Fault, Part

PIECES = (
    *("", " ", "\n", "\r\n", "\r\n\r\n", "\t", "\0", "\x1b[31m", "\u2028", "\ufeff", "\u200b", "\u202e", "\u2066"),
    *("\ud800", "\udfff", "\ud83d\ude00", "e\u0301", "\u0645\u0631\u062d\u0628\u0627", "𝔘", "\U0010ffff"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|im_start", "[INST]", "</s>", "<tool_call>"),
    *("\n\nHuman:", "\n\nAssistant:", "\r\n\r\nHuman: ", "Assistant:", "\n\n Human:", "Human: Human:"),
    *("safe", " fine", " harmful", "{x}", "{{ messages }}", "%s", "null", "NaN", "bread", "Is rye bread safe?", "x" * 3000),
)
#: An attack needs an answer to prefill.
STARTS = (*("First, take bread. ",) * 9, "")
TEXT_STAGES = ("sources", "models tokenizer")
LATER = ("safety4m label", "safety4m gather", "search run --experiment scaling --run best_of_n-default")


def text(rng: random.Random) -> Any:
    """A text, now and then something else."""
    if rng.random() < 0.01:
        return rng.choice([None, 3, [], {"a": 1}])
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(6)))


def conversation(rng: random.Random, question: Any) -> Any:
    """A transcript, mostly well formed."""
    if rng.random() < 0.03:
        return text(rng)
    turns = [f"\n\nHuman: {question}\n\nAssistant: {text(rng)}" for _ in range(rng.randint(1, 2))]
    return "".join(turns).replace("\n", rng.choice(["\n", "\n", "\n", "\r\n"]))


def rows(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Write both sources and return the section of a config that reads them."""
    lines = {}
    for split in ("train", "test"):
        questions = [text(rng) for _ in range(rng.randint(2, 4))] + ["Is rye bread safe?"]
        lines[f"hh/{split}.jsonl"] = [{side: conversation(rng, asked) for side in ("chosen", "rejected")} for asked in questions]
        lines[f"hh/{split}.jsonl"][-1] = {side: f"\n\nHuman: hello\n\nAssistant: bread {side}" for side in ("chosen", "rejected")}
    lines["prompts.jsonl"] = [
        {"prompt": text(rng), "reference": f"{rng.choice(STARTS)}{text(rng)}"} for _ in range(rng.randint(1, 3))
    ]
    for name, items in lines.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    allowed = rng.choice([0.05, 0.9, 0.9])
    pairs = {"from": "path", "path": str(folder / "hh"), "reader": "preference_pairs", "allow_dropped": allowed}
    prompts = {"from": "path", "path": str(folder / "prompts.jsonl"), "reader": "columns", "allow_dropped": allowed}
    return {"conversations": pairs, "prompts": {"mine": prompts}}


def check(layout: Layout) -> None:
    """No text became a control token, no row is lost."""
    tokenizer = models.load_tokenizer(layout.tokenizer)
    formats = ChatFormats.load(layout.tokenizer)
    control = control_ids(tokenizer)
    labels = records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)
    for name, ids in zip(labels["conversation_id"], labels["input_ids"], strict=True):
        said = ids[:-1] if ids[-1] == formats.eos_id else ids
        if not control.isdisjoint(said.tolist()):
            raise Fault(f"{name}: a text became a control token")
    prompts = records.read_table(layout.prompts("mine"), records.PROMPTS)
    found = records.read_table(layout.search_run(0, "scaling", "best_of_n-default", 0), records.SEARCH)
    if set(found["prompt_id"]) != set(prompts["prompt_id"]):
        raise Fault("a prompt was not searched")
    if any(not control.isdisjoint(ids.tolist()) for ids in found["prefill_ids"]):
        raise Fault("a reference became a control token")


def attempt(scratch: Path) -> Callable[[int], str]:
    """Make tiny models once; each try runs fuzzed rows through all that reads text."""
    base = scratch / "texts"
    shutil.rmtree(base, ignore_errors=True)
    values = yaml.safe_load(other_family.write(base / "mirrors").read_text())
    config = base / "mine.yaml"
    config.write_text(yaml.safe_dump(values))
    for words in (*TEXT_STAGES, "models policy", "models guard"):
        status, printed = command(words, config, base / "out")
        if status:
            raise Fault(f"{words}: {printed}")

    def once(seed: int) -> str:
        folder = scratch / f"texts{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "out/data/mine/models", folder / "out/data/mine/models")
        mine = folder / "mine.yaml"
        mine.write_text(yaml.safe_dump(values | {"sources": rows(folder, random.Random(seed))}))
        for words in (*TEXT_STAGES, *LATER):
            status, printed = command(words, mine, folder / "out")
            if status:
                said = messages(printed)
                if len(said) != 1 or ": " not in said[0]:
                    raise Fault(f"{words}: not one message: {printed[-1500:]}")
                shutil.rmtree(folder)
                return "refused by name"
        check(Layout("mine", folder / "out"))
        shutil.rmtree(folder)
        return "read, labelled and searched"

    return once


PART = Part("texts", 2000, attempt)
