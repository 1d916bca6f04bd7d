"""The HTML report: one self-contained file that opens offline, the answers first.

It begins with the verdicts on the claims shown first (``headline`` in ``claims.yaml``) and Figure 2; then come figures and
tables by question; last what few readers look for. What a section says is made here, as data; how it looks say the jinja2
templates beside. Their order is ``SECTIONS``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from saffron import __version__
from saffron.analysis import ablations, claims, comparison, paper
from saffron.analysis.stage import ANALYSIS, CLAIMS
from saffron.analysis.view import View
from saffron.config import Config, Group, as_dict
from saffron.figures import discovery
from saffron.figures.base import Exhibit
from saffron.figures.words import COUNTED, prose, seeds
from saffron.layout import Layout
from saffron.records import RecordError, replacing
from saffron.roles import PROPOSED
from saffron.runs import provenance, publish
from saffron.runs.jobs import TEMPLATES
from saffron.table import Table

#: Versions shown; all of them are in provenance.json.
SHOWN_VERSIONS = ("python", "torch", "transformers", "peft", "numpy", "snakemake")

#: The figure beside the answers; of a config that has not got it, the first figure of its own experiments.
FIRST = "figure2"

#: What makes the results of a group of experiments.
COMMANDS: dict[Group, str] = {"replicate": "make replicate", "ablations": "make ablations", "development": "make criteria"}


@dataclass(frozen=True)
class Part:
    """A piece of a section, as the template's macro of the name ``kind`` shows it."""

    kind: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A section of the page: its anchor, its heading, and what it shows."""

    key: str
    title: str
    parts: list[Part]


def write(config: Config, layout: Layout) -> None:
    """Write ``figures/<config>/report.html`` from what is stored; what is missing is named with its command.

    Raises:
        RecordError: if the analysis is missing or stale.
    """
    view = View.of(config, layout)
    with replacing(layout.figures / "report.html") as temporary:
        temporary.write_text(render(view), "utf-8")


def environment() -> jinja2.Environment:
    """The templates; whatever is put into them is text."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, "utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.tests["numeral"] = lambda cell: cell.lstrip("-")[:1].isdigit() and len(cell) < 30
    return made


def render(view: View) -> str:
    """The whole page."""
    first = _first(view)
    return (
        environment()
        .get_template("report.html")
        .render(
            name=view.config.name,
            lead=_lead(view),
            answers=_answers(view),
            figure=None if first is None else _figure(view, first),
            sections=_sections(view, first),
        )
    )


def _first(view: View) -> Exhibit | None:
    """The figure at the top."""
    drawn = {name: exhibit for name, exhibit in discovery.exhibits(view.config, "replicate").items() if exhibit.draw is not None}
    return drawn.get(FIRST) or next((exhibit for exhibit in drawn.values() if exhibit.section == "own"), None)


def _sections(view: View, first: Exhibit | None) -> list[Section]:
    """Every section in the order of ``SECTIONS``, then those that exhibits from outside name.

    Args:
        view: of the run.
        first: the exhibit whose figure stands at the top, and is not shown again.
    """
    members: dict[str, list[Exhibit]] = {}
    for exhibit in discovery.exhibits(view.config).values():
        if exhibit.section is not None:
            members.setdefault(exhibit.section, []).append(exhibit)
    known = {key for key, _, _ in SECTIONS}
    outside = [(key, key, None) for key in sorted(members.keys() - known)]
    places = [key for key, _, _ in SECTIONS].index("untestable")
    found = []
    for key, title, own in (*SECTIONS[:places], *outside, *SECTIONS[places:]):
        parts = [*(own(view) if own else ()), *_exhibits(view, members.get(key, []), first)]
        if parts:
            found.append(Section(key.replace(" ", "-"), title, parts))
    return found


# -------------------------------------------------------------------------------------------------------------- parts
def _text(text: str) -> Part:
    return Part("text", {"text": text})


def _note(text: str) -> Part:
    return Part("note", {"text": text})


def _table(table: Table, label: str, sources: list[tuple[str, str]], *, caption: bool = True) -> Part:
    """A table, what a screen reader calls it, and the files that it comes from."""
    rows = [
        [{"text": cell, "again": cell != shown} for cell, shown in zip(row, printed, strict=True)]
        for row, printed in zip(table.rows, table.printed_rows, strict=True)
    ]
    values = {"columns": table.columns, "rows": rows, "caption": table.caption if caption else ""}
    return Part("table", values | {"label": label, "sources": sources})


def _sources(view: View, *paths: Path) -> list[tuple[str, str]]:
    """Name and link, relative to the page, of those files that are there."""
    return [(path.name, Path(os.path.relpath(path, view.layout.figures)).as_posix()) for path in paths if path.exists()]


