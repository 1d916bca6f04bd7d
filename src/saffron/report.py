"""The HTML report: one self-contained file that opens offline, claims first."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import yaml

from saffron import __version__, captions, provenance, publish, tables
from saffron.analysis import ablations, claims, paper
from saffron.analysis.view import View
from saffron.config import Config, as_dict
from saffron.layout import Layout
from saffron.records import RecordError, replacing
from saffron.tables import Table

#: Sections of figures and tables: title, names of figures, names of tables.
PAGES = (
    ("Scaling (Figures 2 and 4a, Table 3)", ("figure2", "figure2_per_model", "figure4a"), ("table3",)),
    ("Matched compute (Table 2)", (), ("table2",)),
    ("Exploration against efficiency (Figure 1, Table 1)", ("figure1", "scaleff"), ("table1",)),
    ("The token trie, shared or not (Figure 3)", ("figure3", "sharing"), ()),
    ("The multifurcation reward model (Figure 4b)", ("figure4b",), ("mrm_in_search",)),
    ("Variety of outputs (Section 5.6)", (), ("section56",)),
    ("Over-optimisation of the guard", ("overoptimisation",), ()),
)

#: Notebook that draws each figure whose name is not its own.
DRAWN_BY = {"figure2_per_model": "figure2", "scaleff": "table1", "sharing": "figure3"}

#: Versions shown; all of them are in provenance.json.
SHOWN_VERSIONS = ("python", "torch", "transformers", "peft", "numpy", "snakemake")

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 1080px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { margin-top: 2.6rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
.lead, .caption { color: #444; } .caption { font-size: .88rem; margin: .3rem 0 1.2rem; }
.value { white-space: nowrap; }
.note { color: #666; font-size: .76rem; }
nav { font-size: .9rem; } nav a { margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .84rem; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .28rem .55rem; border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #888; } td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
.badge { display: inline-block; padding: .05rem .5rem; border-radius: .7rem; color: white;
  font-size: .8rem; white-space: nowrap; }
.reproduced { background: #1b7837; } .not-reproduced { background: #b2182b; } .undecided { background: #8a6d00; }
.one-seed { background: #3b6ea5; } .not-testable { background: #6b6b6b; }
.missing { background: #fff6dd; border-left: 4px solid #d9a400; padding: .4rem .8rem; }
code, pre { font-size: .84rem; background: #f4f4f4; } code { padding: .05rem .25rem; } pre { padding: .7rem; overflow-x: auto; }
"""


def write(config: Config, layout: Layout) -> None:
    """Write ``figures/<config>/report.html`` from what is stored; what is missing is named with its command.

    Raises:
        RecordError: if the analysis is missing or stale.
    """
    view = View.of(config, layout)
    with replacing(layout.figures / "report.html") as temporary:
        temporary.write_text(render(view))


