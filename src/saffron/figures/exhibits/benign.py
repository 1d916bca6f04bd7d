"""Harmless prompts without attack: are they still answered?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saffron.figures.base import Exhibit
from saffron.figures.words import label, prose, rate, seeds, with_unit

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table


def table(view: View) -> Table:
    """Refusals and wrong verdicts on harmless prompts.

    Raises:
        RecordError: if the results are missing, or the config has no oracle.
    """
    from saffron.analysis import ablations
    from saffron.records import RecordError
    from saffron.sources import oracle
    from saffron.table import Table

    refuses = oracle.load_refusal(view.config.search.oracle)
    if refuses is None:
        raise RecordError(f"config {view.config.name}: search.oracle is none, and only an oracle can tell a refusal")
    found = ablations.benign_rows(view.study, refuses)
    rows = []
    for row in found:
        judged = (rate(row["refused"]), rate(row["judged_unsafe"]), rate(row["log_likelihood"]))
        rows.append((label(row["method"]), str(row["budget"]), with_unit(row["flops"]), *judged, f"{row['n_new_tokens']:.1f}"))
    caption = prose(
        f"""Harmless prompts without attack, n = {found[0]["n"]} prompts, {seeds(view)}; 95 % intervals. Refused: by the text
        oracle. Judged unsafe: by the guard, wrongly. Log-likelihood: mean per token of the outputs under the policy, in nats."""
    )
    return Table(
        ("method", "budget", "compute", "refused", "judged unsafe", "log-likelihood", "new tokens"), tuple(rows), caption
    )


EXHIBIT = Exhibit(
    title="Harmless prompts",
    about="A defense that refuses everything is safe and useless: what each method does to harmless prompts without attack.",
    section="ablations",
    order=110,
    table=table,
    needs=("benign",),
    wanted=lambda config: config.search.oracle != "none",
    reads=("benign",),
    page="unmeasured",
    group="ablations",
)