def _analysed(view: View, name: str = ANALYSIS) -> list[tuple[str, str]]:
    """A file of the analysis, as a source."""
    return _sources(view, view.layout.analysis / name)


def _missing(what: str, command: str) -> Part:
    return Part("missing", {"what": what, "command": command})


def _figure(view: View, exhibit: Exhibit) -> Part:
    path = view.layout.figures / f"{exhibit.name}.png"
    if not path.exists():
        return _missing(path.name, f"make figure NAME={exhibit.made_by} CONFIG={view.config.name}")
    data = path.read_bytes()
    width = int.from_bytes(data[16:20], "big") * 0.68  # drawn at 200 dpi, shown a third larger than in print
    assert exhibit.caption is not None
    return Part(
        "figure",
        {
            "data": base64.b64encode(data).decode(),
            "width": f"{width:.0f}",
            "alt": exhibit.alt_text(view),
            "caption": exhibit.caption(view),
            "sources": _sources(view, path.with_suffix(".pdf"), path, view.layout.analysis / ANALYSIS),
        },
    )


def _exhibits(view: View, exhibits: Iterable[Exhibit], first: Exhibit | None) -> list[Part]:
    """Figures and tables of a section; those whose results are missing are named at its end, with the command."""
    parts: list[Part] = []
    missing: dict[tuple[str, Group], list[str]] = {}
    for exhibit in sorted(exhibits, key=lambda exhibit: (exhibit.order, exhibit.name)):
        try:
            made = [Part("heading", {"key": f"exhibit-{exhibit.name}", "text": exhibit.title, "about": exhibit.about})]
            if exhibit.draw is not None:
                shown_above = first is not None and exhibit.name == first.name
                made.append(Part("above", {}) if shown_above else _figure(view, exhibit))
            if exhibit.table is not None:
                files = _sources(view, view.layout.figures / f"{exhibit.name}.csv", view.layout.analysis / ANALYSIS)
                made.append(_table(exhibit.table(view), exhibit.title, files, caption=exhibit.draw is None))
            parts += made
        except RecordError as error:
            missing.setdefault((str(error), exhibit.group), []).append(exhibit.name)
    for (cause, group), names in missing.items():
        parts.append(_missing(f"{', '.join(names)} ({cause})", f"{COMMANDS[group]} CONFIG={view.config.name}"))
    return parts


# ----------------------------------------------------------------------------------------------------------- sections
def _lead(view: View) -> dict[str, str]:
    counts = {verdict: sum(record["verdict"] == verdict for record in view.claims) for verdict in claims.VERDICTS}
    models = (
        "the paper's models and datasets"
        if view.analysis["paper_models"]
        else "other models than the paper's, so its absolute numbers cannot be tested"
    )
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return {"models": models, "seeds": seeds(view), "verdicts": verdicts, "judges": claims.by_judges(view.claims, view.judge)}


def _answers(view: View) -> dict[str, Any]:
    """The claims shown first: of those that the run can test, statement, numbers and verdict."""
    first = paper.headlines()
    found = [record for record in view.claims if record["id"] in first and record["verdict"] != UNTESTABLE]
    rows = [_claim(record) | {"not_by": claims.not_by(record)} for record in found]
    return {"rows": rows, "of": len(first), "sources": _analysed(view, CLAIMS)}


UNTESTABLE: claims.Verdict = "not testable"


def _claim(record: dict[str, Any]) -> dict[str, Any]:
    """A claim's statement, the paper's numbers, ours, and the verdict."""
    main = [q for q in record["quantities"] if not q["name"].startswith("step/")]
    labels = claims.labels([q["name"] for q in main])
    ours = [
        {"value": claims.format_estimate(q["ours"]), "label": label if len(main) > 1 else ""}
        for q, label in zip(main, labels, strict=True)
    ]
    return {
        "source": record["source"],
        "statement": claims.statement(record),
        "cause": record["cause"],
        "paper": [claims.format_number(q["paper"]) for q in main if q["paper"] is not None],
        "ours": ours,
        "verdict": _verdict(record),
    }


