# Attack success, intervals, scaling fits, matched budgets and the checks against the paper.


rule analyse:
    input:
        search=rules.search.input,
        judgements=rules.judge.input,
        mrm=rules.mrm.input,
        evaluations=expand(rules.evaluate_mrm.output.table, seed=SEEDS, variant=stages.variants(CONFIG)),
        heads=expand(rules.train_mrm.output.head, seed=SEEDS, variant=stages.variants(CONFIG)),
        prompts=[LAYOUT.prompts(name) for name in stages.prompt_sets(CONFIG)],
        labels=expand(rules.gather_labels.output, seed=SEEDS),
        trained=[LAYOUT.model(which, seed) for which in stages.trained_from_hub(CONFIG) for seed in SEEDS],
        paper=[f"{REFERENCE}/{name}" for name in stages.PAPER_RECORDS],
    output:
        record=LAYOUT.analysis / "analysis.json",
        cells=LAYOUT.analysis / "cells.parquet",
        claims=LAYOUT.analysis / "claims.json",
        claims_table=LAYOUT.analysis / "claims.md",
    log:
        logged("analysis", "analyse"),
    benchmark:
        timed("analysis", "analyse")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.analyse(CONFIG).line,
    shell:
        "saffron analysis --config {params.config} > {log} 2>&1"


# What it was made from stands here too: a file that was deleted is made again only if the target asks for it.
rule analysis:
    input:
        rules.analyse.input.search,
        rules.analyse.input.judgements,
        rules.analyse.input.evaluations,
        rules.analyse.output,