def render(view: View) -> str:
    """The whole page."""
    sections = [
        ("Claim by claim", _claims(view)),
        ("This run beside the published one", _published(view)),
        ("Gates", _gates(view)),
    ]
    sections += [(title, _page(view, figures, names)) for title, figures, names in PAGES]
    sections += [
        ("What counting compute per model changes", _conventions(view)),
        ("Ablations and what the paper does not measure", _ablations(view)),
        ("Differences found", _differences(view)),
        ("Knobs", _knobs(view)),
        ("Runtimes", _runtimes(view)),
        ("Provenance", _provenance(view)),
    ]
    links = " ".join(f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(sections))
    body = "".join(f'<h2 id="s{i}">{escape(title)}</h2>\n{content}\n' for i, (title, content) in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Saffron Replication: {escape(view.config.name)}</title><style>{STYLE}</style></head>
<body><h1>Saffron Replication</h1>
<p class="lead">{_lead(view)}</p><nav>{links}</nav>
{body}</body></html>
"""


# ----------------------------------------------------------------------------------------------------------- elements
def _lead(view: View) -> str:
    seeds = ", ".join(map(str, view.analysis["train_seeds"]))
    counts = {verdict: sum(record["verdict"] == verdict for record in view.claims) for verdict in claims.VERDICTS}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    models = (
        "the paper's models and datasets"
        if view.analysis["paper_models"]
        else "other models than the paper's, so its absolute numbers cannot be tested"
    )
    return (
        "SAFFRON-1: Safety Inference Scaling (arXiv 2506.06444), replicated with the config "
        f"<code>{escape(view.config.name)}</code>: {models}. Training seeds {seeds}. Claims: {escape(summary)}."
    )


def _badge(verdict: str, text: str | None = None) -> str:
    return f'<span class="badge {verdict.replace(" ", "-")}">{escape(text or verdict)}</span>'


def _html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False) -> str:
    """A table; cells are escaped unless they are HTML already."""

    def cell(text: str) -> str:
        number = ' class="number"' if text.lstrip("-")[:1].isdigit() and len(text) < 30 else ""
        return f"<td{number}>{text if raw else escape(text)}</td>"

    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(cell(text) for text in row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _table(table: Table) -> str:
    return _html_table(table.columns, table.printed_rows) + f'<p class="caption">{escape(table.caption)}</p>'


def _missing(what: str, command: str) -> str:
    return f'<p class="missing">Missing: {escape(what)}. Command: <code>{escape(command)}</code></p>'


def _figure(view: View, name: str) -> str:
    path = view.layout.figures / f"{name}.png"
    if not path.exists():
        return _missing(path.name, f"make figure NAME={DRAWN_BY.get(name, name)} CONFIG={view.config.name}")
    data = base64.b64encode(path.read_bytes()).decode()
    caption = captions.CAPTIONS[name](view)
    width = int.from_bytes(path.read_bytes()[16:20], "big") * 0.68  # drawn at 200 dpi, shown a third larger than in print
    return (
        f'<figure><img width="{width:.0f}" alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f'<figcaption class="caption">{escape(caption)}</figcaption></figure>'
    )


# ----------------------------------------------------------------------------------------------------------- sections
def _claims(view: View) -> str:
    rows, others = [], claims.other_judges(view.claims)
    for record in view.claims:
        main = [q for q in record["quantities"] if not q["name"].startswith("step/")]
        theirs = "<br>".join(claims.format_number(q["paper"]) for q in main if q["paper"] is not None) or "–"
        labels = claims.labels([q["name"] for q in main])
        ours = "<br>".join(_labelled(q["ours"], label, len(main)) for q, label in zip(main, labels, strict=True))
        verdicts = [_verdict(record["by"][judge]) if judge in record["by"] else "–" for judge in others]
        cause = f'<br><span class="note">{escape(record["cause"])}</span>' if record["cause"] else ""
        statement = escape(claims.statement(record)) + cause
        rows.append((escape(record["source"]), statement, theirs, ours, _verdict(record), *verdicts))
    rule = captions.prose(
        """Verdicts follow rules that were written down before the results they judge (data/reference/paper/claims.yaml). An
        ordering is reproduced or not reproduced when the paired 95 % interval (bootstrap over prompts, training seeds as
        clusters) excludes 0, undecided otherwise; a single training seed gives “one seed”, with what its interval says in
        parentheses. “k of n seeds”: by their own estimates k of n training seeds are on the claimed side; it decides
        nothing. “A difference of x would have been seen”: with power 0.8, from the standard error of prompts and seeds."""
    )
    columns = ("source", "claim", "paper", "ours [95 % interval]", "verdict", *(f"by {judge}" for judge in others))
    return _html_table(columns, rows, raw=True) + f'<p class="caption">{rule}</p>'


def _verdict(record: dict[str, Any]) -> str:
    """A verdict's badge, with what it could have seen below it."""
    badge, seen = _badge(record["verdict"], claims.describe(record)), claims.power(record)
    return f'{badge}<br><span class="note">{escape(seen)}</span>' if seen else badge


def _labelled(estimate: dict[str, Any] | None, label: str, of: int) -> str:
    """An estimate, with what it is where a claim has several."""
    note = f' <span class="note">{escape(label)}</span>' if of > 1 else ""
    return f'<span class="value">{escape(claims.format_estimate(estimate))}</span>{note}'


def _published(view: View) -> str:
    table, sentences = publish.beside_published(view.config, view.analysis, view.layout.root)
    return f"<p>{escape(' '.join(sentences))}</p>" + ("" if table is None else _table(table))


def _gates(view: View) -> str:
    if "gates" not in view.analysis:
        return "<p>This config has no development split.</p>"
    rows = [
        (gate["gate"], gate["demand"], claims.format_estimate(gate["estimate"]), "passed" if gate["passed"] else "failed")
        for gate in view.analysis["gates"]
    ]
    note = "Knobs are fixed on the development split, which shares no items, families or templates with the benchmarks."
    return _html_table(("gate", "demand", "measured", "result"), rows) + f'<p class="caption">{note}</p>'


def _page(view: View, figures: Sequence[str], names: Sequence[str]) -> str:
    parts = [_figure(view, name) for name in figures]
    for name in names:
        try:
            parts.append(_table(tables.TABLES[name](view)))
            if name == "section56":
                parts.append(_table(tables.side_by_side(view)))
        except RecordError as error:
            parts.append(_missing(str(error), f"make replicate CONFIG={view.config.name}"))
    return "\n".join(parts)


def _conventions(view: View) -> str:
    """Verdict on the central claim under either way of counting, and the compute ratios."""
    rows = []
    for name, experiment in (("scaling", "first benchmark"), ("matched", "second benchmark")):
        for convention, counted in tables.COUNTED.items():
            found = view.analysis["quantities"].get(f"matched/{name}/{convention}/saffron-best_of_n")
            budgets = view.analysis["matched"].get(name, {}).get(convention, [])
            width = next((row["budget"] for row in budgets if row["method"] == "saffron"), "–")
            rows.append((experiment, counted, width, claims.format_estimate(found)))
    columns = ("benchmark", "compute counted", "Saffron-1's matched width", "ASR, Saffron-1 less Best-of-32")
    parts = [_html_table(columns, rows)]
    note = captions.prose(
        """Counting per model, as in the paper, makes Saffron-1 look twice as expensive against Best-of-N as it is (a
        factor of 4 against 2), so its matched width roughly halves. The slopes of the logarithmic fits and ScalEff do not
        depend on a constant factor; matched budgets and the compute ratio at equal attack success do."""
    )
    parts.append(f'<p class="caption">{note}</p>')
    if "saffron" in view.analysis.get("curves", {}).get(view.judge, {}):
        parts.append(_table(tables.largest_budgets(view)))
    if view.analysis.get("equal_asr"):
        parts.append(_table(tables.compute_ratios(view)))
        for convention, counted in tables.COUNTED.items():
            table = tables.equal_asr(view, convention)
            parts.append(_table(Table(table.columns, table.rows, f"{table.caption} Compute counted {counted}.")))
    return "\n".join(parts)


def _ablations(view: View) -> str:
    parts = []
    missing: dict[str, list[str]] = {}
    for name, make in tables.beyond_replication(view.config).items():
        try:
            table = make(view)
        except RecordError as error:
            missing.setdefault(str(error), []).append(name)
        else:
            figure = [_figure(view, name)] if name in captions.CAPTIONS else []
            parts += [*figure, _table(table) if not figure else _html_table(table.columns, table.printed_rows)]
    for cause, names in missing.items():
        parts.append(_missing(f"{', '.join(names)} ({cause})", f"make ablations CONFIG={view.config.name}"))
    if len(view.analysis["train_seeds"]) > 1:
        parts.append(_table(tables.seed_variance(view)))
    if not parts:
        parts.append(f"<p>The config {escape(view.config.name)} defines no ablations.</p>")
    if len(view.analysis["train_seeds"]) == 1 and view.config.name == "sandbox":
        parts.append(_missing("variance over training seeds (figures/sandbox-seeds)", "make seeds"))
    return "\n".join(parts)


def _differences(view: View) -> str:
    rows = []
    for difference in paper.differences():
        effect = difference.get("shown_by", "")
        if "quantities" in difference:
            named = [{"name": name, "ours": view.analysis["quantities"].get(name)} for name in difference["quantities"]]
            effect = f"{claims.labelled(named)} ({effect})"
        if "ablation" in difference:
            effect = ablations.effect(view.study, difference["ablation"], *difference["compare"])
        rows.append((*(str(difference[key]) for key in ("topic", "paper", "released", "followed")), effect))
    return _html_table(("topic", "paper", "released code and artefacts", "followed here", "effect here"), rows)


def _knobs(view: View) -> str:
    values = as_dict(view.config)
    shown = {key: values[key] for key in ("search", "mrm", "safety4m", "analysis", "models", "sources")}
    text = yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=110)
    note = "Every value of this run; what each key means and what the paper says about it: config/README.md."
    return f'<p class="caption">{note}</p><details><summary>the resolved config</summary><pre>{escape(text)}</pre></details>'


