"""How well variants of the multifurcation reward model predict the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saffron import workflow
from saffron.figures.base import Exhibit
from saffron.figures.words import prose, rate, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table

MEASURES = ("r_squared", "mae", "fraction_within_1", "sign_agreement")


def table(view: View) -> Table:
    """Agreement of every variant with the guard, with what it changes; persistence last."""
    from saffron.table import Table

    found = view.section("mrm_variants")
    order = ["default", *sorted(found.keys() - {"default"}, key=lambda name: (-found[name]["r_squared"]["value"], name))]
    rows = [(name, _changes(view, name), *(rate(found[name][measure]) for measure in MEASURES)) for name in order]
    rows.append(("persistence", "", *(rate(view.analysis["persistence"][measure]) for measure in MEASURES)))
    caption = prose(
        f"""Agreement of the MRM with the guard on held-out prefixes of Safety4M (n = {found["default"]["r_squared"]["n"]:,},
        {seeds(view)}; 95 % intervals), by recipe; each differs from the default in what stands beside it. Persistence predicts
        that a token changes nothing, M(s)[a] = R(s), which cannot tell next tokens apart."""
    )
    return Table(("recipe", "what differs", "R²", "MAE", "within ±1", "sign agreement"), tuple(rows), caption)


def _changes(view: View, name: str) -> str:
    values = view.config.mrm.variants[name].model_dump(exclude_none=True, exclude_defaults=True)
    return "; ".join(f"{key} {_value(value)}" for key, value in values.items()) or "–"


def _value(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


EXHIBIT = Exhibit(
    title="Which part of the MRM's recipe matters?",
    about=prose(
        """Each row is an MRM of its own, trained as the default but for one part of its recipe, on the same labels of the same
        guard. What a search makes of them is in the ablation of the same name."""
    ),
    section="mrm",
    order=15,
    table=table,
    wanted=lambda config: len(workflow.variants(config)) > 1,
)