def _claims(view: View) -> list[Part]:
    others = claims.other_judges(view.claims)
    rows = [
        _claim(record) | {"others": [_verdict(record["by"][judge]) if judge in record["by"] else None for judge in others]}
        for record in view.claims
        if record["verdict"] != UNTESTABLE
    ]
    if not rows:
        return []
    rule = prose(
        """Verdicts follow rules that were written down before the results they judge (data/reference/paper/claims.yaml). An
        ordering is reproduced or not reproduced when the paired 95 % interval (bootstrap over prompts, training seeds as
        clusters) excludes 0, undecided otherwise; a single training seed gives “one seed”, with what its interval says in
        parentheses. “k of n seeds”: by their own estimates k of n training seeds are on the claimed side; it decides
        nothing. “A difference of x would have been seen”: with power 0.8, from the standard error of prompts and seeds."""
    )
    columns = ("source", "claim", "paper", "ours [95 % interval]", "verdict", *(f"by {judge}" for judge in others))
    defined = view.layout.root / "data/reference/paper/claims.yaml"
    files = [*_analysed(view, CLAIMS), *_analysed(view), *_sources(view, defined)]
    values = {"columns": columns, "rows": rows, "caption": rule, "label": "Claim by claim", "sources": files}
    return [Part("claims", values)]


def _untestable(view: View) -> list[Part]:
    rows = []
    for record in view.claims:
        if record["verdict"] == UNTESTABLE:
            claim = _claim(record)
            ours = "; ".join(f"{found['value']} {found['label']}".strip() for found in claim["ours"])
            rows.append((claim["source"], claim["statement"], "; ".join(claim["paper"]) or "–", ours, str(claim["cause"])))
    if not rows:
        return []
    caption = "Ours is shown where it was measured; no verdict is given."
    table = Table(("source", "claim", "paper", "ours [95 % interval]", "why not"), tuple(rows), caption)
    return [_table(table, "Claims without a verdict", _analysed(view, CLAIMS))]


def _verdict(record: dict[str, Any]) -> dict[str, str | None]:
    """A verdict, with what it could have seen."""
    return {
        "kind": record["verdict"].replace(" ", "-"),
        "text": claims.describe(record) or record["verdict"],
        "power": claims.power(record),
    }


def _published(view: View) -> list[Part]:
    root = view.layout.root
    table, sentences = publish.beside_published(view.config, view.analysis, root)
    said = _text(" ".join(sentences))
    if table is None:
        return [said]
    name = comparison.published_beside(view.config, publish.published(root))
    files = [*_analysed(view), *_sources(view, root / publish.OURS / f"{name}.json")]
    return [said, _table(table, "This run beside the published one", files)]


def _gates(view: View) -> list[Part]:
    if "gates" not in view.analysis:
        return [_text("This config has no development split.")]
    rows = tuple(
        (gate["gate"], gate["demand"], claims.format_estimate(gate["estimate"]), "passed" if gate["passed"] else "failed")
        for gate in view.analysis["gates"]
    )
    note = "Knobs are fixed on the development split, which shares no items, families or templates with the benchmarks."
    return [_table(Table(("gate", "demand", "measured", "result"), rows, note), "Gates", _analysed(view))]


def _conventions(view: View) -> list[Part]:
    """Verdict on the central claim under either way of counting."""
    rows = []
    reference = view.study.match_rule().method
    for name, experiment in (("scaling", "first benchmark"), ("matched", "second benchmark")):
        for convention, counted in COUNTED.items():
            found = view.analysis["quantities"].get(f"matched/{name}/{convention}/{PROPOSED}-{reference}")
            budgets = view.analysis["matched"].get(name, {}).get(convention, [])
            width = next((row["budget"] for row in budgets if row["method"] == PROPOSED), "–")
            rows.append((experiment, counted, str(width), claims.format_estimate(found)))
    if all(row[3] == "–" for row in rows):
        return []
    columns = ("benchmark", "compute counted", "Saffron-1's matched width", "ASR, Saffron-1 less Best-of-32")
    note = prose(
        """Counting per model, as in the paper, makes Saffron-1 look twice as expensive against Best-of-N as it is (a
        factor of 4 against 2), so its matched width roughly halves. The slopes of the logarithmic fits and ScalEff do not
        depend on a constant factor; matched budgets and the compute ratio at equal attack success do."""
    )
    return [_table(Table(columns, tuple(rows), note), "Either way of counting compute", _analysed(view))]


def _ablations(view: View) -> list[Part]:
    own = [exhibit for exhibit in discovery.exhibits(view.config).values() if exhibit.section == "ablations"]
    if not own:
        return [_text(f"The config {view.config.name} defines no ablations.")]
    if len(view.analysis["train_seeds"]) == 1 and view.config.name == "sandbox":
        return [_missing("variance over training seeds (figures/sandbox-seeds)", "make seeds")]
    return []


