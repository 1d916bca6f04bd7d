"""What several sections of a config share: how compute is counted, and how a wrong value is told."""

from __future__ import annotations

import re
from typing import Any, Literal

#: How FLOPs are counted: each once, or once for each loaded model.
Convention = Literal["once", "per_model"]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the key and the remedy."""


def remedy(item: Any) -> str:
    """What to do about one problem that pydantic found (an item of ``ValidationError.errors()``)."""
    if item["type"] == "extra_forbidden":
        return "unknown key; remove it or correct its name (all keys: config/README.md)"
    if item["type"] == "missing":
        return "missing; add it (its meaning: config/README.md)"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{message}, got {item['input']!r}{_as_number(item)} (allowed values: config/README.md)"


#: A number in scientific notation, which YAML reads as text unless it has a point and a sign: 1.0e-3, 1.0e+3.
_SCIENTIFIC = re.compile(r"(?P<mantissa>[-+]?\d+)(?:\.(?P<fraction>\d*))?[eE](?P<sign>[-+]?)(?P<exponent>\d+)")


def _as_number(item: Any) -> str:
    """How to write a number that YAML took for text; empty where that is not what is wrong."""
    found = _SCIENTIFIC.fullmatch(str(item["input"])) if item["type"] in ("float_type", "int_type") else None
    if found is None:
        return ""
    if item["type"] == "int_type":
        return "; YAML reads this as text: write it out in digits"
    mantissa, fraction, sign, exponent = found.groups()
    return f"; YAML reads this as text: write {mantissa}.{fraction or 0}e{sign or '+'}{exponent}"
