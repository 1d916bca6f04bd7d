"""Every figure and table by name: the modules of :mod:`saffron.figures.exhibits`, and entry points of installed packages.

A module says ``EXHIBIT = Exhibit(...)`` and is named as its files are; or it has a function ``exhibits`` that gives those of
a config by name, where there is one for each of something (ablations, experiments). A distribution brings its own by an entry
point of the group ``saffron.figures`` that names either::

    [project.entry-points."saffron.figures"]
    my_figure = "my_package.my_figure:EXHIBIT"
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from saffron import plugins
from saffron.config import Config, Group
from saffron.figures import exhibits as folder
from saffron.figures.base import NAME, Exhibit, FigureError

GROUP = "saffron.figures"
Family = Callable[[Config], Mapping[str, Exhibit]]


@cache
def _described() -> tuple[tuple[str, str, Exhibit | Family], ...]:
    """Name, module and description of every exhibit or family of them."""
    found: list[tuple[str, str, Exhibit | Family]] = []
    for item in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{folder.__name__}.{item.name}")
        description = getattr(module, "EXHIBIT", None) or getattr(module, "exhibits", None)
        if description is None:
            raise FigureError(f"{module.__name__}: neither EXHIBIT nor exhibits; describe the figure or move the file")
        found.append((item.name, module.__name__, description))
    for point in plugins.points(GROUP):
        description = plugins.load(point, "figure", FigureError)
        if not isinstance(description, Exhibit) and not callable(description):
            raise FigureError(f"figure {point.name}: {point.value} is a {type(description).__name__}, not an Exhibit")
        found.append((point.name, point.module, description))
    return tuple(found)


def _all(config: Config) -> Iterator[Exhibit]:
    for name, module, description in _described():
        members = {name: description} if isinstance(description, Exhibit) else _members(name, module, description, config)
        for own, exhibit in members.items():
            yield replace(exhibit, name=own, module=module)


def _members(name: str, module: str, family: Family, config: Config) -> Mapping[str, Exhibit]:
    """What a function makes of a config; one of a package of the user's may fail, or make something else."""
    try:
        members = family(config)
    except Exception as error:
        raise FigureError(f"figures {name} ({module}): {type(error).__name__}: {error}; mend its function of a config") from error
    if not isinstance(members, Mapping) or not all(isinstance(member, Exhibit) for member in members.values()):
        raise FigureError(f"figures {name} ({module}): its function must give exhibits by name, not {members!r}")
    return members


def exhibits(config: Config, group: Group | None = None) -> dict[str, Exhibit]:
    """The figures and tables of a config by name, those it has what they need for.

    Args:
        config: any.
        group: those of one group of experiments (None: all).

    Raises:
        FigureError: if two have one name, a name is no name of a file, or a family's function gives something else.
    """
    found: dict[str, Exhibit] = {}
    for exhibit in _all(config):
        if exhibit.name in found:
            raise FigureError(f"two figures or tables are called {exhibit.name} (one in {exhibit.module}); rename one")
        if not NAME.fullmatch(exhibit.name):
            raise FigureError(f"figure {exhibit.name!r} ({exhibit.module}): a name has letters, digits, _ and . alone")
        if exhibit.given(config):
            found[exhibit.name] = exhibit
    return {name: exhibit for name, exhibit in found.items() if group in (None, exhibit.group)}


def pages(config: Config, group: Group | None = None) -> dict[str, list[Exhibit]]:
    """What each notebook makes, in order, by name of the page.

    Raises:
        FigureError: see :func:`exhibits`; or if the exhibits of a page are made by different notebooks or for different groups.
    """
    found: dict[str, list[Exhibit]] = {}
    for exhibit in exhibits(config, group).values():
        found.setdefault(exhibit.made_by, []).append(exhibit)
    for name, members in found.items():
        if len({(exhibit.notebook, exhibit.group) for exhibit in members}) > 1:
            names = ", ".join(exhibit.name for exhibit in members)
            raise FigureError(f"page {name}: {names} are not all of one notebook and one group; give one of them its own page")
        members.sort(key=lambda exhibit: (exhibit.name != name, exhibit.order, exhibit.name))
    return dict(sorted(found.items()))


def page_of(config: Config, name: str) -> str:
    """Name of the page whose notebook makes a figure or table, which may be its own.

    Raises:
        FigureError: if the config has no page, figure or table of this name; names those it has.
    """
    known = {exhibit.name: exhibit.made_by for exhibit in exhibits(config).values()}
    known |= {page: page for page in pages(config)}
    if name not in known:
        raise FigureError(f"config {config.name}: no figure or table {name}; there are {', '.join(sorted(known))}")
    return known[name]


def page(config: Config, name: str) -> list[Exhibit]:
    """The exhibits of one page, in order.

    Raises:
        FigureError: if the config has no such page; names those it has.
    """
    known = pages(config)
    if name not in known:
        raise FigureError(f"config {config.name}: no page {name} of figures and tables; there are {', '.join(known)}")
    return known[name]


def singles() -> dict[str, Exhibit]:
    """Figures and tables that no config multiplies, by name."""
    return {
        name: replace(description, name=name, module=module)
        for name, module, description in _described()
        if isinstance(description, Exhibit)
    }


def modules() -> tuple[str, ...]:
    """Modules whose code the report runs."""
    return tuple(sorted({module for _, module, _ in _described()}))
