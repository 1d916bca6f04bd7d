"""Safety4M labels per second against one forward per prefix; MRM targets per second against one prefix per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import paired, ratio
from benchmarks.shapes import VOCABULARY, llama
from saffron.chat import ChatFormat, ChatFormats
from saffron.mrm.model import MultifurcationRewardModel, squared_error
from saffron.mrm.targets import Targets, collate
from saffron.safety4m.verdicts import TokenisedResponse, verdicts


@dataclass(frozen=True)
class Workload:
    """A guard, and the lengths of its chat format.

    Attributes:
        name: what the table calls it.
        sizes: of the guard, see :func:`benchmarks.shapes.llama`.
        prefix: tokens before the conversation.
        suffix: tokens that ask for the verdict.
        conversations: labelled in one batch.
    """

    name: str
    sizes: dict[str, int]
    prefix: int
    suffix: int
    conversations: int


TEN_MILLION = {"hidden": 256, "layers": 7, "heads": 4, "kv_heads": 2, "intermediate": 768, "seed": 1}
SANDBOX = {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 192, "seed": 1, "vocabulary": 1280}
#: The released guard's format on a guard of the MRM's size, and guard, format and batch of the sandbox.
WORKLOADS = (Workload("10 M parameters", TEN_MILLION, 138, 56, 4), Workload("the sandbox's guard", SANDBOX, 16, 28, 16))
INFIX, MRM_PREFIX = 3, 4
#: Of a conversation cut to 128 tokens.
PROMPT, RESPONSE = 40, 88
#: Rows of the paper's training batch.
CONVERSATIONS = 4
#: What ``share_of_flop_ratio`` is.
DEFINITION = (
    "labels per CPU second of the packed pass over those of one forward per prefix, divided by FLOPs per label of one forward "
    "per prefix over those of the packed pass; both on the same conversations, FLOPs counted by FlopCounterMode on what runs"
)
#: Prefixes of each conversation that the slow ways are timed on, evenly spaced.
SAMPLE = np.arange(3, RESPONSE, 8)


def formats(workload: Workload) -> ChatFormats:
    """Formats of the workload's lengths, of arbitrary ids."""
    plain = ChatFormat((3,), (4,), ())
    guard_format = ChatFormat(tuple(range(3, 3 + workload.prefix)), (5,) * INFIX, tuple(range(9, 9 + workload.suffix)))
    mrm_format = ChatFormat((6,) * MRM_PREFIX, (5,) * INFIX, ())
    return ChatFormats(policy=plain, guard=guard_format, mrm=mrm_format, safe_id=7, unsafe_id=8, eos_id=2)


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
        model(torch.tensor(rendered), use_cache=False, logits_to_keep=1)


def labelling(turns: int) -> list[dict[str, Any]]:
    """Labels per second of the packed pass and of one forward per prefix, and their FLOP ratio, per workload."""
    return [_labelling(workload, turns) for workload in WORKLOADS]


def _labelling(workload: Workload, turns: int) -> dict[str, Any]:
    model, chat = llama(**workload.sizes), formats(workload)
    items = conversations(workload.conversations, model.config.vocab_size)
    functions = {
        "packed": lambda: verdicts(model, chat, items, batch_size=workload.conversations)[0],
        "one_forward_per_prefix": lambda: labels_one_by_one(model, chat, items),
    }
    timings = paired(functions, turns)
    counts = {"packed": workload.conversations * RESPONSE, "one_forward_per_prefix": workload.conversations * len(SAMPLE)}
    model.set_attn_implementation("eager")
    flops = {}
    for name, function in functions.items():
        with FlopCounterMode(display=False) as counter:
            function()
        flops[name] = counter.get_total_flops() / counts[name]
    speed = ratio(timings["one_forward_per_prefix"].cpu, timings["packed"].cpu) * counts["packed"]
    speed /= counts["one_forward_per_prefix"]
    flop_ratio = flops["one_forward_per_prefix"] / flops["packed"]
    return {
        "guard": workload.name,
        "labels_per_second": {name: counts[name] / float(np.median(timing.cpu)) for name, timing in timings.items()},
        "flops_per_label": flops,
        "speed_ratio": speed,
        "flop_ratio": flop_ratio,
        "share_of_flop_ratio": speed / flop_ratio,
        "definition": DEFINITION,
    }


def training(turns: int) -> dict[str, Any]:
    """MRM targets per second, forward and backward, of both orders at the paper's batch of 4 rows."""
    workload = WORKLOADS[0]
    model = MultifurcationRewardModel(llama(**workload.sizes), rank=4, alpha=4.0, bias="trained", seed=0)
    items = conversations(CONVERSATIONS, VOCABULARY)
    table = pd.DataFrame(
        {
            "input_ids": [np.array([*item.prompt_ids, *item.response_ids]) for item in items],
            "response_start": [PROMPT] * len(items),
            "rewards": [np.linspace(-1, 1, RESPONSE) for _ in items],
        }
    )

    def step(rows: list[Any]) -> None:
        batch = collate(rows)
        squared_error(model(batch), batch, len(batch.tokens)).backward()
        model.zero_grad()

    chat = formats(workload)
    packed, paper = Targets(table, chat, "packed"), Targets(table, chat, "paper")
    functions = {
        "packed": lambda: step([packed.row(index) for index in range(CONVERSATIONS)]),
        "one_prefix_per_row": lambda: [
            step([paper.row(conversation * RESPONSE + int(position)) for conversation in range(CONVERSATIONS)])
            for position in SAMPLE
        ],
    }
    counts = {"packed": CONVERSATIONS * RESPONSE, "one_prefix_per_row": CONVERSATIONS * len(SAMPLE)}
    timings = paired(functions, turns)
    speed = ratio(timings["one_prefix_per_row"].cpu, timings["packed"].cpu) * counts["packed"] / counts["one_prefix_per_row"]
    return {
        "targets_per_second": {name: counts[name] / float(np.median(timing.cpu)) for name, timing in timings.items()},
        "speed_ratio": speed,
    }
