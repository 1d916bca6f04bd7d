"""Executing the notebooks, which make figures and tables, in a kernel that is this interpreter's and nobody else's.

The user's Jupyter and IPython settings have no part in it: kernels of other environments on Jupyter's search path, start-up
files and ``PYTHONSTARTUP`` would decide which Python draws and how.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saffron.layout import Layout, shipped

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
    logging.getLogger("papermill").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="saffron-kernel-") as folder:
        try:
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                kernel_manager_class=_own_kernel(Path(folder)),
            )
        except PapermillExecutionError as error:
            raise NotebookError(
                f"{path}: cell {error.exec_count} failed: {error.ename}: {error.evalue} (executed copy: {executed})"
            ) from None


def _own_kernel(folder: Path) -> type:
    """A kernel manager that starts this interpreter, with settings of its own in an empty folder."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class OwnKernel(AsyncKernelManager):
        """Starts this interpreter whatever kernels there are."""

        @property
        def kernel_spec(self) -> KernelSpec:
            """This interpreter's, in isolation from the user's site."""
            arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=arguments, display_name="Python 3", language="python")

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            """Start it in the environment of this process without the user's settings of IPython and Python."""
            environment = dict(options.pop("env", None) or os.environ)
            environment.pop("PYTHONSTARTUP", None)
            environment |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder)}
            self.connection_file = str(folder / "kernel.json")
            await super().start_kernel(env=environment, **options)

    return OwnKernel


def executed_copy(layout: Layout, name: str) -> Path:
    """Where the executed copy of a page goes unless said otherwise."""
    return layout.data / "logs" / "figures" / f"{name}.ipynb"
