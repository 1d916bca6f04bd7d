"""The ``saffron`` command: every stage as a sub-command, so that a stage also runs without Snakemake.

A command loads the config, names the paths and calls one function of its stage; nothing else happens here. Stages are
imported inside the commands: ``saffron --help`` loads neither torch nor transformers, and the thread settings below are
in the environment before those libraries read them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from saffron import config as configs
from saffron import exhausted, jobs, plugins, secrets
from saffron.config import Config, ConfigError, Group
from saffron.layout import Layout
from saffron.runs import started
from saffron.sources import files

ConfigPath = Annotated[Path, typer.Option("--config", metavar="FILE", help="Config file, for instance config/sandbox.yaml.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Root of data/ and figures/.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Training seed [default: the first of the config].")]
Shard = Annotated[int, typer.Option("--shard", min=0, help="Which of the stage's shards.")]
Variant = Annotated[str, typer.Option("--variant", help="Name in mrm.variants.")]
ExperimentName = Annotated[str, typer.Option("--experiment", help="Name in search.experiments.")]
RunKey = Annotated[
    str, typer.Option("--run", metavar="METHOD-SETTINGS", help="Run of the experiment, for instance best_of_n-default.")
]
GroupName = Annotated[Group, typer.Option("--group", help="Experiment group.")]

DEFAULT_CONFIG = Path("config/sandbox.yaml")
HERE = Path()


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
models_app = _group("Make tokenizer, policy, guard and the DeepAlign policy.")
safety4m_app = _group("Label every response prefix with the guard's reward (Safety4M).")
mrm_app = _group("Train and evaluate Saffron-1, the multifurcation reward model.")
search_app = _group("Run the search methods under attack.")
figures_app = _group("Execute the notebooks and write figures, tables and the report.")
app.add_typer(models_app, name="models")
app.add_typer(safety4m_app, name="safety4m")
app.add_typer(mrm_app, name="mrm")
app.add_typer(search_app, name="search")
app.add_typer(figures_app, name="figures")


def _open(path: Path, out: Path) -> tuple[Config, Layout]:
    """Load the config, name its paths and prepare this process for its stage."""
    config = configs.load(path)
    os.environ.update(config.runtime.environment(os.environ))
    layout = Layout(config.name, out)
    if config.runtime.dtype == "auto":
        from saffron.models import precision

        config = precision.resolved(config, layout)
    return config, layout


def _sealed(layout: Layout) -> None:
    """Refuse a finished run of which a file was damaged since."""
    from saffron.runs import seals

    seals.check(layout)


@contextlib.contextmanager
def _job(layout: Layout, stage: str, job: str) -> Iterator[None]:
    """A job of the workflow, which ends with the record of its CPU time beside Snakemake's of its wall time."""
    from saffron.runs import provenance, seals

    seals.discard(layout)
    yield
    provenance.write_usage(layout.benchmarks / stage / f"{job}.cpu.json")


@contextlib.contextmanager
def _on_device(
    config: Config, layout: Layout, stage: str, job: str, *, computes: bool = True, processes: int = 1
) -> Iterator[None]:
    """A job that holds one GPU, if the config may use one; its memory and utilisation are recorded beside the job's times.

    A job that does not compute (``computes``) needs none, one of several processes as many.

    Raises:
        ConfigError: if the config asks for a GPU and there is none.
    """
    with _job(layout, stage, job):
        if config.runtime.device == "cpu" or not computes:
            yield
            return
        from saffron.runs import gpus

        with gpus.job(layout.benchmarks / stage / f"{job}.gpu.json", processes):
            from saffron import models  # torch looks for GPUs once the job's own is the only one it can see

            models.require_device(config.runtime)
            yield


def _model_job(config: Config, layout: Layout, which: str, seed: int) -> contextlib.AbstractContextManager[None]:
    """A job that makes a model; one that is fetched, not trained, takes no GPU."""
    from saffron import workflow

    return _on_device(config, layout, "models", f"{which}.seed{seed}", computes=workflow.trained(config, which))


