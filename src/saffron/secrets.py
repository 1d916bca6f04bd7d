"""Tokens and passwords are taken out of whatever a command prints, whoever prints it."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

HIDDEN = "***"
#: Environment variables that hold a secret; what they hold is hidden wherever it stands.
_NAMED = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL)S?$", re.IGNORECASE)
#: A user's name and password in a URL, a bearer token, a token of the hub.
_SHAPED = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), HIDDEN),
    (re.compile(r"(?i)(bearer\s+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),
)
_SHORTEST = 6  # shorter values are words that would be hidden by chance


def hidden(text: str) -> str:
    """The text without secrets, and without control characters that a terminal would obey."""
    values = {value.strip() for name, value in os.environ.items() if _NAMED.search(name) and len(value.strip()) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for pattern, shown in _SHAPED:
        text = pattern.sub(shown, text)
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def hide_in_logs() -> None:
    """Every message that a library of this process logs from now on goes through :func:`hidden`."""
    make = logging.getLogRecordFactory()

    def made(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a message that does not fit its arguments is logging's to report
            return record
        record.msg, record.args = hidden(message), ()
        return record

    logging.setLogRecordFactory(made)
