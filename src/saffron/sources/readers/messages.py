"""Chat messages: each row a list of ``{"role": ..., "content": ...}``, or an object with such a list in a column."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from saffron.section import Section
from saffron.sources import transcripts
from saffron.sources.reading import Conversation, Dropped, Prompt, Reader, Row


class Settings(Section):
    """Where the list stands."""

    column: str = Field("messages", description="column of the list, where a row is not the list itself")


def conversation(row: Row, settings: Settings) -> Conversation:
    """The chat as one transcript; it has one ending."""
    whole = transcripts.joined(_turns(row, settings))
    transcripts.require_answer(whole)
    return Conversation(whole)


def prompt(row: Row, settings: Settings) -> Prompt:
    """The user's only message, and the assistant's answer as reference, where there is one."""
    turns = _turns(row, settings)
    if [role for role, _ in turns] == ["Human"]:
        return Prompt(turns[0][1])
    if [role for role, _ in turns] != ["Human", "Assistant"]:
        raise Dropped("not one question with at most one answer")
    return Prompt(turns[0][1], turns[1][1])


def _turns(row: Row, settings: Settings) -> list[tuple[str, str]]:
    listed = row.column(settings.column) if isinstance(row.value, Mapping) else row.value
    return transcripts.messages(row, listed, settings.column if isinstance(row.value, Mapping) else "the row")


READER = Reader("lists of chat messages", Settings, conversation=conversation, prompt=prompt)
