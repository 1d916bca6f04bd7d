"""What the code behind a result is: one digest over the syntax trees of the modules that a job can reach.

Comments, docstrings and layout are no part of a syntax tree's meaning, so editing them changes no digest and runs nothing
again. A job reaches the modules it names and all that these import, at any depth and anywhere in them (heavy imports stand
inside functions). What is imported for type checking alone is not run, and a package counts where it is imported by name.

The modules of the config, of paths and of commands are left out: their effect shows in values and paths. So are what finds
methods, judges and readers by name, and what says why a job failed, which makes no result. Of the description of a search
method only what its settings do is code of its searches (:func:`digest_of_settings`); the rest stands in the jobs as values.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from saffron import plugins

#: Modules whose effect a job shows otherwise.
SEEN_OTHERWISE = frozenset(
    {
        "saffron",
        "saffron.cli",
        "saffron.code",
        "saffron.config",
        "saffron.exhausted",
        "saffron.forkserver",
        "saffron.secrets",
        "saffron.jobs",
        "saffron.judges",
        "saffron.judges.base",
        "saffron.judges.discovery",
        "saffron.layout",
        "saffron.methods",
        "saffron.methods.base",
        "saffron.methods.discovery",
        "saffron.plugins",
        "saffron.section",
        "saffron.workflow",
    }
)


class CodeError(ValueError):
    """A module that is not there; names it."""


@cache
def digest(*names: str) -> str:
    """16 hex digits that change with what these modules, and all that they import, do.

    Args:
        names: dotted names of modules, for instance ``saffron.search.runner``.

    Raises:
        CodeError: if a name is no module.
    """
    found = hashlib.sha256()
    for name in modules(*names):
        found.update(f"{name}\0{_meaning(_file(name))}\0".encode())
    return found.hexdigest()[:16]


def modules(*names: str) -> list[str]:
    """Sorted dotted names of these modules and of all that they import of their own packages and of this one.

    Raises:
        CodeError: if a name is no module.
    """
    tops = {name.partition(".")[0] for name in names}
    packages = {"saffron"} | tops | plugins.beside(tops - {"saffron"})
    for name in names:
        if not _file(name):
            raise CodeError(f"{name}: no such module; a digest names the code a result depends on")
    todo, found = list(names), set[str]()
    while todo:
        name = todo.pop()
        if name in found or name in SEEN_OTHERWISE or name.partition(".")[0] not in packages:
            continue
        path = _file(name)
        if path is None or (path.name == "__init__.py" and name.startswith("saffron.methods.")):
            continue  # a name imported from a module, not a module; or a method's description
        found.add(name)
        todo += imports(name)
    return sorted(found)


@cache
def names(module: str) -> frozenset[str]:
    """What a module defines or imports at its top, by its text; nothing is run.

    Raises:
        CodeError: if there is no such module, or its text is no Python.
    """
    path = _file(module)
    if path is None:
        raise CodeError(f"{module}: no such module")
    found = set[str]()
    for node in _parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return frozenset(found)


def digest_of_settings(settings: type) -> str:
    """The same for what the settings of a search method do in a search: their methods, and functions beside them.

    Fields are left out, as their values stand in the job; so are METHOD, and functions that it names, which no search calls.

    Args:
        settings: the class of a description.
    """
    kept: list[ast.stmt] = []
    for one in settings.__mro__:
        path = _file(one.__module__) if one.__module__.partition(".")[0] not in ("builtins", "pydantic") else None
        if path is None or one.__module__ == "saffron.section":
            continue
        body = _parsed(path).body
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name == one.__name__:
                kept += [part for part in node.body if isinstance(part, ast.FunctionDef)]
        if one is settings and one.__module__ not in SEEN_OTHERWISE:
            of_method = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHOD"]
            named = {part.id for node in of_method for part in ast.walk(node.value) if isinstance(part, ast.Name)}
            kept += [node for node in body if isinstance(node, ast.FunctionDef) and node.name not in named]
    return hashlib.sha256(_dumped(ast.Module(kept, [])).encode()).hexdigest()[:16]


def digest_of_notebook(path: Path) -> str:
    """The same for a notebook: what its code cells do and the modules that they import."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return digest_of_text("\n".join("".join(cell["source"]) for cell in cells))


def digest_of_text(source: str) -> str:
    """The same for a source text."""
    found = hashlib.sha256(_normalised(source).encode())
    known = [name for name in _imported(ast.parse(source), "") if name.startswith("saffron.") and _file(name)]
    found.update(digest(*known).encode())
    return found.hexdigest()[:16]


@cache
def imports(name: str) -> tuple[str, ...]:
    """Dotted names that a module imports as it runs; some are names in a module, not modules."""
    path = _file(name)
    if path is None:
        return ()
    return tuple(_imported(_parsed(path), name if path.name == "__init__.py" else name.rpartition(".")[0]))


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text("utf-8"), str(path))
    except SyntaxError as error:
        raise CodeError(f"{path}, line {error.lineno}: {error.msg}; mend it") from None


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The names in the order of the tree; ``package`` is what relative ones start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
            for other in node.orelse:
                yield from _imported(ast.Module([other], []), package)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join(filter(None, [*parents, node.module]))
            for alias in node.names:
                part = f"{module}.{alias.name}"
                yield part if _file(part) else module  # a module, or a name in one
        else:
            yield from _imported(node, package)


@cache
def _file(name: str) -> Path | None:
    """The source file of a module; found without running anything but what holds its top package."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return None if spec.origin is None else Path(spec.origin)
    bases = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]  # also without an __init__.py
    candidates = (path for base in bases for path in (base / "__init__.py", base.with_name(f"{base.name}.py")))
    return next((path for path in candidates if path.exists()), None)


@cache
def _meaning(path: Path) -> str:
    return hashlib.sha256(_dumped(_parsed(path)).encode()).hexdigest()


def _normalised(source: str) -> str:
    """The syntax tree as text, without docstrings (and, as it is a tree, comments and layout)."""
    return _dumped(ast.parse(source))


def _dumped(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)
