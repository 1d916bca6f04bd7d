"""How much attack success owes to the search seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Attack success by search seed.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    from saffron.analysis import ablations
    from saffron.table import Table

    found = ablations.seed_rows(view.study)
    drawn = sorted(found[0]["by_search_seed"])
    rows = []
    for row in found:
        rates = [f"{row['by_search_seed'][seed]:.3f}" for seed in drawn]
        deviations = ["–" if row[name] is None else f"{row[name]:.3f}" for name in ("search_deviation", "train_deviation")]
        rows.append((label(row["method"]), str(row["budget"]), *rates, *deviations))
    caption = prose(
        f"""Attack success by search seed, n = {found[0]["n"]} prompts each, {seeds(view)}. Saffron-1, beam search and DeAL draw
        nothing at random: over search seeds their standard deviation is 0."""
    )
    columns = ("method", "budget", *(f"search seed {seed}" for seed in drawn))
    return Table((*columns, "standard deviation over search seeds", "over training seeds"), tuple(rows), caption)


EXHIBIT = Exhibit(
    title="Search seeds",
    about="How far attack success moves when the models are kept and the searches draw again.",
    section="ablations",
    order=130,
    table=table,
    needs=("search_seeds",),
    reads=("search_seeds",),
    page="unmeasured",
    group="ablations",
)
