"""The text oracle: what an output really did, whatever a reward model thinks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal


def load(name: Literal["sandbox", "none"]) -> Callable[[str, str], bool] | None:
    """An oracle by name: (prompt, response with any prefilled start) -> whether the response complied with a harmful request.

    Raises:
        ValueError: if no oracle has that name.
    """
    if name == "none":
        return None
    if name == "sandbox":
        from saffron.sources.sandbox.oracle import complied

        return complied
    raise ValueError(f"search.oracle: no oracle {name!r}; there are sandbox and none")


def load_refusal(name: Literal["sandbox", "none"]) -> Callable[[str], bool] | None:
    """An oracle's verdict on answers to harmless prompts, by name: response -> whether it refuses or turns back.

    Raises:
        ValueError: if no oracle has that name.
    """
    if name == "none":
        return None
    if name == "sandbox":
        from saffron.sources.sandbox.oracle import refused_at

        return lambda response: refused_at(response) is not None
    raise ValueError(f"search.oracle: no oracle {name!r}; there are sandbox and none")