def _differences(view: View) -> list[Part]:
    rows = []
    for difference in paper.differences():
        effect = difference.get("shown_by", "")
        if "quantities" in difference:
            named = [{"name": name, "ours": view.analysis["quantities"].get(name)} for name in difference["quantities"]]
            effect = f"{claims.labelled(named)} ({effect})"
        if "ablation" in difference:
            effect = ablations.effect(view.study, difference["ablation"], *difference["compare"])
        rows.append((*(str(difference[key]) for key in ("topic", "paper", "released", "followed")), effect))
    columns = ("topic", "paper", "released code and artefacts", "followed here", "effect here")
    files = [*_sources(view, view.layout.root / "data/reference/paper/differences.yaml"), *_analysed(view)]
    return [_table(Table(columns, tuple(rows)), "Differences found", files)]


def _knobs(view: View) -> list[Part]:
    values = as_dict(view.config)
    shown = {key: values[key] for key in ("search", "mrm", "safety4m", "analysis", "models", "sources")}
    text = yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=110)
    note = "Every value of this run; what each key means and what the paper says about it: config/README.md."
    files = _sources(view, view.layout.data / "config.yaml")
    return [_note(note), Part("details", {"title": "the resolved config", "text": text}), Part("sources", {"sources": files})]


def _runtimes(view: View) -> list[Part]:
    if not any(view.layout.benchmarks.glob("*/*.tsv")):
        return [_missing("wall times, which Snakemake measures", f"make replicate CONFIG={view.config.name}")]
    record = provenance.runtimes(view.config, view.layout)
    note = prose(
        """Wall time: while at least one job of the stage ran, by when its jobs' benchmark files were written (a copy of them
        has to keep their times); job time: its jobs added up; CPU time: what their processes computed, waiting left out."""
    )
    times = Table(provenance.RUNTIME_COLUMNS, tuple(provenance.runtime_cells(record)), note)
    return [_table(times, "Runtimes by stage", _sources(view, view.layout.benchmarks))]


def _provenance(view: View) -> list[Part]:
    git, hardware, versions = provenance.git(), provenance.hardware(), provenance.versions()
    found = {name.lower(): version for name, version in versions.items()}
    if git["commit"] is None:
        commit = f"none: {git['why']}; code sha256 {git['code_sha256']}"
    else:
        commit = git["commit"] + (" (with uncommitted changes)" if git["modified"] else "")
    rows = (
        ("package", f"saffron-replication {__version__}"),
        ("commit when this page was written", commit),
        ("config", f"{view.config.name}, sha256 {provenance.config_sha256(view.config)}"),
        ("seeds", ", ".join(f"{name} {value}" for name, value in provenance.seeds(view.config).items() if value is not None)),
        ("machine", f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, {hardware['system']}"),
        ("GPUs", ", ".join(hardware["gpus"]) or "none"),
        ("versions", ", ".join(f"{name} {found[name]}" for name in SHOWN_VERSIONS if name in found)),
    )
    path = view.layout.provenance.relative_to(view.layout.root).as_posix()
    inputs = Table(("file", "sha256"), tuple(view.analysis["inputs"].items()))
    return [
        _table(Table(("what", "value"), rows), "Provenance", []),
        _note(f"sha256 of every output: {path}. The files that the analysis read:"),
        Part("details", {"title": "inputs", "table": _table(inputs, "Files that the analysis read", _analysed(view)).values}),
    ]


#: Sections in the order of the page: key, heading, and what stands in it beside its exhibits (``Exhibit.section`` is the key).
SECTIONS: tuple[tuple[str, str, Callable[[View], list[Part]] | None], ...] = (
    ("own", "This config's own experiments", None),
    ("scaling", "Does attack success fall with compute? (Figures 2 and 4a, Table 3)", None),
    ("matched", "Who lets least through at equal compute? (Table 2)", None),
    ("conventions", "What if compute is counted per model?", _conventions),
    ("exploration", "What does exploration cost? (Figure 1, Table 1)", None),
    ("mrm", "How well does the multifurcation reward model predict? (Figure 4b)", None),
    ("trie", "What does the token trie save? (Figure 3)", None),
    ("variety", "How varied are the outputs? (Section 5.6)", None),
    ("overoptimisation", "Is the guard over-optimised?", None),
    ("published", "This run beside the published one", _published),
    ("claims", "Claim by claim", _claims),
    ("gates", "Gates", _gates),
    ("experiments", "Every experiment", None),
    ("ablations", "Ablations and what the paper does not measure", _ablations),
    ("untestable", "Appendix: claims that this run cannot test", _untestable),
    ("differences", "Appendix: differences between the paper and its code", _differences),
    ("knobs", "Appendix: knobs", _knobs),
    ("runtimes", "Appendix: runtimes", _runtimes),
    ("provenance", "Appendix: provenance", _provenance),
)
