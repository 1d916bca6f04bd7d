"""How a command was started: from where, with whose code, and with which profile."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


class StartError(ValueError):
    """A run that would not do what was asked; says how to start it."""


def require(project: Path, arguments: Sequence[str], here: Path | None = None) -> None:
    """End the process with one message if the run was started from elsewhere or with a profile that is not there.

    Snakemake passes over a workflow profile that does not exist: a run meant for a cluster would go on here.

    Args:
        project: folder of the Snakefile.
        arguments: the command line.
        here: the folder that paths of the workflow are relative to (None: the current one).
    """
    _or_end(check, project, arguments, here or Path.cwd())
    descriptions()


def descriptions() -> None:
    """End the process with one message if what an installed distribution brings (saffron.plugins) cannot be used.

    Methods are keys of a config, so that they are read when the config's modules are imported, before any error is caught.
    """
    _or_end(_read_descriptions)


def _read_descriptions() -> None:
    from saffron.judges.discovery import kinds
    from saffron.methods.discovery import methods
    from saffron.sources.reading import readers

    methods(), kinds(), readers()


def _or_end(function: Callable[..., None], *arguments: Any) -> None:
    """Call a check of this package; a refusal is its one message and the end of the process."""
    try:
        function(*arguments)
    except ValueError as error:
        if not type(error).__module__.startswith("saffron."):
            raise
        print(f"saffron: {error}", file=sys.stderr)
        sys.exit(2)


def check(project: Path, arguments: Sequence[str], here: Path) -> None:
    """Raise StartError if a run with this command line in this folder is not one of the project's."""
    if here.resolve() != project.resolve():
        raise StartError(f"{here} is not the project's folder: run the same command in {project}, or add --directory {project}")
    own_code(project)
    if {"{", "}"} & set(str(project)):
        raise StartError(f"{project}: Snakemake takes braces in a path for names of its own: move or rename the folder")
    for profile in _values(arguments, "--workflow-profile"):
        places = [
            folder / path for folder in (here, Path(os.environ.get("PWD", here))) for path in (profile, f"profiles/{profile}")
        ]
        if profile != "none" and not any(place.exists() for place in places):
            known = sorted(path.name for path in (here / "profiles").iterdir())
            close = difflib.get_close_matches(Path(profile).name, known, 1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise StartError(f"--workflow-profile {profile}: no such profile{meant}; profiles/ holds {', '.join(known)}")


def own_code(project: Path) -> None:
    """Refuse code of another checkout than the one that it works in, as an environment that was copied or moved runs it.

    Raises:
        StartError: if ``project`` holds the package's source and other files were imported.
    """
    there, here = project / "src/saffron", Path(__file__).parents[1]
    if there.is_dir() and there.resolve() != here.resolve():
        raise StartError(
            f"this command runs the code in {here}, not that of the folder it works in ({there.resolve()}): its environment was "
            "made elsewhere; run `make env` here and use its commands (.venv/bin)"
        )


def _values(arguments: Sequence[str], option: str) -> Iterator[str]:
    """What stands behind an option, apart or after an equals sign."""
    for this, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if this == option:
            yield following
        elif this.startswith(f"{option}="):
            yield this.partition("=")[2]
