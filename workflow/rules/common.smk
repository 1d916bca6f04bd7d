# Config, paths and helpers shared by all of these files. What each job reads, its code included: src/saffron/jobs.py
import io
import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

from saffron import config as configs
from saffron import forkserver, hub, jobs, secrets
from saffron import workflow as stages
from saffron.figures import discovery as figures
from saffron.runs import jobs as figure_jobs
from saffron.layout import Layout
from saffron.sources import files

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a character that the terminal's encoding lacks ends no run


def typed(value):
    """Values of --config as YAML reads them: Snakemake leaves every value below the top level a string."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


def checked(function, *arguments):
    """What a check of this package returns; a refusal is its one message (a WorkflowError would add frames)."""
    try:
        return function(*arguments)
    except ValueError as error:
        if not type(error).__module__.startswith("saffron."):
            raise
        print(secrets.hidden(str(error)), file=sys.stderr)
        sys.exit(2)


update_config(config, typed(workflow.config_settings.config))
CONFIG = checked(configs.parse, config, ", ".join(str(Path(path).name) for path in workflow.configfiles))
LAYOUT = Layout(CONFIG.name)
if (LAYOUT.data / ".seal.json").exists():
    from saffron.runs import seals

    checked(seals.restore_times, LAYOUT)
if CONFIG.runtime.dtype == "auto":
    from saffron.models import precision  # loads torch

    CONFIG = checked(precision.resolved, CONFIG, LAYOUT)  # here, as it is part of every job
PAGES = checked(figures.pages, CONFIG)  # figures and tables, by the notebook that makes them
RESOLVED = f"{LAYOUT.data}/config.yaml"
REFERENCE = "data/reference/paper"
SEEDS = CONFIG.train_seeds
SHARDS = range(CONFIG.search.shards)
JUDGES = [judge.name for judge in stages.judges(CONFIG)]
# A job asks for a GPU unless the config computes on the CPU; how many there are is the profile's business.
GPU = 0 if CONFIG.runtime.device == "cpu" else 1
MEM_MB, RUNTIME = stages.needs(CONFIG)


wildcard_constraints:
    seed=r"\d+",
    shard=r"\d+",
    variant=r"[a-zA-Z0-9_]+",
    experiment=r"[a-zA-Z0-9_]+",
    run=r"[a-z][a-z0-9_]*-[a-z0-9_.]+",


# Jobs find this environment's commands without activating it; waiting threads must not steal their neighbours' cores; text is
# UTF-8 whatever the locale.
# Snakemake formats the prefix: a brace in the path stands twice.
COMMANDS = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
ALWAYS = {"OMP_WAIT_POLICY": "passive", "PYTHONUTF8": "1"}
shell.prefix(
    f'set -euo pipefail; export PATH={COMMANDS}:"$PATH" {" ".join(f"{name}={value}" for name, value in ALWAYS.items())}; '
)


onstart:
    global RUN_LOCK  # a local would be gone, and the lock with it, before the first job
    from saffron.runs import locks, seals
    from saffron.records import replacing  # loads pyarrow, which a dry run can do without

    checked(files.require_local, CONFIG)
    checked(hub.require_pins, CONFIG, ", ".join(os.path.relpath(path) for path in workflow.configfiles))
    if CONFIG.mrm.origin == "released":
        from saffron.mrm import release  # loads torch

        checked(release.require_files, CONFIG.mrm)
    LAYOUT.data.mkdir(parents=True, exist_ok=True)
    # Snakemake's own lock outlives a killed run (profiles switch it off); this one goes with its process.
    try:
        RUN_LOCK = locks.acquire(LAYOUT.data / ".running")
    except locks.HeldError as error:
        print(f"{LAYOUT.data}: another run is working here ({error})", file=sys.stderr)
        sys.exit(2)
    checked(seals.check, LAYOUT)
    text = yaml.safe_dump(configs.as_dict(CONFIG), sort_keys=False)
    if not Path(RESOLVED).exists() or Path(RESOLVED).read_text("utf-8") != text:
        with replacing(RESOLVED) as temporary:
            temporary.write_text(text, "utf-8")
    # CUDA does not survive a fork, and a job of another machine finds no process of this one.
    if GPU == 0 and workflow.local_exec and (server := forkserver.start(CONFIG.runtime.environment(os.environ) | ALWAYS)):
        os.environ[forkserver.VARIABLE] = server


onsuccess:
    from saffron.runs import seals

    seals.write(LAYOUT)


def logged(stage, job):
    """Path of a job's log."""
    return f"{LAYOUT.data}/logs/{stage}/{job}.log"


