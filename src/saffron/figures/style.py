"""The one style of every figure, and saving that is byte-stable.

The user's own matplotlib settings (``matplotlibrc``, ``MATPLOTLIBRC``, ``text.usetex``, what an interactive session has
changed) reach no figure: everything is drawn and saved from matplotlib's own defaults and the values below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

from saffron.methods.discovery import methods
from saffron.records import replacing

#: Width of the text of the paper's template, in inches.
FULL = 5.5

#: One colour per method in every figure (Okabe and Ito, told apart with any colour vision), and one marker.
COLOURS = {name: method.colour for name, method in methods().items()}
MARKERS = {name: method.marker for name, method in methods().items()}
#: KV blocks of Figure 3 and the PRM of Figure 1: no method's colour.
SHARED, PRIVATE, PROMPT, PRM = "#33415C", "#A8B5CC", "#999999", "#33415C"
#: Line and marker of the runs that one method has in a figure, in order: the first is the setting used everywhere else.
VARIANTS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1)), "v"), ((0, (1, 1)), "P"))

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "saffron",
    "svg.fonttype": "none",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "legend.frameon": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults with ``STYLE`` over them; what was set before holds again afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Write ``<name>.pdf`` and ``<name>.png``, the same bytes for the same figure, and close it."""
    with styled():
        with replacing(Path(folder) / f"{name}.pdf") as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with replacing(Path(folder) / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def compute_axis(ax: Axes, values: Sequence[float], label: str) -> None:
    """A logarithmic compute axis with plain numbers."""
    ax.set_xscale("log")
    low, high = min(values), max(values)
    ax.set_xlim(low / 1.35, high * 1.35)
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel(label)


def asr_axis(ax: Axes, label: str = "attack success rate") -> None:
    """An axis of attack success, from 0 to 1."""
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_locator(MultipleLocator(0.2))  # whatever the height: wider numbers would push the label out
    ax.set_ylabel(label)
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)


#: Entries of a legend in one row.
IN_A_ROW = 5


def legend_below(figure: Figure, ax: Axes, *, bottom: float, row: float = 0.065) -> float:
    """A legend below the axes in rows of five; returns where the axes must end, ``bottom`` for one row."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=IN_A_ROW, columnspacing=1.2, handletextpad=0.4)
    return bottom + row * (max(len(labels) - 1, 0) // IN_A_ROW)
