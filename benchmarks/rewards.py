"""Safety4M labels per second against one forward per prefix; MRM targets per second against one prefix per row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import SECONDS, Timing, clock, median, memory, paired, ratio
from benchmarks.methods import formats
from benchmarks.shapes import Shapes, Workload, llama
from saffron.chat import ChatFormats
from saffron.models.verdicts import verdicts
from saffron.mrm.model import MultifurcationRewardModel, squared_error
from saffron.mrm.targets import Targets, collate
from saffron.sources.conversations import TokenisedResponse

#: Of a conversation cut to 128 tokens.
PROMPT, RESPONSE = 40, 88
#: Rows of the paper's training batch.
CONVERSATIONS = 4
#: What ``share_of_flop_ratio`` is.
DEFINITION = (
    "labels per {second} of the packed pass over those of one forward per prefix, divided by FLOPs per label of one forward "
    "per prefix over those of the packed pass; both on the same conversations, FLOPs counted by FlopCounterMode on what runs"
)
#: Prefixes of each conversation that the slow ways are timed on, evenly spaced.
SAMPLE = np.arange(3, RESPONSE, 8)


def conversations(count: int, vocabulary: int) -> list[TokenisedResponse]:
    """Random conversations."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, vocabulary, (count, PROMPT + RESPONSE), generator=generator).tolist()
    return [TokenisedResponse(row[:PROMPT], row[PROMPT:]) for row in ids]


@torch.no_grad()
def labels_one_by_one(model: Any, chat: ChatFormats, items: list[TokenisedResponse]) -> None:
    """One forward per sampled prefix, prefixes of equal length in one batch, the verdict position alone unembedded."""
    for position in SAMPLE:
        rendered = [chat.guard.render(item.prompt_ids, item.response_ids[: position + 1]) for item in items]
        model(torch.tensor(rendered, device=model.device), use_cache=False, logits_to_keep=1)


def labelling(shapes: Shapes, device: torch.device, turns: int) -> list[dict[str, Any]]:
    """Labels per second of the packed pass and of one forward per prefix, and their FLOP ratio, per guard that labels."""
    return [_labelling(workload, shapes, device, turns) for workload in shapes.labelling]


def _guard(workload: Workload, shapes: Shapes, device: torch.device) -> Any:
    return llama(workload.shape, 1, dtype=shapes.dtype, device=str(device), tied=shapes.tied)


def _labelling(workload: Workload, shapes: Shapes, device: torch.device, turns: int) -> dict[str, Any]:
    model, chat = _guard(workload, shapes, device), formats(workload.prefix, workload.suffix)
    items = conversations(workload.conversations, model.config.vocab_size)
    functions = {
        "packed": lambda: verdicts(model, chat, items, batch_size=workload.conversations)[0],
        "one_forward_per_prefix": lambda: labels_one_by_one(model, chat, items),
    }
    timings = paired(functions, turns, device=device)
    counts = {"packed": workload.conversations * RESPONSE, "one_forward_per_prefix": workload.conversations * len(SAMPLE)}
    row = {"guard": workload.name, "labels_per_second": _rates(timings, counts)} | memory(timings)
    if any(timing.out_of_memory for timing in timings.values()):
        return row
    model.set_attn_implementation("eager")
    flops = {}
    for name, function in functions.items():
        with FlopCounterMode(display=False) as counter:
            function()
        flops[name] = counter.get_total_flops() / counts[name]
    speed = _speed(timings, "one_forward_per_prefix", counts)
    flop_ratio = flops["one_forward_per_prefix"] / flops["packed"]
    return row | {
        "flops_per_label": flops,
        "speed_ratio": speed,
        "flop_ratio": flop_ratio,
        "share_of_flop_ratio": None if speed is None else speed / flop_ratio,
        "definition": DEFINITION.format(second=SECONDS[clock(device)]),
    }


def _rates(timings: dict[str, Timing], counts: dict[str, int]) -> dict[str, float | None]:
    """Of each way, what it gets done per second."""
    medians = {name: median(timing.seconds) for name, timing in timings.items()}
    return {name: None if seconds is None else counts[name] / seconds for name, seconds in medians.items()}


def _speed(timings: dict[str, Timing], slow: str, counts: dict[str, int]) -> float | None:
    """How many times as much the packed way gets done per second."""
    found = ratio(timings[slow].seconds, timings["packed"].seconds)
    return None if found is None else found * counts["packed"] / counts[slow]


def training(shapes: Shapes, device: torch.device, turns: int) -> dict[str, Any]:
    """MRM targets per second, forward and backward, of both orders at the paper's batch of 4 rows."""
    workload = shapes.labelling[0]
    guard, modules = _guard(workload, shapes, device), ("q_proj", "v_proj")
    model = MultifurcationRewardModel(guard, rank=4, alpha=4.0, modules=modules, bias="trained", seed=0).to(device)
    items = conversations(CONVERSATIONS, workload.shape.vocab_size)
    table = pd.DataFrame(
        {
            "input_ids": [np.array([*item.prompt_ids, *item.response_ids]) for item in items],
            "response_start": [PROMPT] * len(items),
            "rewards": [np.linspace(-1, 1, RESPONSE) for _ in items],
        }
    )

    def step(rows: list[Any]) -> None:
        batch = collate(rows).to(device)
        squared_error(model(batch), batch, len(batch.tokens)).backward()
        model.zero_grad()

    chat = formats(workload.prefix, workload.suffix)
    packed, paper = Targets(table, chat, "packed"), Targets(table, chat, "paper")
    functions = {
        "packed": lambda: step([packed.row(index) for index in range(CONVERSATIONS)]),
        "one_prefix_per_row": lambda: [
            step([paper.row(conversation * RESPONSE + int(position)) for conversation in range(CONVERSATIONS)])
            for position in SAMPLE
        ],
    }
    counts = {"packed": CONVERSATIONS * RESPONSE, "one_prefix_per_row": CONVERSATIONS * len(SAMPLE)}
    timings = paired(functions, turns, device=device)
    speed = _speed(timings, "one_prefix_per_row", counts)
    return {"targets_per_second": _rates(timings, counts), "speed_ratio": speed} | memory(timings)
