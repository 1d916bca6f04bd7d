"""The search methods by name. A new one is a module here that holds a function of its name, and one line below."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from saffron.methods.base import Method


@dataclass(frozen=True)
class Entry:
    """What is known of a method without loading it.

    Attributes:
        budget: meaning of the budget.
        shared: whether smaller budgets are part of the largest, so that all of them are run in one call.
    """

    budget: str
    shared: bool = False


METHODS: dict[str, Entry] = {
    "no_defense": Entry("always 0: one sample"),
    "best_of_n": Entry("samples", shared=True),
    "beam_search": Entry("beam width"),
    "rebase": Entry("samples"),
    "deal": Entry("beam width"),
    "saffron": Entry("beam width"),
}


def method(name: str) -> Method:
    """The function of a method, ``saffron.methods.<name>.search.<name>``.

    Raises:
        KeyError: for an unknown name, with the known ones.
    """
    if name not in METHODS:
        raise KeyError(f"no search method {name!r}; known: {', '.join(METHODS)}")
    return cast("Method", getattr(importlib.import_module(f"saffron.methods.{name}.search"), name))
