"""Figures, tables and report of a run in this process, its figures written with few pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saffron.analysis.view import View
from saffron.config import Config
from saffron.figures import discovery, style
from saffron.layout import Layout
from saffron.runs import report


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Every figure is drawn and as few of its pixels are written as can be."""

    def save(figure: Any, folder: Path, name: str) -> None:
        with style.styled():
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png", dpi=20)
        style.plt.close(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", save)
        yield


def draw(config: Config, layout: Layout, tell: Callable[[str], object] = lambda _: None) -> str:
    """Draw everything that a config's results can fill, telling what is next, and write the report; its text."""
    view = View.of(config, layout)
    for exhibit in discovery.exhibits(config).values():
        tell(f"drawing {exhibit.name}")
        exhibit.save(view)
    report.write(config, layout)
    return (layout.figures / "report.html").read_text("utf-8")
