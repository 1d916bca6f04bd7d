# Outputs of every method, budget, dataset and seed. One job is one shard of one run, all runs of a training seed that load
# the same models, or all its searches (search.jobs), as starting a process costs more than a small search. Finished blocks
# are never searched again.

if CONFIG.search.jobs == "runs":

    rule search_run:
        input:
            prompts=prompts_of,
            models=lambda wildcards: models_read(wildcards.seed, [(wildcards.experiment, wildcards.run)]),
            reference=lambda wildcards: [
                LAYOUT.search_run(wildcards.seed, *run, shard)
                for run in references_of([(wildcards.experiment, wildcards.run)])
                for shard in SHARDS
            ],
        output:
            LAYOUT.search_run("{seed}", "{experiment}", "{run}", "{shard}"),
        log:
            logged("search", "search_run.seed{seed}.{experiment}.{run}.shard{shard}"),
        benchmark:
            timed("search", "search_run.seed{seed}.{experiment}.{run}.shard{shard}")
        priority: 5  # before the evaluation of the MRM, which only the analysis waits for
        conda:
            "../../environment.yml"
        threads: CONFIG.runtime.torch_threads
        resources:
            gpu=GPU,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            job=lambda wildcards: jobs.search(CONFIG, int(wildcards.seed), wildcards.experiment, wildcards.run).line,
        shell:
            "saffron search run --config {params.config} --seed {wildcards.seed} --experiment {wildcards.experiment}"
            " --run {wildcards.run} --shard {wildcards.shard} > {log} 2>&1"

elif CONFIG.search.jobs == "models":

    for group in stages.GROUPS:
        for part, runs in stages.search_parts(CONFIG, group).items():

            rule:
                name:
                    f"search_{group}_{part}".replace("-", "_")
                input:
                    prompts=prompts_read(runs),
                    models=models_read("{seed}", runs),
                    reference=[LAYOUT.search_run("{seed}", *run, shard) for run in references_of(runs) for shard in SHARDS],
                output:
                    [LAYOUT.search_run("{seed}", *run, shard) for run in runs for shard in SHARDS],
                log:
                    logged("search", f"search_{group}.seed{{seed}}.{part}"),
                benchmark:
                    timed("search", f"search_{group}.seed{{seed}}.{part}")
                priority: 5  # before the evaluation of the MRM, which only the analysis waits for
                conda:
                    "../../environment.yml"
                threads: CONFIG.runtime.torch_threads
                resources:
                    gpu=GPU,
                    mem_mb=MEM_MB,
                    runtime=RUNTIME,
                params:
                    config=RESOLVED,
                    group=group,
                    part=part,
                    job=searches_of(runs),
                shell:
                    "saffron search part --config {params.config} --seed {wildcards.seed} --group {params.group}"
                    " --part {params.part} > {log} 2>&1"


if CONFIG.search.jobs != "seeds":

    rule gather_search:
        input:
            runs=lambda wildcards: [
                LAYOUT.search_run(wildcards.seed, *run, shard) for run in runs_of(wildcards.experiment) for shard in SHARDS
            ],
            prompts=prompts_of,
            models=lambda wildcards: models_read(wildcards.seed, runs_of(wildcards.experiment)),
        output:
            LAYOUT.search("{seed}", "{experiment}"),
        log:
            logged("search", "gather_search.seed{seed}.{experiment}"),
        benchmark:
            timed("search", "gather_search.seed{seed}.{experiment}")
        conda:
            "../../environment.yml"
        resources:
            gpu=lambda wildcards: GPU if stages.gathering_searches(CONFIG, wildcards.experiment) else 0,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            job=lambda wildcards: jobs.gather(CONFIG, int(wildcards.seed), wildcards.experiment).line,
        shell:
            "saffron search gather --config {params.config} --seed {wildcards.seed} --experiment {wildcards.experiment} > {log} 2>&1"

    rule record_trees:
        input:
            prompts=lambda wildcards: LAYOUT.prompts(stages.recorded_prompts(CONFIG)),
            models=lambda wildcards: models_read(wildcards.seed, [], trees=True),
        output:
            LAYOUT.search_trees("{seed}"),
        log:
            logged("search", "record_trees.seed{seed}"),
        benchmark:
            timed("search", "record_trees.seed{seed}")
        conda:
            "../../environment.yml"
        threads: CONFIG.runtime.torch_threads
        resources:
            gpu=GPU,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            job=lambda wildcards: jobs.trees(CONFIG, int(wildcards.seed)).line,
        shell:
            "saffron search trees --config {params.config} --seed {wildcards.seed} > {log} 2>&1"

else:

    rule search_replicate:
        input:
            prompts=prompts_read(stages.group_runs(CONFIG, "replicate")),
            recorded=LAYOUT.prompts(stages.recorded_prompts(CONFIG)),
            models=models_read("{seed}", stages.group_runs(CONFIG, "replicate"), trees=True),
        output:
            tables=group_tables("{seed}", "replicate"),
            trees=LAYOUT.search_trees("{seed}"),
        log:
            logged("search", "search_replicate.seed{seed}"),
        benchmark:
            timed("search", "search_replicate.seed{seed}")
        priority: 5  # before the evaluation of the MRM, which only the analysis waits for
        conda:
            "../../environment.yml"
        threads: CONFIG.runtime.torch_threads
        resources:
            gpu=GPU,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            job=gathers_of("replicate"),
            trees=lambda wildcards: jobs.trees(CONFIG, int(wildcards.seed)).line,
        shell:
            "saffron search all --config {params.config} --seed {wildcards.seed} --group replicate > {log} 2>&1"

    for group in stages.GROUPS[1:]:
        if stages.experiments(CONFIG, group):

            rule:
                name:
                    f"search_{group}"
                input:
                    prompts=prompts_read(stages.group_runs(CONFIG, group)),
                    models=models_read("{seed}", stages.group_runs(CONFIG, group)),
                output:
                    group_tables("{seed}", group),
                log:
                    logged("search", f"search_{group}.seed{{seed}}"),
                benchmark:
                    timed("search", f"search_{group}.seed{{seed}}")
                conda:
                    "../../environment.yml"
                threads: CONFIG.runtime.torch_threads
                resources:
                    gpu=GPU,
                    mem_mb=MEM_MB,
                    runtime=RUNTIME,
                params:
                    config=RESOLVED,
                    group=group,
                    job=gathers_of(group),
                shell:
                    "saffron search all --config {params.config} --seed {wildcards.seed} --group {params.group} > {log} 2>&1"


rule search:
    input:
        search_tables("replicate"),
        [LAYOUT.search_trees(seed) for seed in SEEDS],