def _runtimes(view: View) -> str:
    if not any(view.layout.benchmarks.glob("*/*.tsv")):
        return _missing("wall times, which Snakemake measures", f"make replicate CONFIG={view.config.name}")
    record = provenance.runtimes(view.config, view.layout)
    note = captions.prose(
        """Wall time: while at least one job of the stage ran, by when its jobs' benchmark files were written (a copy of them
        has to keep their times); job time: its jobs added up; CPU time: what their processes computed, waiting left out."""
    )
    table = _html_table(provenance.RUNTIME_COLUMNS, provenance.runtime_cells(record))
    return f'{table}<p class="caption">{note}</p>'


def _provenance(view: View) -> str:
    git, hardware, versions = provenance.git(), provenance.hardware(), provenance.versions()
    found = {name.lower(): version for name, version in versions.items()}
    commit = "none" if git["commit"] is None else git["commit"] + (" (with uncommitted changes)" if git["modified"] else "")
    rows = [
        ("package", f"saffron-replication {__version__}"),
        ("commit when this page was written", commit),
        ("config", f"{view.config.name}, sha256 {provenance.config_sha256(view.config)}"),
        ("seeds", ", ".join(f"{name} {value}" for name, value in provenance.seeds(view.config).items() if value is not None)),
        ("machine", f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, {hardware['system']}"),
        ("GPUs", ", ".join(hardware["gpus"]) or "none"),
        ("versions", ", ".join(f"{name} {found[name]}" for name in SHOWN_VERSIONS if name in found)),
    ]
    inputs = [(name, digest) for name, digest in view.analysis["inputs"].items()]
    listing = _html_table(("file", "sha256"), inputs)
    path = view.layout.provenance.relative_to(view.layout.root).as_posix()
    note = f"sha256 of every output: {path}. The files that the analysis read:"
    return (
        _html_table(("", ""), rows)
        + f'<p class="caption">{escape(note)}</p><details><summary>inputs</summary>{listing}</details>'
    )
