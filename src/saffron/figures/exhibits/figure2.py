"""Figure 2: attack success against compute, each FLOP counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import asked, prose

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """Attack success against compute, logarithmic fits with bands; beside it the paper's points and fits."""
    from saffron.figures import curves

    return curves.figure2(view, "once")


def caption(view: View) -> str:
    """What stands below the figure."""
    return prose(
        f"""Figure 2. Attack success rate against mean compute per prompt (policy and reward model, each FLOP counted once);
        {asked(view, "scaling")}; bars: 95 % intervals; dashed: ASR = a + b ln(compute), shaded its 95 % band; both from the
        bootstrap over prompts and training seeds; arrow: compute ratio at equal attack success between measured points.
        Right: the paper's points and fits, in its own units."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    from saffron.figures import curves

    return curves.described_in_words(view, "once")


EXHIBIT = Exhibit(
    title="Figure 2: attack success against inference compute",
    about=prose(
        """Each point is a method at one budget; lower and further left is better. Straight dashed lines mean that attack success
        falls with the logarithm of compute, and the arrow is how many times more compute Best-of-N needs for the same attack
        success. The second figure counts compute per model, as in the paper."""
    ),
    section="scaling",
    order=10,
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("scaling",),
)
