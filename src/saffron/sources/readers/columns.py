"""Named columns: a prompt and, where there is one, its answer."""

from __future__ import annotations

from pydantic import Field

from saffron.section import Section
from saffron.sources import transcripts
from saffron.sources.reading import Conversation, Prompt, Reader, Row, SourceError


class Settings(Section):
    """Names of the columns."""

    prompt: str = Field("prompt", description="column of the prompt")
    reference: str | None = Field("reference", description="column of the answer (null: there is none)")


def conversation(row: Row, settings: Settings) -> Conversation:
    """Prompt and answer as a conversation of one turn; it has one ending."""
    if settings.reference is None:
        raise SourceError(f"{row.where}: conversations need answers; name their column in settings.reference")
    question = row.text(row.column(settings.prompt), settings.prompt)
    answer = row.text(row.column(settings.reference), settings.reference)
    return Conversation(transcripts.joined([("Human", question.strip()), ("Assistant", answer.strip())]))


def prompt(row: Row, settings: Settings) -> Prompt:
    """Prompt and reference; a blank or null reference is none, which an attack refuses."""
    text = row.text(row.column(settings.prompt), settings.prompt)
    if settings.reference is None:
        return Prompt(text)
    reference = row.column(settings.reference)
    missing = reference is None or (isinstance(reference, str) and not reference.strip())
    return Prompt(text, None if missing else row.text(reference, settings.reference))


READER = Reader("a column of prompts, and one of answers", Settings, conversation=conversation, prompt=prompt)
