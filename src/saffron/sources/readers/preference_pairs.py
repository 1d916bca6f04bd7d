"""Preference pairs: a conversation with two endings, as HH-RLHF has them and as reformatted sets write them.

Columns are whole transcripts (``chosen``, ``rejected``); or a ``prompt``, plain or a transcript, with two answers; or lists of
messages, whole conversations or the answers alone.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from saffron.section import Section
from saffron.sources import transcripts
from saffron.sources.reading import Conversation, Dropped, Prompt, Reader, Row


class Settings(Section):
    """Names of the columns."""

    prompt: str = Field("prompt", description="column of the prompt, where the endings do not hold it")
    chosen: str = Field("chosen", description="column of the chosen ending")
    rejected: str = Field("rejected", description="column of the rejected ending")
    reference: Literal["chosen", "rejected"] = Field("rejected", description="which ending is a prompt's reference answer")


def conversation(row: Row, settings: Settings) -> Conversation:
    """Both endings as whole transcripts."""
    chosen, rejected = (_whole(row, settings, side) for side in (settings.chosen, settings.rejected))
    transcripts.require_answer(chosen, rejected)
    return Conversation(chosen, rejected)


def prompt(row: Row, settings: Settings) -> Prompt:
    """The human's only turn, and the answer of one of the endings."""
    return Prompt(*transcripts.exchange(_whole(row, settings, getattr(settings, settings.reference))))


def _whole(row: Row, settings: Settings, side: str) -> str:
    ending = row.column(side)
    if ending is None or isinstance(ending, str):
        text = row.text(ending, side)
        if transcripts.is_transcript(text):
            return transcripts.completed(text)
        return _asked(row, settings) + transcripts.joined([("Assistant", text.strip())])
    turns = transcripts.messages(row, ending, side)
    if turns and turns[0][0] == "Human":
        return transcripts.joined(turns)
    return _asked(row, settings) + transcripts.joined(turns)


def _asked(row: Row, settings: Settings) -> str:
    """What stands before both endings, up to and with the last thing the human said."""
    value: Any = row.column(settings.prompt)
    if value is not None and not isinstance(value, str):
        return transcripts.joined(transcripts.messages(row, value, settings.prompt))
    text = row.text(value, settings.prompt)
    if not transcripts.is_transcript(text):
        return transcripts.joined([("Human", text.strip())])
    turns = transcripts.split_turns(transcripts.completed(text))
    if turns[-1] == ("Assistant", ""):  # the header that the answer goes under
        turns = turns[:-1]
    if not turns or turns[-1][0] != "Human":
        raise Dropped("a prompt that does not end with the human's turn")
    return transcripts.joined(turns)


READER = Reader("conversations with a chosen and a rejected ending", Settings, conversation=conversation, prompt=prompt)
