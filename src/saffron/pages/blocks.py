"""Generated blocks of our pages.

A block stands between ``<!-- generated: NAME OF -->`` and ``<!-- end -->``. OF is a config, whose published record the block is
a function of; ``world/NAME``, for that world's published run with most training seeds; or ``all``, for all records. So a test
can make every block again and compare. Nothing else writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from saffron.analysis import claims, criteria
from saffron.figures import discovery
from saffron.figures import published as published_tables
from saffron.pages import costs, headlines, house, picture, robustness, worlds
from saffron.pages.worlds import Records
from saffron.runs import provenance
from saffron.table import Table

Record = Mapping[str, Any]

_BLOCK = re.compile(
    r"(?P<head><!-- generated: (?P<name>[a-z0-9_]+) (?P<of>[a-z0-9/-]+) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL
)


class BlockError(ValueError):
    """A block that cannot be made; names it and what there is."""


def regenerate(text: str, ours: Records) -> str:
    """The text with every generated block made anew; a block of a config that is not published yet says so.

    Raises:
        BlockError: if a block has an unknown name, or is of an unknown world.
    """
    return _BLOCK.sub(lambda match: f"{match['head']}{_content(match['name'], match['of'], ours).strip()}\n{match['tail']}", text)


def _content(name: str, of: str, ours: Records) -> str:
    if of == "all":
        return _known(name, OF_ALL)(ours)
    world = _world(of)
    if name in OF_DEVELOPMENT:
        found = ours.get(of, {}).get("development") if world is None else worlds.development_of(world, ours)
        return OF_DEVELOPMENT[name](found) if found else "Not published yet (`saffron criteria --publish`)."
    record = ours.get(of) if world is None else worlds.run_of(world, ours)
    config = of if world is None else world.configs[-1]
    tables = {key: item for key, item in discovery.singles().items() if item.table is not None and item.published}
    beyond = name.startswith("ablation_") or (name in tables and tables[name].group == "ablations")
    if not beyond:
        _known(name, OF_RECORD.keys() | tables.keys())
    if record is None or set(record) == {"tables", "development"}:
        return f"Not published yet (`make publish CONFIG={config}`)."
    if name in OF_RECORD:
        return OF_RECORD[name](record)
    if beyond and name not in record["tables"]:
        return f"Not published yet (`make ablations CONFIG={config}`, then `make publish CONFIG={config}`)."
    return record["tables"].get(name, "This run has no such table: no experiment of its config gives one.")


def _known(name: str, names: Any) -> Any:
    if name not in names:
        raise BlockError(f"block {name!r} is unknown; there are {sorted(names)}")
    return names[name] if isinstance(names, Mapping) else name


def _world(of: str) -> worlds.World | None:
    """The world that a block is of; None if it is of a config."""
    kind, _, name = of.rpartition("/")
    if not kind:
        return None
    found = worlds.called(name) if kind == "world" else None
    if found is None:
        raise BlockError(f"block of {of!r}: unknown; there are {[f'world/{world.name}' for world in worlds.WORLDS]}")
    return found


def _run(record: Record) -> str:
    hardware, seeds = record["hardware"], record["seeds"]
    machine = ", ".join([hardware["processor"], f"{hardware['cores']} cores", f"{hardware['memory_gib']} GiB", *hardware["gpus"]])
    benchmark = "" if seeds["benchmark"] is None else f", benchmark seed {seeds['benchmark']}"
    return (
        f"Config `{record['config']}` (sha256 `{record['config_sha256'][:12]}`), commit `{record['git']['commit'][:12]}`, "
        f"training seeds {seeds['train']}{benchmark}, on {machine}; torch {record['versions']['torch']}."
    )


def _runtimes(record: Record) -> str:
    return Table(provenance.RUNTIME_COLUMNS, tuple(provenance.runtime_cells(dict(record["runtimes"])))).markdown_rows()


def _beside(kind: str, command: str, record: Record) -> str:
    if kind not in record:
        return f"Not published yet (`{command} CONFIG={record['config']}`)."
    return published_tables.verdicts(record, kind).markdown_rows()


#: Blocks of all records together.
OF_ALL: Mapping[str, Callable[[Records], str]] = {
    "headlines": headlines.markdown,
    "costs": costs.markdown,
    "picture": picture.for_readme,
    "site_picture": picture.for_site,
    "house": house.markdown,
    "robustness": robustness.markdown,
}

#: Blocks of what was found on the development split.
OF_DEVELOPMENT: Mapping[str, Callable[[Any], str]] = {
    "criteria": criteria.criteria_table,
    "causes": criteria.causes_table,
}

#: Blocks of one record; any other is its published table of that name.
OF_RECORD: Mapping[str, Callable[[Any], str]] = {
    "run": _run,
    "runtimes": _runtimes,
    "by_judges": lambda record: claims.by_judges(record["claims"], record["analysis"]["judges"][0]),
    "claims": lambda record: claims.markdown(record["claims"]),
    "spread": lambda record: published_tables.spread(record).markdown(),
    "redraws": lambda record: _beside("redraws", "make redraws", record),
    "variants": lambda record: _beside("variants", "make outcome-shares", record),
    "benchmark": lambda record: record["tables"]["benchmark"],
    "differences": lambda record: record["tables"]["differences"],
}
