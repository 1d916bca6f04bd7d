"""A conversation as one string in HH-RLHF's form: turns headed ``\\n\\nHuman:`` and ``\\n\\nAssistant:``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from saffron.sources.reading import Dropped, Row, SourceError

_HEADER = re.compile(r"\n\n(Human|Assistant):")
_FIRST = re.compile(r"\s*(Human|Assistant):")
_ROLES = {"user": "Human", "human": "Human", "assistant": "Assistant", "gpt": "Assistant"}


def split_turns(conversation: str) -> list[tuple[str, str]]:
    """The (role, text) turns of a conversation, texts stripped; text before the first header belongs to no turn.

    Roles are ``Human`` and ``Assistant``. A header inside a line is text.
    """
    parts = _HEADER.split(conversation)
    return [(role, text.strip()) for role, text in zip(parts[1::2], parts[2::2], strict=True)]


def is_transcript(text: str) -> bool:
    """Whether a text begins with a turn's header, its leading blank lines stripped or not."""
    return _FIRST.match(text) is not None


def completed(text: str) -> str:
    """A transcript with the blank lines before its first header, which reformatted sets often lack."""
    return "\n\n" + text.lstrip() if is_transcript(text) else text


def require_answer(*endings: str) -> None:
    """Refuse a conversation none of whose endings has anything to label.

    Raises:
        Dropped: if in none an assistant turn with text follows a human one.
    """
    found = [split_turns(ending) for ending in endings]
    if not any(map(_is_answered, found)):
        raise Dropped("no answer: no turn headed Assistant: after one headed Human:" if any(found) else "no turn headed Human:")


def _is_answered(turns: Sequence[tuple[str, str]]) -> bool:
    asked = False
    for role, text in turns:
        if role == "Assistant" and asked and text:
            return True
        asked = asked or (role == "Human" and bool(text))
    return False


def questions(transcript: str) -> list[str]:
    """What the human said, turn by turn."""
    return [text for role, text in split_turns(transcript) if role == "Human"]


def exchange(transcript: str) -> tuple[str, str]:
    """The question and the answer of a single-turn conversation.

    Raises:
        Dropped: if it has more turns or fewer, or either is blank.
    """
    turns = split_turns(transcript)
    if [role for role, _ in turns] != ["Human", "Assistant"]:
        raise Dropped("not one question with one answer")
    if not (turns[0][1] and turns[1][1]):
        raise Dropped("a blank question or answer")
    return turns[0][1], turns[1][1]


def messages(row: Row, value: Any, name: str) -> list[tuple[str, str]]:
    """A chat's messages as (role, text), roles ``Human`` and ``Assistant``.

    Args:
        row: for messages.
        value: a list of ``{"role": ..., "content": ...}``.
        name: what it is, for messages.

    Raises:
        Dropped: if it is null, has another role, or a text that cannot be used.
        SourceError: if it is no such list.
    """
    if value is None:
        raise Dropped(f"{name} is null")
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, Mapping) for item in value):
        raise SourceError(f'{row.where}: {name} should be a list of {{"role": …, "content": …}}; use another column or reader')
    found = []
    for message in value:
        if not message.keys() >= {"role", "content"}:
            raise SourceError(f"{row.where}: a message of {name} has no role or no content; use another column or reader")
        role = _ROLES.get(str(message["role"]).lower())
        if role is None:
            raise Dropped(f"a message of the role {message['role']}, neither user nor assistant")
        found.append((role, row.text(message["content"], "a message")))
    return found


def joined(turns: Sequence[tuple[str, str]]) -> str:
    """Turns as one transcript.

    Raises:
        Dropped: if a text holds a header, which would be read as a turn.
    """
    if any(_HEADER.search(f"\n\n{text.lstrip()}") or _HEADER.search(text) for _, text in turns):
        raise Dropped("a text that holds a turn's header")
    return "".join(f"\n\n{role}: {text}" for role, text in turns)
