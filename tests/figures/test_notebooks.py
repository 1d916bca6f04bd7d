from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from saffron.figures import notebooks as runner
from saffron.figures.notebooks import NotebookError


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one notebook that writes its parameter to a file, and fails on the value "bad"."""
    parameters = nbformat.v4.new_code_cell("target = None\nvalue = None")
    parameters.metadata["tags"] = ["parameters"]
    work = nbformat.v4.new_code_cell("assert value != 'bad', 'a bad value'\nopen(target, 'w').write(value)")
    notebook = nbformat.v4.new_notebook(cells=[parameters, work])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "figure9.ipynb")
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path)
    return tmp_path


def test_a_notebook_gets_its_parameters_and_its_copy_is_kept(notebooks: Path) -> None:
    executed = notebooks / "logs/figure9.ipynb"
    runner.execute("figure9", {"target": str(notebooks / "out.txt"), "value": "good"}, executed)
    assert (notebooks / "out.txt").read_text() == "good"
    assert nbformat.read(executed, as_version=4).cells[-1].execution_count is not None


def write_notebook(folder: Path, source: str) -> None:
    parameters = nbformat.v4.new_code_cell("target = None")
    parameters.metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "figure9.ipynb")


def test_the_users_settings_of_jupyter_ipython_and_python_reach_no_notebook(
    notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel `python3` of another environment on Jupyter's search path, and files that run when a session starts."""
    kernel = tmp_path / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    broken = {"argv": ["/nonexistent/python", "-f", "{connection_file}"], "display_name": "theirs", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(broken))
    startup = tmp_path / "ipython/profile_default/startup/00-mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("started_up = True\n")
    (tmp_path / "ipython/profile_default/ipython_config.py").write_text("c.InteractiveShellApp.exec_lines = ['configured = 1']\n")
    (tmp_path / "python.py").write_text("python_started_up = True\n")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "python.py"))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/nonexistent/python"  # what Jupyter would take
    write_notebook(
        notebooks,
        "import sys\nfound = {'started_up', 'configured', 'python_started_up'} & set(globals())\n"
        "open(target, 'w').write(f'{sys.executable} {sorted(found)}')",
    )
    runner.execute("figure9", {"target": str(tmp_path / "found.txt")}, tmp_path / "executed.ipynb")
    assert (tmp_path / "found.txt").read_text() == f"{sys.executable} []"


def test_a_failing_cell_is_named_and_stays_readable(notebooks: Path) -> None:
    executed = notebooks / "logs/figure9.ipynb"
    with pytest.raises(NotebookError, match=r"figure9\.ipynb: cell 3 failed: AssertionError: a bad value .*logs/figure9\.ipynb"):
        runner.execute("figure9", {"target": "unused", "value": "bad"}, executed)
    outputs = nbformat.read(executed, as_version=4).cells[-1].outputs
    assert [output.output_type for output in outputs] == ["error"] and "a bad value" in outputs[0].evalue


def test_what_a_cell_prints_and_displays_is_kept_and_cells_share_their_names(notebooks: Path) -> None:
    write_notebook(
        notebooks,
        "from IPython.display import Markdown, display\nimport matplotlib\nprint('hello')\ndisplay(Markdown('# A'))\n"
        "open(target, 'w').write(matplotlib.get_backend())\n6 * 7",
    )
    executed = notebooks / "executed.ipynb"
    runner.execute("figure9", {"target": str(notebooks / "backend")}, executed)
    assert (notebooks / "backend").read_text().lower() == "agg"
    outputs = nbformat.read(executed, as_version=4).cells[-1].outputs
    assert [output.get("text") or output.data.get("text/markdown") or output.data["text/plain"] for output in outputs] == [
        "hello\n",
        "# A",
        "42",
    ]


def test_an_undeclared_parameter_is_an_error(notebooks: Path) -> None:
    with pytest.raises(NotebookError, match=r"does not declare the parameters \['colour'\]"):
        runner.execute("figure9", {"target": "x", "colour": "red"}, notebooks / "logs/figure9.ipynb")
    assert not (notebooks / "logs").exists()


def test_a_missing_notebook_is_an_error(notebooks: Path) -> None:
    with pytest.raises(NotebookError, match=r"no such notebook; there are \['figure9'\]"):
        runner.execute("figure8", {}, notebooks / "logs/figure8.ipynb")
