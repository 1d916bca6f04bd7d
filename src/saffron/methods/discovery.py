"""The search methods by name: every folder of :mod:`saffron.methods`, and every entry point of an installed distribution.

A distribution brings a method of its own by an entry point of the group ``saffron.methods`` that names its description::

    [project.entry-points."saffron.methods"]
    my_method = "my_package.my_method:METHOD"
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from saffron import code, plugins
from saffron import methods as folders
from saffron.methods.base import Block, Method, MethodError, Result

GROUP = "saffron.methods"


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name, in the order of tables and legends.

    Raises:
        MethodError: if two methods have one name, or an entry point names no description.
    """
    found = {
        module.name: importlib.import_module(f"{folders.__name__}.{module.name}").METHOD
        for module in pkgutil.iter_modules(folders.__path__)
        if module.ispkg
    }
    found = plugins.described(found, GROUP, Method, "search method", MethodError)
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: (item[1].order, item[0]))))


def method(name: str) -> Method:
    """The description of a method.

    Raises:
        MethodError: for an unknown name, with the known ones.
    """
    if name not in methods():
        raise MethodError(f"no search method {name!r}; known: {', '.join(methods())}")
    return methods()[name]


def ordered(names: Iterable[str]) -> list[str]:
    """Methods in the order of every table and legend."""
    present = set(names)
    return [name for name in methods() if name in present]


def require_search(name: str) -> None:
    """Refuse a method whose search is not there, without loading torch: by the text of its module.

    Raises:
        MethodError: for an unknown name, a module that is not there or cannot be parsed, or one without such a function.
    """
    wanted = method(name).search
    module, _, attribute = wanted.partition(":")
    try:
        names = code.names(module)
    except code.CodeError as error:
        raise MethodError(f"search method {name}: {wanted} is not there ({error}); correct its METHOD.search") from None
    if attribute not in names:
        raise MethodError(f"search method {name}: {wanted} is not there ({module} has no {attribute}); correct its METHOD.search")


def search(name: str) -> Callable[[Block, Any, Sequence[int]], list[Result]]:
    """The search of a method over all budgets of a run: results by budget in the order given, prompts in order within each.

    Raises:
        MethodError: for an unknown name, or a description whose function is not there.
    """
    described = method(name)
    module, _, attribute = described.search.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise MethodError(f"search method {name}: {described.search} is not there ({error}); correct its METHOD.search") from None
    except ImportError as error:
        lost = error.name is not None and module.startswith(error.name)
        remedy = "correct its METHOD.search" if lost else f"install or mend what {module} imports"
        raise MethodError(f"search method {name}: {described.search} is not there ({error}); {remedy}") from None
    if described.shared_budgets:
        return function
    return lambda block, settings, budgets: [result for budget in budgets for result in function(block, settings, budget)]
