from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from saffron import figures
from saffron.figures import NotebookError
from saffron.layout import Layout


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one notebook that writes its parameter to a file, and fails on the value "bad"."""
    parameters = nbformat.v4.new_code_cell("target = None\nvalue = None")
    parameters.metadata["tags"] = ["parameters"]
    work = nbformat.v4.new_code_cell("assert value != 'bad', 'a bad value'\nopen(target, 'w').write(value)")
    notebook = nbformat.v4.new_notebook(cells=[parameters, work])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "figure9.ipynb")
    monkeypatch.setattr(figures, "NOTEBOOKS", tmp_path)
    return tmp_path


def test_a_notebook_gets_its_parameters_and_its_copy_is_kept(notebooks: Path) -> None:
    executed = notebooks / "logs/figure9.ipynb"
    figures.notebook("figure9", {"target": str(notebooks / "out.txt"), "value": "good"}, executed)
    assert (notebooks / "out.txt").read_text() == "good"
    assert nbformat.read(executed, as_version=4).cells[-1].execution_count is not None


def test_executed_copies_become_pages_once(notebooks: Path, tmp_path: Path) -> None:
    layout = Layout("x", tmp_path / "root")
    executed = figures.executed_copy(layout, "figure9")
    figures.notebook("figure9", {"target": str(notebooks / "out.txt"), "value": "good"}, executed)
    (page,) = figures.pages(layout)
    assert page == executed.with_suffix(".html") and "a bad value" in page.read_text()
    assert figures.pages(layout) == []
    later = page.stat().st_mtime + 5
    os.utime(executed, (later, later))
    assert figures.pages(layout) == [page]


def test_a_failing_cell_is_named_and_stays_readable(notebooks: Path) -> None:
    executed = notebooks / "logs/figure9.ipynb"
    with pytest.raises(NotebookError, match=r"figure9\.ipynb: cell 3 failed: AssertionError: a bad value .*logs/figure9\.ipynb"):
        figures.notebook("figure9", {"target": "unused", "value": "bad"}, executed)
    assert "a bad value" in executed.read_text()


def test_an_undeclared_parameter_is_an_error(notebooks: Path) -> None:
    with pytest.raises(NotebookError, match=r"does not declare the parameters \['colour'\]"):
        figures.notebook("figure9", {"target": "x", "colour": "red"}, notebooks / "logs/figure9.ipynb")
    assert not (notebooks / "logs").exists()


def test_a_missing_notebook_is_an_error(notebooks: Path) -> None:
    with pytest.raises(NotebookError, match=r"no such notebook; there are \['figure9'\]"):
        figures.notebook("figure8", {}, notebooks / "logs/figure8.ipynb")
