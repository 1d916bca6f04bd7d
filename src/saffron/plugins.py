"""What an installed distribution brings: descriptions that entry points name, beside those in this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

Description = TypeVar("Description")


def points(group: str) -> list[EntryPoint]:
    """The entry points of a group, in an order that does not depend on the installation."""
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


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
        brought = getattr(point.dist, "name", None)
        remedy = f"mend it, or remove it: python -m pip uninstall {brought}" if brought else "mend or remove what brings it"
        raise error(
            f"{what} {point.name}: {point.value}{f' of the installed {brought}' if brought else ''} cannot be loaded "
            f"({type(failure).__name__}: {failure}); {remedy}"
        ) from failure


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
            raise error(f"{what} {point.name}: two of this name ({point.value} is one); rename its entry point")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", point.name):
            raise error(f"{what} {point.name!r} ({point.value}): a name has lower-case letters, digits and _ alone")
        description = load(point, what, error)
        if not isinstance(description, kind):
            raise error(f"{what} {point.name}: {point.value} is a {type(description).__name__}, not a {kind.__name__}")
        found[point.name] = description
    return found
