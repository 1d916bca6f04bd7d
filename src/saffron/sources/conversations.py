"""From conversations in HH-RLHF's shape to the (prompt, response) pairs that are labelled.

A conversation is one string whose turns are headed ``\\n\\nHuman:`` and ``\\n\\nAssistant:``. A response is one assistant
turn; its prompt is everything said before it. The first turn's header is left out, later ones stay as text:

    "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: d"  ->  ("a", "b"), ("a\\n\\nAssistant: b\\n\\nHuman: c", "d")

so a single-turn prompt is the bare question, as in search, and the chat formats, which know one prompt and one response,
read a longer one as a question that quotes its history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from saffron.chat import ChatFormats
from saffron.sources.transcripts import split_turns

Turns = Literal["first", "last", "all"]
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Response:
    """One assistant turn with all that was said before it.

    ``turn`` counts the assistant turns of its conversation from 0; ``side`` is ``chosen`` or ``rejected``.
    """

    split: str
    source_row: int
    side: str
    turn: int
    prompt: str
    response: str

    @property
    def conversation_id(self) -> str:
        """Unique over all responses: split, row, side and turn."""
        return f"{self.split}-{self.source_row}-{self.side}-{self.turn}"


@dataclass(frozen=True)
class Counts:
    """Where every response went: ``turns`` = the six below it, of which ``kept`` go on to labelling."""

    rows: int  # source rows, two conversations each
    conversations_without_response: int  # no assistant turn at all
    turns: int  # assistant turns in all conversations
    not_selected: int  # left out by safety4m.turns
    without_prompt: int  # nothing was said before
    empty: int  # no text
    duplicates: int  # same prompt and response as an earlier one
    kept: int


def pairs(conversation: str) -> list[tuple[str, str]]:
    """(prompt, response) of every assistant turn, in order; either may be empty."""
    turns = split_turns(conversation)
    found = []
    history = ""
    for index, (role, text) in enumerate(turns):
        if role == "Assistant":
            found.append((history, text))
        history = text if index == 0 else f"{history}\n\n{role}: {text}"
    return found


def select(found: list[tuple[str, str]], turns: Turns) -> list[int]:
    """Indices of the assistant turns that ``safety4m.turns`` asks for."""
    indices = list(range(len(found)))
    return {"first": indices[:1], "last": indices[-1:], "all": indices}[turns]


def collect(conversations: pd.DataFrame, turns: Turns) -> tuple[list[Response], Counts]:
    """All responses to label, each (prompt, response) once, and where the others went.

    Of two equal pairs the first is kept, and the train split comes first: a pair of the test split that also stands in
    the train split is dropped from the test split, so that held-out really means unseen.

    Args:
        conversations: a records.CONVERSATIONS table.
        turns: which assistant turns are responses.
    """
    kept: list[Response] = []
    seen: set[bytes] = set()
    rows = without_response = total = not_selected = without_prompt = empty = duplicates = 0
    for split, source_row, side, conversation in _conversations(conversations):
        rows += side == SIDES[0]
        found = pairs(conversation)
        chosen = select(found, turns)
        without_response += not found
        total += len(found)
        not_selected += len(found) - len(chosen)
        for turn in chosen:
            prompt, response = found[turn]
            digest = hashlib.blake2b(f"{prompt}\0{response}".encode(), digest_size=16).digest()
            if not prompt:
                without_prompt += 1
            elif not response:
                empty += 1
            elif digest in seen:
                duplicates += 1
            else:
                seen.add(digest)
                kept.append(Response(split, source_row, side, turn, prompt, response))
    return kept, Counts(rows, without_response, total, not_selected, without_prompt, empty, duplicates, len(kept))


def _conversations(table: pd.DataFrame) -> Iterable[tuple[str, int, str, str]]:
    ordered = table.assign(_held_out=table["split"] != "train").sort_values(["_held_out", "split", "source_row"], kind="stable")
    columns = (ordered[name].tolist() for name in ("split", "source_row", *SIDES))
    for split, source_row, *sides in zip(*columns, strict=True):
        for side, conversation in zip(SIDES, sides, strict=True):
            if isinstance(conversation, str):  # a conversation with one ending has no other
                yield split, int(source_row), side, conversation


@dataclass(frozen=True)
class TokenisedResponse:
    """A response cut to the window: prompt and response token ids, no template."""

    prompt_ids: list[int]
    response_ids: list[int]


def tokenise(
    tokenizer: Any, formats: ChatFormats, responses: Sequence[Response], max_tokens: int, eos_id: int | None = None
) -> list[TokenisedResponse]:
    """Prompt and response as token ids, prompt + response cut to the first ``max_tokens``.

    They are encoded apart, because the chat formats join them as ids. ``response_ids`` is empty where the prompt alone
    fills the window, and ends with ``eos_id`` (unless that is None) where the whole response and EOS fit into it.
    """
    prompts = formats.encode(tokenizer, [response.prompt for response in responses])
    answers = formats.encode(tokenizer, [response.response for response in responses])
    end = [] if eos_id is None else [eos_id]
    return [
        TokenisedResponse(prompt[:max_tokens], [*answer, *end][: max(0, max_tokens - len(prompt))])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
