"""The look of figures is the project's own, and the same for everybody."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from saffron.analysis.view import View
from saffron.figures import curves, style
from saffron.figures.exhibits import figure4a, table3
from saffron.methods.base import Method
from saffron.methods.discovery import methods

THEIRS = """
text.usetex: True
font.family: serif
font.size: 19
axes.facecolor: red
axes.prop_cycle: cycler('color', ['lime'])
figure.facecolor: yellow
savefig.bbox: tight
savefig.transparent: True
pdf.fonttype: 3
lines.antialiased: False
axes.unicode_minus: False
path.sketch: 1, 100, 2
"""


def test_the_users_matplotlib_settings_reach_no_figure(view: View, tmp_path: Path) -> None:
    """As if their matplotlibrc had been read when matplotlib was imported, or a session had set it since."""
    style.save(figure4a.draw(view), tmp_path / "ours", "figure")
    (tmp_path / "matplotlibrc").write_text(THEIRS)
    with matplotlib.rc_context(fname=tmp_path / "matplotlibrc"):
        assert matplotlib.rcParams["text.usetex"] and matplotlib.rcParams["font.size"] == 19
        style.save(figure4a.draw(view), tmp_path / "theirs", "figure")
        assert matplotlib.rcParams["font.size"] == 19  # their session is left as it was
    for suffix in ("pdf", "png"):
        ours, theirs = (tmp_path / who / f"figure.{suffix}" for who in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()


def overlap(figure: Figure) -> bool:
    """Whether the legend of a figure covers the label of an axis."""
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    return any(box.overlaps(axes.xaxis.label.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize("count", [1, 5, 6, 11, 14])
def test_a_legend_of_many_methods_covers_no_axis(count: int) -> None:
    with style.styled():
        figure, ax = style.plt.subplots(figsize=(style.FULL, 2.75))
        for i in range(count):
            ax.plot([1, 2], [0.1, 0.9], label=f"Method number {i}")
        style.compute_axis(ax, [1, 2], "GFLOP per prompt")
        style.asr_axis(ax)
        figure.subplots_adjust(bottom=style.legend_below(figure, ax, bottom=0.25))
    assert not overlap(figure)
    style.plt.close(figure)


def test_figure_2_has_room_for_its_legend(view: View) -> None:
    figure = curves.figure2(view, "once")
    assert len(figure.legends[0].get_texts()) > style.IN_A_ROW and not overlap(figure)
    style.plt.close(figure)


def test_every_method_has_its_colour_and_marker() -> None:
    found: list[Method] = list(methods().values())
    assert len({method.colour for method in found}) == len({method.marker for method in found}) == len(found)
    assert set(style.COLOURS) == set(style.MARKERS) == set(methods())


def test_alt_texts_give_the_numbers(view: View) -> None:
    last = view.section("curves")["guard"]["saffron"]["asr"][-1]
    assert np.isfinite(last) and f"to {last:.2f} at" in figure4a.alt(view)
    assert table3.EXHIBIT.alt_text(view) == ""
