"""Where runs stand: what to do next, from the files that are there, and a finished run in a few lines."""

from __future__ import annotations

import textwrap
from pathlib import Path

from saffron import config as configs
from saffron import workflow
from saffron.config import Config, ConfigError
from saffron.layout import Layout

HELP = "saffron --help lists the commands of the stages, make those of the project."
BEGIN = """No run yet.
  make smoke        the whole workflow, tiny, in minutes: does everything work here?
  make replicate    the sandbox (what it takes: make plan)"""

#: Width of a line of the summary.
WIDTH = 110


def results(config: Config, layout: Layout) -> dict[str, list[Path]]:
    """What shows that a stage of the replication is finished, by stage in the order in which they run."""
    seeds, experiments, judges = config.train_seeds, workflow.experiments(config), workflow.judges(config)
    return {
        "sources": [layout.sources_record, *(layout.prompts(name) for name in workflow.prompt_sets(config))],
        "models": [layout.tokenizer, *(layout.model(name, seed) for name in workflow.model_names(config) for seed in seeds)],
        "safety4m": [layout.safety4m(seed) / "labels.parquet" for seed in seeds],
        "mrm": [layout.mrm(seed, name) / "evaluation.json" for name in workflow.variants(config) for seed in seeds],
        "search": [layout.search(seed, name) for name in experiments for seed in seeds],
        "judge": [layout.judgements(seed, judge.name, name) for judge in judges for name in experiments for seed in seeds],
        "analysis": [layout.analysis / "claims.json"],
        "figures": [layout.figures / "report.html", layout.provenance],
    }


def unfinished(config: Config, layout: Layout) -> list[str]:
    """Stages that lack a result, in order. Whether results are up to date is Snakemake's to say (`snakemake -n`)."""
    return [stage for stage, paths in results(config, layout).items() if not all(path.exists() for path in paths)]


def next_steps(root: Path = Path()) -> str:
    """What to do next in a project folder: a line or two for each run, or how to begin where there is none."""
    if not (root / "Snakefile").exists():
        return f"No Snakefile in {root.resolve()}: change to the project's folder.\n{HELP}"
    runs = sorted((root / "data").glob("*/config.yaml"))
    return "\n".join([*((_next(path, root) for path in runs) if runs else (BEGIN,)), HELP])


def _next(path: Path, root: Path) -> str:
    name = path.parent.name
    shipped = (root / "config" / f"{name}.yaml").exists()
    command = f"make replicate CONFIG={name}" if shipped else f"snakemake --configfile {path.as_posix()}"
    try:
        config = configs.load(path)
    except ConfigError:
        return f"{name}: {path.as_posix()} is not valid with this version\n  {command}    runs what has changed"
    layout = Layout(name, root)
    stages, missing = len(results(config, layout)), unfinished(config, layout)
    if missing:
        stands = f"{stages - len(missing)} of {stages} stages finished, next: {missing[0]}"
        return f"{name}: {stands}\n  {command}    goes on from what is there"
    option = f"--config {path.as_posix()}"
    return (
        f"{name}: finished, {(layout.figures / 'report.html').as_posix()}\n"
        f"  saffron compare {option}    beside the published run\n"
        f"  saffron publish {option}    its numbers into data/reference/ours"
    )


def summary(config: Config, layout: Layout) -> str:
    """A finished run in a few lines: verdicts on the main claims, beside the published run, times, where the report is.

    Also writes its times (``runtimes.json``).

    Raises:
        RecordError: if the analysis is missing or stale, or no times were recorded.
    """
    from saffron.analysis import claims, paper
    from saffron.analysis.view import View
    from saffron.runs import provenance, publish

    view, first = View.of(config, layout), paper.headlines()
    found = [record for record in view.claims if record["id"] in first and record["verdict"] != "not testable"]
    width = max((len(claims.describe(record)) for record in found), default=0)
    lines = []
    for record in found:
        verdict = claims.describe(record).ljust(width)
        lines.append(f"  {verdict}  {textwrap.shorten(claims.statement(record), WIDTH - width - 4, placeholder=' …')}")
    if len(found) < len(first):
        lines.append(f"  {len(first) - len(found)} of the {len(first)} main claims cannot be tested by this run")
    table, sentences = publish.beside_published(config, view.analysis, layout.root)
    times = textwrap.fill(provenance.render_total(provenance.write_runtimes(config, layout)), WIDTH, subsequent_indent="  ")
    report = (layout.figures / "report.html").as_posix()
    beside = sentences[0] + (f" The numbers: make compare CONFIG={config.name}" if table is not None else "")
    return "\n".join(["Main claims:", *lines, beside, times, f"report: {report}"])
