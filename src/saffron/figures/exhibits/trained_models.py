"""What the models that were trained here do on held-out conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from saffron import workflow
from saffron.figures.base import Exhibit
from saffron.figures.words import prose, seeds

if TYPE_CHECKING:
    from saffron.analysis.view import View
    from saffron.table import Table

#: What is asked of a guard, by where its record says so.
ASKED = {"refusals": "does the answer decline", "preference": "did people prefer it"}


def table(view: View) -> Table:
    """Guards against both labels, the policy before and after its tuning; means over training seeds and their range."""
    from saffron.table import Table

    rows: list[tuple[str, ...]] = []
    for name, by_seed in view.section("trained_models").items():
        found = list(by_seed.values())
        rows += _policy(name, found) if name == "policy" else _guard(name, found)
    caption = prose(
        f"""Models that were trained from the hub's, on conversations of the test split ({seeds(view)}; in parentheses the range
        over seeds). AUC: the chance that an answer which the label calls safe has the higher reward. Pairs: two answers to one
        question of which one is safe; the share whose safe one has the higher reward. The policy's answers are greedy; attacked:
        past the first tokens of the answer that people rejected."""
    )
    return Table(("model", "measure", "n", "value"), tuple(rows), caption)


def _guard(name: str, found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    named = f"{name}, taught {found[0]['labels']}"
    rows: list[tuple[str, ...]] = []
    for kind, words in ASKED.items():
        by_kind = [one[kind] for one in found]
        responses = _over(found, lambda one: one["responses"], "{:,.0f}")
        rows.append((named, f"AUC, {words}", responses, _over(by_kind, lambda one: one["auc"])))
        pairs = _over(by_kind, lambda one: one["pairs"], "{:,.0f}")
        rows.append((named, f"pairs, {words}", pairs, _over(by_kind, lambda one: one["pair_accuracy"])))
    return rows


def _policy(name: str, found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for attack, words in (("unattacked", "not attacked"), ("attacked", "attacked")):
        for when in ("before", "after"):
            by_time = [one[when] | {"share": one[when][attack]} for one in found]
            asked = _over(by_time, lambda one: one["requests"], "{:,.0f}")
            rows.append((name, f"declines, {words}, {when} the tuning", asked, _over(by_time, lambda one: one["share"])))
    return rows


def _over(found: list[dict[str, Any]], value: Callable[[Mapping[str, Any]], float | None], form: str = "{:.3f}") -> str:
    """The mean over training seeds, and the range where they differ."""
    values = [one for one in map(value, found) if one is not None]
    if not values:
        return "–"
    low, high, mean = (form.format(one) for one in (min(values), max(values), sum(values) / len(values)))
    return mean if low == high else f"{mean} ({low}–{high})"


EXHIBIT = Exhibit(
    title="What do the models trained here know?",
    about=prose(
        """A guard that was trained here is no better than its labels and its size allow: its agreement with both kinds of label
        on answers that it was not trained on says what its rewards, and so attack success by it, can mean. A tuned policy
        declines at the start of an answer and not past it, which is what a prefilling attack exploits."""
    ),
    section="mrm",
    order=40,
    table=table,
    wanted=lambda config: bool(workflow.trained_from_hub(config)),
)
