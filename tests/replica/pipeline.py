"""Every stage of a config in one process, in the order of the workflow; what each Snakemake job would call."""

from __future__ import annotations

from saffron import jobs, safety4m, workflow
from saffron.analysis import stage as analysis
from saffron.config import Config
from saffron.judges import stage as judging
from saffron.layout import Layout
from saffron.models import making
from saffron.mrm import evaluation, training
from saffron.search import runner
from saffron.search.gathering import gather
from saffron.search.trees import trees
from saffron.sources import stage


def run(config: Config, layout: Layout) -> None:
    """Run every stage up to the analysis, without the ablations."""
    stage.build(jobs.sources(config), layout)
    for name in workflow.own_prompts(config):
        stage.build_prompts(jobs.prompts(config, name), layout)
    making.tokenizer(jobs.model(config, "tokenizer"), layout)
    for seed in config.train_seeds:
        making.policy(jobs.model(config, "policy", seed), layout)
        making.guard(jobs.model(config, "guard", seed), layout)
        for shard in range(config.safety4m.shards):
            safety4m.label(jobs.label(config, seed), layout, shard)
        safety4m.gather(jobs.label(config, seed), layout)
        for variant in workflow.variants(config):
            training.train(jobs.train(config, seed, variant), layout)
            evaluation.evaluate(jobs.evaluate(config, seed, variant), layout)
        runner.run_all(jobs.searches(config, seed, workflow.group_runs(config, "replicate")), layout)
        for experiment in workflow.experiments(config):
            gather(jobs.gather(config, seed, experiment), layout)
        trees(jobs.trees(config, seed), layout)
        for judge in workflow.judges(config):
            judging.judge_all(jobs.judges(config, seed, judge.name, workflow.experiments(config)), layout)
    analysis.run(jobs.analyse(config).config, layout)
