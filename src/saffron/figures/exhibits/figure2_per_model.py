"""Figure 2 with compute counted per model, as in the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import asked, prose
from saffron.methods.discovery import method, methods
from saffron.roles import PROPOSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """Figure 2 with FLOPs times the number of models loaded."""
    from saffron.figures import curves

    return curves.figure2(view, "per_model")


def caption(view: View) -> str:
    """What stands below the figure."""
    proposed = method(PROPOSED)
    others = " or ".join(
        str(count)
        for count in sorted({other.multiplier() for other in methods().values() if "mrm" not in other.reads(other.settings())})
    )
    return prose(
        f"""Figure 2, compute counted per model, as in the paper: FLOPs times the number of models loaded,
        {others} for every PRM method and {proposed.multiplier()} for Saffron-1 (the released script
        loads {proposed.multiplier(fitted=False)}); {asked(view, "scaling")}; otherwise as Figure 2."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    from saffron.figures import curves

    return f"As Figure 2, with compute counted per model. {curves.described_in_words(view, 'per_model')}"


EXHIBIT = Exhibit(
    title="Figure 2, compute counted per model",
    about="The same points with the paper's way of counting: FLOPs times the number of models that a method loads.",
    section="scaling",
    order=20,
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("scaling",),
    page="figure2",
)