def _training_seed(config: Config, seed: int | None) -> int:
    if seed is None:
        return config.train_seeds[0]
    if seed not in config.train_seeds:
        raise ConfigError(f"--seed {seed} is none of the config's train_seeds {config.train_seeds}: choose one of them or add it")
    return seed


def _variant(config: Config, variant: str) -> str:
    if variant not in config.mrm.variants:
        raise ConfigError(f"--variant {variant}: mrm.variants has {', '.join(config.mrm.variants)}")
    return variant


def _shard(shard: int, shards: int) -> int:
    if shard >= shards:
        raise ConfigError(f"--shard {shard}: the stage has {shards} shard(s), counted from 0")
    return shard


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Replicate SAFFRON-1: Safety Inference Scaling. One sub-command per stage; `make replicate` runs them all.

    Without a command: what to do next, from what is there.
    """
    if context.invoked_subcommand is None:
        from saffron.runs import status

        typer.echo(status.next_steps())


# ------------------------------------------------------------------------------------------------------------ sources
@app.command()
def sources(
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
    prompts: Annotated[str | None, typer.Option("--prompts", help="Only this prompt set, which has its own source.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Only what does not have a source of its own.")] = False,
) -> None:
    """Write conversations and attack prompts."""
    settings, layout = _open(config, out)
    from saffron import workflow
    from saffron.sources import stage

    if prompts is None:
        with _job(layout, "sources", "build_sources"):
            stage.build(jobs.sources(settings), layout)
    own = [] if shared else workflow.own_prompts(settings)
    for name in own if prompts is None else [prompts]:
        with _job(layout, "sources", f"build_prompts.{name}"):
            stage.build_prompts(jobs.prompts(settings, name), layout)


# ------------------------------------------------------------------------------------------------------------- models
@models_app.command()
def tokenizer(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Make the tokenizer and its chat formats."""
    settings, layout = _open(config, out)
    with _job(layout, "models", "tokenizer"):
        from saffron.models import making

        making.tokenizer(jobs.model(settings, "tokenizer"), layout)


