"""ScalEff as a function of the compute limit that it is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import asked, label, prose, unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saffron.analysis.view import View


def draw(view: View) -> Figure:
    """ScalEff of Table 1's rows against the compute limit, with the limits that were fixed beforehand."""
    import numpy as np

    from saffron.analysis import scaling
    from saffron.figures import style
    from saffron.figures.style import VARIANTS

    rows, judge = view.section("exploration"), view.judge
    methods = sorted({row["method"] for row in rows})
    with style.styled():
        figure, axes = style.plt.subplots(1, len(methods), figsize=(style.FULL, 2.3), squeeze=False)
        for ax, method in zip(axes[0], methods, strict=True):
            own = [row for row in rows if row["method"] == method]
            scale, name = unit([row["flops"] for row in own])
            limits = np.geomspace(max(row["flops"] for row in own), 40 * own[0]["flops"], 200)
            undefined = [row for row in own if scaling.scaleff(row["flops"], row[judge]["value"], limits[0]) is None]
            if undefined:
                names = " and ".join(f"{row['knob']} = {row['value']}" for row in undefined)
                ax.text(
                    *(0.03, 0.96),
                    f"undefined for\n{names}:\nattack success 0",
                    transform=ax.transAxes,
                    va="top",
                    fontsize=7,
                    bbox={"fc": "white", "ec": "none", "pad": 1},
                )
            for i, row in enumerate(own):
                values = [scaling.scaleff(row["flops"], row[judge]["value"], limit) for limit in limits]
                if values[0] is not None:
                    ax.plot(
                        limits / scale,
                        np.array(values, dtype=float),
                        linestyle=VARIANTS[i % len(VARIANTS)][0],
                        color=style.COLOURS[method],
                        label=f"{row['knob']} = {row['value']}",
                    )
            ax.axvline(own[0]["limit"] / scale, color="#555555", lw=0.7, ls=":")
            ax.annotate(
                "limit used",
                (own[0]["limit"] / scale, 0.02),
                (3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=6.5,
            )
            style.compute_axis(ax, (limits / scale).tolist(), f"compute limit, {name} per prompt")
            ax.set_ylabel("ScalEff")
            ax.grid(True, axis="y")
            ax.set_title(label(method), loc="left")
            if len(undefined) < len(own):
                ax.legend(loc="lower right")
        figure.tight_layout(pad=0.4)
    return figure


def caption(view: View) -> str:
    """What stands below the figure."""
    return prose(
        f"""ScalEff (Eq. 1) of Table 1's rows as a function of the compute limit; {asked(view, "exploration")}; dotted: the limit
        fixed beforehand. Without an attack that passes, ScalEff is undefined."""
    )


def alt(view: View) -> str:
    """What the figure shows, for a reader who cannot see it."""
    parts = []
    for row in view.section("exploration"):
        value = row[f"scaleff_{view.judge}"]
        text = "undefined" if value is None else f"{value:.2f}"
        parts.append(f"{label(row['method'])}, {row['knob']} = {row['value']}: {text}")
    return f"ScalEff against the compute limit, a panel per method and a line per setting. At the limit used: {'; '.join(parts)}."


EXHIBIT = Exhibit(
    title="ScalEff against its limit",
    about="ScalEff depends on the compute limit, so it is drawn against it; the dotted line is the limit that Table 1 uses.",
    section="exploration",
    order=20,
    draw=draw,
    caption=caption,
    alt=alt,
    needs=("exploration",),
    page="table1",
)
