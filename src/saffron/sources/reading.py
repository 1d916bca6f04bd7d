"""What a reader of rows is, and where readers are found: every file of :mod:`saffron.sources.readers`, and every entry point.

A reader turns one row of a file into a conversation, a prompt, or either. A distribution brings one of its own by an entry point
of the group ``saffron.readers`` that names its description::

    [project.entry-points."saffron.readers"]
    my_rows = "my_package.my_rows:READER"
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from saffron import plugins
from saffron.section import Section

GROUP = "saffron.readers"


class SourceError(ValueError):
    """A dataset or model that cannot be fetched or read, or is not what it should be; names the config key and the remedy."""


class Dropped(Exception):
    """A row that cannot be used; ``kind`` says why, in words that are counted and printed."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Row:
    """One row of a file; ``where`` names key, file and row for messages."""

    where: str
    value: Any

    def column(self, name: str) -> Any:
        """The value of a column.

        Raises:
            SourceError: if the row has no columns, or not this one.
        """
        if not isinstance(self.value, Mapping):
            raise SourceError(f"{self.where}: not an object with columns but a {type(self.value).__name__}; use another reader")
        if name not in self.value:
            raise SourceError(
                f"{self.where}: no column {name}, there are {', '.join(sorted(map(str, self.value)))}; name the right one in "
                "this source's settings, or use another reader"
            )
        return self.value[name]

    def text(self, value: Any, name: str) -> str:
        """A value as text, its line ends as ``\\n``.

        Args:
            value: of a column or a message.
            name: what it is, for messages.

        Raises:
            Dropped: if there is none, or it cannot be encoded.
            SourceError: if it is something else than text.
        """
        if value is None:
            raise Dropped(f"{name} is null")
        if not isinstance(value, str):
            raise SourceError(f"{self.where}: {name} should be text, found {type(value).__name__}; use another column or reader")
        if re.search(r"[\ud800-\udfff]", value):
            raise Dropped(f"{name} holds a lone surrogate, half a character")
        if not value.strip():
            raise Dropped(f"{name} is blank")
        return value.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class Conversation:
    """A conversation as one transcript (:mod:`saffron.sources.transcripts`), with its other ending where there are two."""

    chosen: str
    rejected: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A prompt, with the harmful answer whose first tokens an attack prefills, where there is one."""

    text: str
    reference: str | None = None


@dataclass(frozen=True)
class Reader:
    """The description of a reader.

    ``settings`` are its keys in a config; ``conversation`` and ``prompt`` turn one row and these settings into a record (None: it
    makes none of these). Either raises :class:`Dropped` for a row that cannot be used and :class:`SourceError` for a file of
    another shape.
    """

    summary: str
    settings: type[Section]
    conversation: Callable[[Row, Any], Conversation] | None = None
    prompt: Callable[[Row, Any], Prompt] | None = None


class ReaderError(ValueError):
    """A reader that is not there or describes none; names it and the remedy."""


@cache
def readers() -> Mapping[str, Reader]:
    """Every reader by name.

    Raises:
        ReaderError: if two readers have one name, or an entry point names no description.
    """
    from saffron.sources import readers as folder

    found = {
        module.name: importlib.import_module(f"{folder.__name__}.{module.name}").READER
        for module in pkgutil.iter_modules(folder.__path__)
    }
    found = plugins.described(found, GROUP, Reader, "reader", ReaderError)
    return MappingProxyType(dict(sorted(found.items())))


def modules(name: str) -> list[str]:
    """The modules that hold a reader's functions, which its results depend on."""
    functions = (readers()[name].conversation, readers()[name].prompt)
    return sorted({function.__module__ for function in functions if function is not None})
