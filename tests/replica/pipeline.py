"""Every stage of a config in one process, in the order of the workflow; what each Snakemake job would call."""

from __future__ import annotations

from saffron import analysis, mrm, safety4m, sources, workflow
from saffron import models as stage_models
from saffron.config import Config
from saffron.layout import Layout
from saffron.search import runner
from saffron.search.gathering import gather
from saffron.search.trees import trees


def run(config: Config, layout: Layout) -> None:
    """Run every stage up to the analysis, without the ablations."""
    sources.build(config, layout)
    stage_models.tokenizer(config, layout)
    for seed in config.train_seeds:
        stage_models.policy(config, layout, seed)
        stage_models.guard(config, layout, seed)
        for shard in range(config.safety4m.shards):
            safety4m.label(config, layout, seed, shard)
        safety4m.gather(config, layout, seed)
        for variant in workflow.variants(config):
            mrm.train(config, layout, seed, variant)
            mrm.evaluate(config, layout, seed, variant)
        for experiment in workflow.experiments(config):
            for key in workflow.run_order(config, experiment):
                for shard in range(config.search.shards):
                    runner.run(config, layout, seed, experiment, key, shard)
            gather(config, layout, seed, experiment)
        trees(config, layout, seed)
    analysis.run(config, layout)
