"""Executing the notebooks, each of which writes one figure or table, and the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saffron.layout import Layout
from saffron.records import replacing

NOTEBOOKS = Path("notebooks")


class NotebookError(RuntimeError):
    """A notebook that is missing, lacks a parameter or failed; names the cell and where its executed copy lies."""


def notebook(name: str, parameters: Mapping[str, Any], executed: Path) -> None:
    """Execute ``notebooks/<name>.ipynb``; its executed copy is kept whether it succeeds or fails, as HTML too.

    Args:
        name: the figure or table.
        parameters: values for the notebook's `parameters` cell.
        executed: where the executed copy goes.

    Raises:
        NotebookError: if there is no such notebook, it does not declare one of the parameters, or a cell fails.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.exists():
        raise NotebookError(f"{path}: no such notebook; there are {sorted(item.stem for item in NOTEBOOKS.glob('*.ipynb'))}")
    unknown = sorted(set(parameters) - set(papermill.inspect_notebook(str(path))))
    if unknown:
        raise NotebookError(f"{path}: does not declare the parameters {unknown}; add them to its cell tagged `parameters`")
    executed.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        papermill.execute_notebook(
            str(path), str(executed), parameters=dict(parameters), kernel_name="python3", progress_bar=False
        )
    except PapermillExecutionError as error:
        _as_html(executed)
        raise NotebookError(
            f"{path}: cell {error.exec_count} failed: {error.ename}: {error.evalue} (executed copy: {executed})"
        ) from None
    _as_html(executed)


def _as_html(executed: Path) -> None:
    """Write an executed notebook as a page beside it."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(executed))
    with replacing(executed.with_suffix(".html")) as temporary:
        temporary.write_text(page)


def executed_copy(layout: Layout, name: str) -> Path:
    """Where the executed copy of a notebook goes unless said otherwise."""
    return layout.data / "logs" / "figures" / f"{name}.ipynb"
