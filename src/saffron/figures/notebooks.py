"""Executing the notebooks, which make figures and tables, by papermill in this process.

No kernel is started: cells run in an IPython shell of this interpreter, which halves what a page costs. The user's Jupyter
and IPython settings have no part in it: kernels of other environments on Jupyter's search path, start-up files and
``PYTHONSTARTUP`` would decide which Python draws and how.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from saffron.layout import Layout, shipped

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from nbformat import NotebookNode

NOTEBOOKS = Path("notebooks")


class NotebookError(RuntimeError):
    """A notebook that is missing, lacks a parameter or failed; names the cell and where its executed copy lies."""


def execute(name: str, parameters: Mapping[str, Any], executed: Path) -> None:
    """Execute ``notebooks/<name>.ipynb`` of the folder one is in, or the package's own where there are none.

    Its executed copy is kept whether it succeeds or fails.

    Args:
        name: of the notebook.
        parameters: values for the notebook's `parameters` cell.
        executed: where the executed copy goes.

    Raises:
        NotebookError: if there is no such notebook, it does not declare one of the parameters, or a cell fails.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebooks = NOTEBOOKS if NOTEBOOKS.is_dir() else shipped("notebooks")
    path = notebooks / f"{name}.ipynb"
    if not path.exists():
        raise NotebookError(f"{path}: no such notebook; there are {sorted(item.stem for item in notebooks.glob('*.ipynb'))}")
    unknown = sorted(set(parameters) - set(papermill.inspect_notebook(str(path))))
    if unknown:
        raise NotebookError(f"{path}: does not declare the parameters {unknown}; add them to its cell tagged `parameters`")
    executed.parent.mkdir(parents=True, exist_ok=True)
    for library in ("papermill", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    _register()
    try:
        papermill.execute_notebook(
            str(path),
            str(executed),
            parameters=dict(parameters),
            kernel_name="python3",
            engine_name=ENGINE,
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        raise NotebookError(
            f"{path}: cell {error.exec_count} failed: {error.ename}: {error.evalue} (executed copy: {executed})"
        ) from None


#: Name of the engine among papermill's.
ENGINE = "saffron"


def _register() -> None:
    """Tell papermill of an engine that runs cells in this process."""
    from papermill.engines import Engine, papermill_engines

    class InProcess(Engine):
        """Runs cells one after the other, up to the first that fails."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            """Run the cells of a notebook; what they print, display and raise becomes their outputs."""
            with _shell() as shell:
                for index, cell in enumerate(nb_man.nb.cells):
                    nb_man.cell_start(cell, cell_index=index)
                    if cell.cell_type == "code" and not _run(shell, cell):
                        nb_man.cell_exception(cell, cell_index=index)
                        break
                    nb_man.cell_complete(cell, cell_index=index)

    papermill_engines.register(ENGINE, InProcess)


@contextmanager
def _shell() -> Iterator[InteractiveShell]:
    """A fresh shell without anything of the user's, for figures that are written to files alone."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Hook(DisplayHook):
        """Prints no result."""

        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
            pass

        def finish_displayhook(self) -> None:
            pass

    class Shell(InteractiveShell):
        """Prints neither results nor tracebacks: they become outputs of their cells."""

        displayhook_class = Hook

        def _showtraceback(self, *_: Any) -> None:
            pass

    backend = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    if "matplotlib" in sys.modules:  # which reads the variable when it is loaded
        sys.modules["matplotlib"].use("agg")
    InteractiveShell.clear_instance()
    with tempfile.TemporaryDirectory(prefix="saffron-notebook-") as folder:
        settings = Config({"HistoryManager": {"enabled": False}})
        try:
            yield Shell.instance(config=settings, ipython_dir=folder, user_module=ModuleType("notebook"))
        finally:
            InteractiveShell.clear_instance()
            if backend is None:
                del os.environ["MPLBACKEND"]
            else:
                os.environ["MPLBACKEND"] = backend


def _run(shell: InteractiveShell, cell: NotebookNode) -> bool:
    """Run a cell and keep what came of it in the notebook; whether it ended well."""
    from IPython.utils.capture import capture_output
    from nbformat.v4 import new_output

    with capture_output() as captured:
        result = shell.run_cell(cell.source, store_history=True)
    cell.execution_count = result.execution_count
    for name, text in (("stdout", captured.stdout), ("stderr", captured.stderr)):
        if text:
            cell.outputs.append(new_output("stream", name=name, text=text))
    for shown in captured.outputs:
        cell.outputs.append(new_output("display_data", data=shown.data, metadata=shown.metadata))
    if result.result is not None and shell.display_formatter is not None:
        data, metadata = shell.display_formatter.format(result.result)
        cell.outputs.append(new_output("execute_result", data, execution_count=result.execution_count, metadata=metadata))
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        trace = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
        cell.outputs.append(new_output("error", ename=type(error).__name__, evalue=str(error), traceback=list(trace)))
    return error is None


def executed_copy(layout: Layout, name: str) -> Path:
    """Where the executed copy of a page goes unless said otherwise."""
    return layout.data / "logs" / "figures" / f"{name}.ipynb"