@models_app.command()
def policy(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Make the policy (train it in the sandbox, fetch it from the hub)."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _model_job(settings, layout, "policy", chosen):
        from saffron.models import making

        making.policy(jobs.model(settings, "policy", chosen), layout)


@models_app.command()
def guard(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Make the guard: PRM, the paper's judge and the MRM's initialisation."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _model_job(settings, layout, "guard", chosen):
        from saffron.models import making

        making.guard(jobs.model(settings, "guard", chosen), layout)


@models_app.command("other-guard")
def other_guard(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Make the sandbox's other guard, which no search reads: a judge of the ablations."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _model_job(settings, layout, "other_guard", chosen):
        from saffron.models import making

        making.other_guard(jobs.model(settings, "other_guard", chosen), layout)


@models_app.command()
def deepalign(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Make the DeepAlign policy (section 5.6)."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _model_job(settings, layout, "deepalign", chosen):
        from saffron.models import making

        making.deepalign(jobs.model(settings, "deepalign", chosen), layout)


# ----------------------------------------------------------------------------------------------------------- safety4m
@safety4m_app.command()
def label(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, shard: Shard = 0, out: Out = HERE) -> None:
    """Label one shard of the conversations."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "safety4m", f"label.seed{chosen}.shard{shard}"):
        from saffron import safety4m

        safety4m.label(jobs.label(settings, chosen), layout, _shard(shard, settings.safety4m.shards))


@safety4m_app.command("gather")
def safety4m_gather(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Join the shards; write the seen-token mask and the dataset card."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _job(layout, "safety4m", f"gather_labels.seed{chosen}"):
        from saffron import safety4m

        safety4m.gather(jobs.label(settings, chosen), layout)


# ---------------------------------------------------------------------------------------------------------------- mrm
@mrm_app.command()
def train(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, variant: Variant = "default", out: Out = HERE) -> None:
    """Train one MRM (or load the authors' release, if mrm.from says so), in mrm.processes processes."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    alone = settings.mrm.origin == "released" or "LOCAL_RANK" in os.environ  # which torchrun sets in each of its processes
    processes = 1 if alone else settings.mrm.processes
    with _on_device(settings, layout, "mrm", f"train_mrm.seed{chosen}.{variant}", processes=processes):
        if processes > 1:
            command = ["mrm", "train", "--config", str(config), "--seed", str(chosen), "--variant", variant, "--out", str(out)]
            _side_by_side(command, processes)
            return
        from saffron.mrm import training

        training.train(jobs.train(settings, chosen, _variant(settings, variant)), layout)


def _side_by_side(command: list[str], processes: int) -> None:
    """Run a command in several processes that find each other, with torchrun; ends as the first of them that fails."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    status = subprocess.run([*launch, "-m", "saffron.cli", *command]).returncode
    if status:
        raise typer.Exit(status)


@mrm_app.command()
def evaluate(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, variant: Variant = "default", out: Out = HERE) -> None:
    """Compare one MRM with the guard on held-out prefixes (Figure 4b)."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "mrm", f"evaluate_mrm.seed{chosen}.{variant}"):
        from saffron.mrm import evaluation

        evaluation.evaluate(jobs.evaluate(settings, chosen, _variant(settings, variant)), layout)


@mrm_app.command()
def export(
    released: Annotated[Path, typer.Option("--released", metavar="FOLDER", help="Where to write the release's layout.")],
    config: ConfigPath = DEFAULT_CONFIG,
    seed: Seed = None,
    variant: Variant = "default",
    out: Out = HERE,
) -> None:
    """Write a trained MRM in the layout of the authors' release."""
    settings, layout = _open(config, out)
    from saffron.mrm import release

    release.export(layout.mrm(_training_seed(settings, seed), _variant(settings, variant)), released)


# ------------------------------------------------------------------------------------------------------------- search
@search_app.command()
def run(
    experiment: ExperimentName,
    run: RunKey,
    config: ConfigPath = DEFAULT_CONFIG,
    seed: Seed = None,
    shard: Shard = 0,
    out: Out = HERE,
) -> None:
    """Search one shard of one run; finished blocks are not searched again."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "search", f"search_run.seed{chosen}.{experiment}.{run}.shard{shard}"):
        from saffron.search import runner

        runner.run(jobs.search(settings, chosen, experiment, run), layout, _shard(shard, settings.search.shards))


@search_app.command("gather")
def search_gather(experiment: ExperimentName, config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Join all runs and shards of an experiment into one table."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    from saffron import workflow
    from saffron.search.gathering import gather

    searches = workflow.gathering_searches(settings, experiment)
    with _on_device(settings, layout, "search", f"gather_search.seed{chosen}.{experiment}", computes=searches):
        gather(jobs.gather(settings, chosen, experiment), layout)


@search_app.command()
def part(
    part: Annotated[str, typer.Option("--part", metavar="MODELS", help="What the runs load, for instance policy-default.")],
    config: ConfigPath = DEFAULT_CONFIG,
    seed: Seed = None,
    group: GroupName = "replicate",
    out: Out = HERE,
) -> None:
    """Search every run of a group that loads the same models in this one process (`search.jobs: models`)."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    from saffron import workflow

    parts = workflow.search_parts(settings, group)
    if part not in parts:
        raise ConfigError(f"--part {part}: the experiment group {group} has {', '.join(parts)}")
    with _on_device(settings, layout, "search", f"search_{group}.seed{chosen}.{part}"):
        from saffron.search import runner

        runner.run_all(jobs.searches(settings, chosen, parts[part]), layout)


@search_app.command("all")
def search_all(
    config: ConfigPath = DEFAULT_CONFIG,
    seed: Seed = None,
    group: GroupName = "replicate",
    out: Out = HERE,
) -> None:
    """Search and join every experiment of a group in this one process; with `replicate`, record the trees too."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "search", f"search_{group}.seed{chosen}"):
        from saffron import workflow
        from saffron.search import runner
        from saffron.search.gathering import forget, gather
        from saffron.search.trees import trees as record_trees

        runner.run_all(jobs.searches(settings, chosen, workflow.group_runs(settings, group)), layout)
        for experiment in workflow.experiments(settings, group):
            joined = jobs.gather(settings, chosen, experiment)
            gather(joined, layout)
            forget(joined, layout)
        if group == "replicate":
            record_trees(jobs.trees(settings, chosen), layout)


@search_app.command()
def trees(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Record whole searches for Figures 1 and 3."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "search", f"record_trees.seed{chosen}"):
        from saffron.search.trees import trees as record

        record(jobs.trees(settings, chosen), layout)


# -------------------------------------------------------------------------------------------------------------- judge
@app.command()
def judge(
    name: Annotated[str, typer.Argument(metavar="JUDGE", help="Name in judges.")],
    config: ConfigPath = DEFAULT_CONFIG,
    seed: Seed = None,
    part: Annotated[
        str | None, typer.Option("--part", help="Experiments that are judged in one job [default: all that it judges].")
    ] = None,
    out: Out = HERE,
) -> None:
    """Judge stored outputs; no search is repeated."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    from saffron import workflow

    parts = workflow.judging_parts(settings, name)
    if part is not None and part not in parts:
        raise ConfigError(f"--part {part}: {name} judges {', '.join(parts)}")
    for job_name, experiments in parts.items():
        if part in (None, job_name):
            computes = bool(workflow.models_judging(settings, name))
            with _on_device(settings, layout, "judge", f"judge_{job_name}.seed{chosen}.{name}", computes=computes):
                from saffron.judges import stage

                stage.judge_all(jobs.judges(settings, chosen, name, experiments), layout)


@mrm_app.command()
def outputs(config: ConfigPath = DEFAULT_CONFIG, seed: Seed = None, out: Out = HERE) -> None:
    """Compare the MRM with the guard at every prefix of stored outputs on the development split."""
    settings, layout = _open(config, out)
    chosen = _training_seed(settings, seed)
    with _on_device(settings, layout, "mrm", f"compare_on_outputs.seed{chosen}"):
        from saffron.mrm import outputs

        outputs.compare_all(jobs.outputs(settings).config, layout, chosen)


# --------------------------------------------------------------------------------------------------- analysis, figures
@app.command()
def criteria(
    config: ConfigPath = DEFAULT_CONFIG,
    publish: Annotated[bool, typer.Option("--publish", help="Write data/reference/sandbox/<config>.json and our pages.")] = False,
    out: Out = HERE,
) -> None:
    """Check the sandbox's criteria on the development split (`make criteria` makes what this reads) and print their table."""
    settings, layout = _open(config, out)
    with _job(layout, "analysis", "criteria"):
        from saffron.analysis import criteria as stage

        record = stage.run(jobs.criteria(settings).config, layout)
    if publish:
        from saffron import pages
        from saffron.runs import publish as publisher

        publisher.publish_criteria(layout, record)
        pages.write(layout.root)
    typer.echo(stage.criteria_table(record))
    typer.echo(stage.causes_table(record))


@app.command()
def analysis(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Compute attack success, intervals, fits, matched budgets and the checks against the paper."""
    settings, layout = _open(config, out)
    with _job(layout, "analysis", "analyse"):
        from saffron.analysis import stage

        stage.run(jobs.analyse(settings).config, layout)


@figures_app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="Name of a figure or table, for instance figure2 (`saffron figures list`).")],
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
) -> None:
    """Execute the notebook that makes a figure or table; it writes what is read beside it as well."""
    settings, layout = _open(config, out)
    from saffron.figures import discovery, notebooks

    page = discovery.page_of(settings, name)
    with _job(layout, "figures", page):
        parameters = {"config": str(config), "root": str(out), "name": page}
        notebooks.execute(discovery.page(settings, page)[0].notebook, parameters, notebooks.executed_copy(layout, page))


@figures_app.command("page")
def page_of(name: Annotated[str, typer.Argument(help="Name of a figure or table.")], config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the page whose notebook makes a figure or table: its rule is draw_PAGE."""
    from saffron.figures import discovery

    typer.echo(discovery.page_of(configs.load(config), name))


@figures_app.command("list")
def list_figures(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the figures and tables of a config, by the page whose notebook makes them."""
    from saffron.figures import discovery
    from saffron.table import Table

    pages = discovery.pages(configs.load(config))
    rows = [
        (name, exhibit.name, " ".join(exhibit.suffixes), exhibit.group, exhibit.title)
        for name, page in pages.items()
        for exhibit in page
    ]
    typer.echo(Table(("page", "name", "files", "group", "what"), tuple(rows), groups=1).text())


@figures_app.command()
def check(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Check that the results the analysis was made from are still there and unchanged."""
    settings, layout = _open(config, out)
    _sealed(layout)
    from saffron.analysis.view import View

    View.of(settings, layout)


@figures_app.command()
def report(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Write the self-contained HTML report."""
    settings, layout = _open(config, out)
    with _job(layout, "figures", "report"):
        from saffron.runs import report as stage

        stage.write(settings, layout)


@figures_app.command("all")
def all_figures(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Execute every notebook, then write the report."""
    from saffron.figures import discovery

    for name in discovery.pages(configs.load(config), "replicate"):
        notebook(name, config, out)
    report(config, out)


# -------------------------------------------------------------------------------------------------- about a whole run
@app.command()
def plan(
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
    brief: Annotated[bool, typer.Option("--brief", help="One line, as a run begins; nothing once it has finished.")] = False,
) -> None:
    """Print jobs, FLOPs, hours (on GPUs, or on this CPU where the config says so), disk and memory of every stage."""
    settings, layout = _open(config, out)
    if brief:
        from saffron.runs import status

        if not status.unfinished(settings, layout):
            return  # little is left to do, if anything
    from saffron import records
    from saffron.models.shapes import ShapeError
    from saffron.runs import plan as planner

    try:
        speed = planner.measure(settings, layout) if settings.runtime.device == "cpu" else None
        if speed is not None:
            records.write_json(layout.speed, speed.as_record())
        typer.echo((planner.brief if brief else planner.render)(settings, layout, speed))
    except ShapeError as error:
        if not brief:
            raise
        typer.echo(f"not planned: {error}")


@app.command()
def validate(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Check a config and say what it would run."""
    from saffron.figures import discovery

    settings = configs.load(config)
    files.require_local(settings, models=True)
    discovery.pages(settings)  # whose names have to differ
    runs = sum(len(experiment.runs) for experiment in settings.search.experiments.values())
    typer.echo(
        f"{config}: valid; {len(settings.train_seeds)} training seed(s), "
        f"{len(settings.search.experiments)} experiments, {runs} runs"
    )


@app.command()
def power(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="EXPERIMENT/METHOD-SETTINGS/BUDGET.")],
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="What it is compared with.")],
    difference: Annotated[float, typer.Option("--difference", min=0, help="Difference of attack success to be seen.")] = 0.1,
    prompts: Annotated[int | None, typer.Option("--prompts", min=2, help="Prompts to plan for (default: those stored).")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
) -> None:
    """Print how many training seeds show a difference of attack success, from the spread of stored searches.

    For instance of development_searches/saffron-default/32 and development/best_of_n-default/32 (`make criteria`).
    """
    settings, layout = _open(config, out)
    from saffron.analysis import power as planning

    found = planning.differences(settings, layout, cell, reference)
    title = f"attack success of {cell} less that of {reference}"
    typer.echo(planning.render(found, title, prompts or found.shape[1], difference, settings.analysis.confidence))


@app.command()
def doctor() -> None:
    """Print what a report of a fault needs: versions, device, locale, paths, what is installed and what is odd; no secrets."""
    from saffron.runs import doctor as examination

    typer.echo(examination.render(examination.sections(Path(), os.environ)))


@app.command()
def pin(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the hub's current commit of every dataset and model of a config; changes nothing."""
    from saffron import hub

    typer.echo(hub.current_pins(configs.load(config)))


@app.command()
def provenance(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Write data/<config>/provenance.json: versions, commit, seeds, hardware and the sha256 of every output."""
    settings, layout = _open(config, out)
    with _job(layout, "provenance", "provenance"):
        from saffron.runs import provenance as recorder

        recorder.write(settings, layout)


@app.command()
def runtimes(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Write data/<config>/runtimes.json and print wall time and CPU time of every stage."""
    settings, layout = _open(config, out)
    from saffron.runs import provenance as recorder

    typer.echo(recorder.render_runtimes(recorder.write_runtimes(settings, layout)))


@app.command()
def summary(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Print a finished run in a few lines: verdicts on the main claims, times, where the report is."""
    settings, layout = _open(config, out)
    _sealed(layout)
    from saffron.runs import status

    typer.echo(status.summary(settings, layout))


@app.command()
def publish(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Write data/reference/ours/<config>.json from a finished run and regenerate what our pages show."""
    settings, layout = _open(config, out)
    _sealed(layout)
    from saffron import pages
    from saffron.runs import publish as publisher

    publisher.publish(settings, layout)
    pages.write(layout.root)


@app.command()
def compare(config: ConfigPath = DEFAULT_CONFIG, out: Out = HERE) -> None:
    """Print a finished run's headline numbers beside the published ones, and whether each is as expected."""
    settings, layout = _open(config, out)
    _sealed(layout)
    from saffron.analysis.view import View
    from saffron.runs import publish as publisher

    table, sentences = publisher.beside_published(settings, View.of(settings, layout).analysis, out)
    if table is not None:
        typer.echo(table.text() + "\n")
    typer.echo("\n".join(sentences))


@app.command()
def redraws(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Configs of the finished redraws (`make redraws`).")],
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
) -> None:
    """Write data/reference/ours/<config>-redraws.json: how far a run's numbers move when its seeds are kept."""
    settings, layout = _open(config, out)
    from saffron import pages
    from saffron.runs import publish as publisher

    publisher.publish_redraws(settings, layout, names)
    pages.write(layout.root)


@app.command()
def variants(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Configs of finished runs of the same prompts.")],
    config: ConfigPath = DEFAULT_CONFIG,
    out: Out = HERE,
) -> None:
    """Write data/reference/ours/<config>-variants.json: numbers and verdicts of a run beside those under other settings."""
    settings, layout = _open(config, out)
    from saffron import pages
    from saffron.runs import publish as publisher

    publisher.publish_variants(settings, layout, names)
    pages.write(layout.root)


@app.command()
def docs() -> None:
    """Regenerate the config schema, the key table of config/README.md, and numbers and pictures of our pages."""
    from saffron import pages
    from saffron.config import reference

    reference.write()
    pages.write()


def main() -> None:
    """Run the command; an error of this package, or the machine's, is one message and exit code 2, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal's encoding lacks ends no command
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    secrets.hide_in_logs()
    try:
        started.own_code(Path())
        app()
    except Exception as error:
        text = str(error) if type(error).__module__.startswith("saffron") else exhausted.explained(error)
        if text is None:
            where = plugins.outside(error)
            last = "not foreseen; please report it with what `saffron doctor` prints (CONTRIBUTING.md)"
            print(secrets.hidden(traceback.format_exc()), end="", file=sys.stderr)
            print(
                f"saffron: {last if where is None else f'the error is in code of yours: {where}; mend it there'}", file=sys.stderr
            )
            sys.exit(1)
        print(f"saffron: {secrets.hidden(text)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
