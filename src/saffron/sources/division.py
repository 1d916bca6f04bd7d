"""Dividing one source by question, by a stated rule, so that no prompt of a benchmark is trained on.

Different questions (the last human turn of a row, case and space aside) stand in the order of sha256(seed, question), which no
order of rows changes. The parts take the first questions, part by part, of rows that make a prompt with an answer. Every other
row is a conversation: of the test split where its question is among the last share of the others', of the train split elsewhere;
one that holds a question of a part in any of its turns is left out of both.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from saffron.sources import transcripts
from saffron.sources.reading import Conversation, Prompt, SourceError


@dataclass(frozen=True)
class Read:
    """One row that could be used: as a conversation, and as a prompt where it is one."""

    split: str
    subset: str
    source_row: int
    conversation: Conversation
    prompt: Prompt | None


@dataclass
class Divided:
    """Where every row went: ``prompts`` by part, ``conversations`` with their split, ``left_out`` by reason."""

    prompts: dict[str, list[Prompt]] = field(default_factory=dict)
    conversations: list[tuple[str, Read]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def question(row: Read) -> str:
    """What a row is divided by."""
    asked = transcripts.questions(row.conversation.chosen)
    return normal(asked[-1] if asked else "")


def normal(text: str) -> str:
    """A question with case and space aside."""
    return " ".join(text.casefold().split())


def place(seed: int, text: str) -> str:
    """Where a question stands among all."""
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()


def divide(rows: Sequence[Read], parts: Mapping[str, int], test: float | None, seed: int, key: str) -> Divided:
    """Divide rows by their questions (see the module).

    Args:
        rows: in source order.
        parts: number of prompts of each part.
        test: share of the questions left over that are the test split; None: as files are named.
        seed: of the order.
        key: where the source stands in the config, for messages.

    Raises:
        SourceError: if there are fewer prompts than the parts take.
    """
    found = Divided({name: [] for name in parts})
    ordered = sorted({question(row) for row in rows}, key=lambda text: place(seed, text))
    eligible = {question(row) for row in rows if row.prompt is not None and row.prompt.reference is not None}
    candidates = [text for text in ordered if text in eligible]
    if sum(parts.values()) > len(candidates):
        raise SourceError(
            f"{key}.parts: {sum(parts.values())} prompts asked for, but there are {len(candidates)} different questions with one "
            "answer; ask for fewer"
        )
    taken: dict[str, str] = {}
    for name, count in parts.items():
        start = len(taken)
        taken |= dict.fromkeys(candidates[start : start + count], name)
    rest = [text for text in ordered if text not in taken]
    held_out = set(rest[len(rest) - round((test or 0) * len(rest)) :])
    used: set[str] = set()
    for row in rows:
        text = question(row)
        part = taken.get(text)
        if part is not None:
            if text not in used and row.prompt is not None and row.prompt.reference is not None:
                used.add(text)
                found.prompts[part].append(row.prompt)
            else:
                found.left_out[f"another row with a question of {part}"] += 1
            continue
        inside = {taken.get(normal(turn)) for turn in _all_questions(row.conversation)} - {None}
        if inside:
            found.left_out[f"holds a question of {sorted(map(str, inside))[0]}"] += 1
            continue
        split = row.split if test is None else "test" if text in held_out else "train"
        found.conversations.append((split, row))
    return found


def _all_questions(conversation: Conversation) -> list[str]:
    asked = transcripts.questions(conversation.chosen)
    return asked + (transcripts.questions(conversation.rejected) if conversation.rejected is not None else [])
