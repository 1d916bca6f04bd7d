"""What an installed distribution brings: descriptions that entry points name, beside those in this package."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from pathlib import Path
from typing import Any, TypeVar

Description = TypeVar("Description")

#: Groups of entry points by which a distribution brings something.
GROUPS = ("saffron.methods", "saffron.judges", "saffron.readers", "saffron.figures")


def points(group: str) -> list[EntryPoint]:
    """The entry points of a group, in an order that does not depend on the installation."""
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


def of(point: EntryPoint) -> str:
    """What an entry point names, and the distribution that brings it."""
    brought = _distribution(point)
    return f"{point.value} of the installed {brought}" if brought else point.value


def _distribution(point: EntryPoint) -> str | None:
    return getattr(point.dist, "name", None)


def load(point: EntryPoint, what: str, error: type[ValueError]) -> Any:
    """What an entry point names.

    Args:
        point: the entry point.
        what: it describes, for messages.
        error: what is raised.

    Raises:
        ValueError: of the class ``error``, if its module cannot be imported or holds nothing of the name; names the distribution.
    """
    try:
        return point.load()
    except Exception as failure:  # an import runs whatever the module holds
        brought = _distribution(point)
        remedy = f"mend it, or remove it: python -m pip uninstall {brought}" if brought else "mend or remove what brings it"
        raise error(
            f"{what} {point.name}: {of(point)} cannot be loaded ({type(failure).__name__}: {failure}); {remedy}"
        ) from failure


def beside(tops: Iterable[str]) -> set[str]:
    """Top-level modules of the user's that come with some: those of the same distributions, and those of no distribution at all.

    A module of no distribution lies in a folder that Python searches, and what it imports lies beside it.
    """
    if not tops:
        return set()
    brought = packages_distributions()
    own = {name for top in tops for name in brought.get(top, ())}
    found = {top for top, names in brought.items() if own & set(names)}
    for top in tops:
        spec = importlib.util.find_spec(top) if top not in brought else None
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            found |= {path.stem for path in folder.glob("*.py") if path.stem not in brought} | {
                path.parent.name for path in folder.glob("*/__init__.py") if path.parent.name not in brought
            }
    return found


def outside(error: BaseException) -> str | None:
    """Where an error arose in code of the user's, file and line; None if that was not on its way.

    Such code is what a distribution brings by an entry point, and any module that no installed distribution brings.
    """
    brought = {point.module.partition(".")[0] for group in GROUPS for point in points(group)}
    others = packages_distributions().keys() | sys.stdlib_module_names | {"saffron", "__main__"}
    found, frame = None, error.__traceback__
    while frame is not None:
        name = str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name in brought - {"saffron"} or (name and name not in others):
            found = f"{frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno}"
        frame = frame.tb_next
    return found


def described(
    own: Mapping[str, Description], group: str, kind: type[Description], what: str, error: type[ValueError]
) -> dict[str, Description]:
    """This package's descriptions and those that entry points name, by name.

    Args:
        own: this package's.
        group: of the entry points.
        kind: what a description is an instance of.
        what: it describes, for messages.
        error: what is raised.

    Raises:
        ValueError: of the class ``error``, if two have one name, a name is none of a key in a config, or an entry point cannot be
            loaded or names something else.
    """
    found = dict(own)
    for point in points(group):
        if point.name in found:
            others = [other for other in points(group) if other.name == point.name and other != point]
            one = of(others[0]) if others else "the one of this package"
            raise error(f"{what} {point.name}: two of this name, {of(point)} and {one}; rename an entry point, or uninstall one")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", point.name):
            raise error(f"{what} {point.name!r} ({point.value}): a name has lower-case letters, digits and _ alone")
        description = load(point, what, error)
        if not isinstance(description, kind):
            raise error(f"{what} {point.name}: {point.value} is a {type(description).__name__}, not a {kind.__name__}")
        found[point.name] = description
    return found
