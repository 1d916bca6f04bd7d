"""Saffron Replication: a reproducible replication of "SAFFRON-1: Safety Inference Scaling" (arXiv 2506.06444).

Its Python interface, each part loaded when it is first asked for, since torch and transformers take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saffron.chat import ChatFormats
    from saffron.methods.generation import generate
    from saffron.methods.saffron.tokens import search_tokens
    from saffron.mrm.pretrained import MRM

__version__ = "0.1.0"
__all__ = ["MRM", "ChatFormats", "generate", "search_tokens"]

_MODULES = {
    "MRM": "saffron.mrm.pretrained",
    "ChatFormats": "saffron.chat",
    "generate": "saffron.methods.generation",
    "search_tokens": "saffron.methods.saffron.tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
