"""The kinds of judge by name: modules of :mod:`saffron.judges` with a KIND, and entry points of installed distributions.

A distribution brings a kind of its own by an entry point of the group ``saffron.judges`` that names its description::

    [project.entry-points."saffron.judges"]
    my_kind = "my_package.my_kind:KIND"

A function needs no entry point: ``my_package.my_module:my_function``, given prompt and response, says whether the attack
succeeded.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from saffron import judges, plugins
from saffron.judges.base import Answer, JudgeError, Judgement, Kind, Models

GROUP = "saffron.judges"


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind that has a name.

    Raises:
        JudgeError: if two kinds have one name, or an entry point names no description.
    """
    # The stage runs kinds and is none; what it imports, a config that names a judge does not need.
    names = (module.name for module in pkgutil.iter_modules(judges.__path__) if module.name != "stage")
    modules = (importlib.import_module(f"{judges.__name__}.{name}") for name in names)
    found = {module.__name__.rpartition(".")[2]: module.KIND for module in modules if hasattr(module, "KIND")}
    found = plugins.described(found, GROUP, Kind, "kind of judge", JudgeError)
    return MappingProxyType(dict(sorted(found.items())))


@cache
def kind(name: str) -> Kind:
    """A kind by its name, or the one that a function of a module makes, as ``module:function``.

    Raises:
        JudgeError: for an unknown name, with the known ones, or a function that is not there.
    """
    if ":" in name:
        return _of_function(name)
    if name not in kinds():
        raise JudgeError(f"no kind of judge {name!r}; known: {', '.join(kinds())}, and module:function")
    return kinds()[name]


def module(name: str) -> str:
    """Dotted name of the module that holds a kind's function: its code is part of what a judgement depends on."""
    return name.partition(":")[0] if ":" in name else kind(name).judge.__module__


def _of_function(name: str) -> Kind:
    where, _, attribute = name.partition(":")
    try:
        function: Callable[[str, str], bool] = getattr(importlib.import_module(where), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise JudgeError(f"kind of judge {name}: not there ({error}); correct it, or install the module") from None
    except Exception as error:  # an import runs whatever the module holds
        raise JudgeError(f"kind of judge {name}: {where} cannot be loaded ({type(error).__name__}: {error}); mend it") from error
    if not callable(function):
        raise JudgeError(f"kind of judge {name}: a {type(function).__name__}, not a function of prompt and response")
    try:
        inspect.signature(function).bind("a prompt", "a response")
    except TypeError as error:
        raise JudgeError(f"kind of judge {name}: is called with prompt and response ({error}); take both") from None

    def judge(answers: Sequence[Answer], settings: Any, models: Models) -> list[Judgement]:
        return [Judgement(_success(name, function(answer.prompt, answer.response))) for answer in answers]

    return Kind(summary=(function.__doc__ or name).strip().splitlines()[0], judge=judge)


def _success(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise JudgeError(f"kind of judge {name}: gave {value!r}; it must say True (the attack succeeded) or False")
    return value