def timed(stage, job):
    """Path of a job's wall time and memory."""
    return f"{LAYOUT.benchmarks}/{stage}/{job}.tsv"


def group_tables(seed, group):
    """Search tables of an experiment group, one training seed."""
    return [LAYOUT.search(seed, name) for name in stages.experiments(CONFIG, group)]


def search_tables(group):
    """Search tables of an experiment group, all training seeds."""
    return [table for seed in SEEDS for table in group_tables(seed, group)]


def mrm_folders(group):
    """What the MRM variants of an experiment group consist of, all training seeds."""
    return [
        LAYOUT.mrm(seed, variant) / part
        for seed in SEEDS
        for variant in stages.variants(CONFIG, group)
        for part in ("evaluation.json", "README.md")
    ]


def runs_of(experiment):
    """Experiment and key of an experiment's runs, in the order in which they can run."""
    return [(experiment, key) for key in stages.run_order(CONFIG, experiment)]


def references_of(runs):
    """Runs that some runs are matched to."""
    return sorted({(name, key) for name, run in runs for key in stages.references(CONFIG, name, run)})


def training_gpu(which):
    """GPUs that making a model takes: one that is fetched, not trained, needs none."""
    return GPU if stages.trained(CONFIG, which) else 0


def models_read(seed, runs, trees=False):
    """Models that some runs load, and the recorded searches with ``trees``: policies, guard and MRMs."""
    chosen = [stages.run_of(CONFIG, *run) for run in runs]
    variants = {name for run in chosen for name in stages.mrms_of(CONFIG, run)}
    folders = {which for run in chosen for which in stages.models_of(CONFIG, run)}
    if trees:
        variants, folders = {"default", *variants}, {"policy", "guard", *folders}
    return [
        LAYOUT.tokenizer,
        *(LAYOUT.model(which, seed) for which in sorted(folders)),
        *(LAYOUT.mrm(seed, variant) / part for variant in sorted(variants) for part in ("merged", "head.safetensors")),
    ]


def prompts_read(runs):
    """Prompt sets that some runs read."""
    return sorted({LAYOUT.prompts(CONFIG.search.experiments[name].dataset) for name, _ in runs})


def searches_of(runs):
    """What some runs read, one line of JSON each, as a function of the wildcards."""
    return lambda wildcards: [job.line for job in jobs.searches(CONFIG, int(wildcards.seed), runs)]


def gathers_of(group):
    """What all searches of an experiment group read, one line of JSON per experiment, as a function of the wildcards."""
    names = stages.experiments(CONFIG, group)
    return lambda wildcards: [jobs.gather(CONFIG, int(wildcards.seed), name).line for name in names]


def prompts_judged(names):
    """Prompt sets of some experiments."""
    return sorted({LAYOUT.prompts(CONFIG.search.experiments[name].dataset) for name in names})


def models_judging(judge, seed):
    """What a judge loads."""
    names = stages.models_judging(CONFIG, judge)
    return [LAYOUT.tokenizer if name == "tokenizer" else LAYOUT.model(name, seed) for name in names]


def judges_of(names, judge=None):
    """What a judge of some experiments reads, one line of JSON each, as a function of the wildcards, which may name it."""
    return lambda wildcards: [job.line for job in jobs.judges(CONFIG, int(wildcards.seed), judge or wildcards.judge, names)]


def judge_tables(names):
    """Judgements of some experiments by every judge of every table, all training seeds."""
    return [LAYOUT.judgements(seed, judge, name) for seed in SEEDS for judge in JUDGES for name in names]


def prompts_of(wildcards):
    """The prompt set of an experiment."""
    return LAYOUT.prompts(CONFIG.search.experiments[wildcards.experiment].dataset)


def made_by(exhibits):
    """Files of some figures and tables."""
    return [path for exhibit in exhibits for path in exhibit.files(LAYOUT)]


def page_made(page):
    """What the notebook of a page reads, one line of JSON, as a function of the wildcards."""
    return lambda wildcards: figure_jobs.notebook(CONFIG, page).line


def drawn(group):
    """Files of all figures and tables of an experiment group."""
    return [path for exhibits in PAGES.values() if exhibits[0].group == group for path in made_by(exhibits)]


def outputs_read(exhibits):
    """What some figures and tables read beside the analysis: stored outputs, and what every judge says of them."""
    names = sorted({name for exhibit in exhibits for name in exhibit.outputs(CONFIG)})
    apart = [
        LAYOUT.judgements(seed, judge.name, name)
        for seed in SEEDS
        for judge in stages.judges_apart(CONFIG)
        for name in names
        if name in judge.experiments
    ]
    return [LAYOUT.search(seed, name) for seed in SEEDS for name in names] + judge_tables(names) + apart
