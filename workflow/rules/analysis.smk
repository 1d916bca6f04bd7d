# Attack success, intervals, scaling fits, matched budgets and the checks against the paper.


rule analyse:
    input:
        search=rules.search.input,
        mrm=rules.mrm.input,
        tables=[LAYOUT.mrm(seed) / "evaluation.parquet" for seed in SEEDS],
        prompts=rules.build_sources.output.prompts,
        cards=expand(rules.gather_labels.output.card, seed=SEEDS),
        paper=[f"{REFERENCE}/{name}" for name in stages.PAPER_RECORDS],
        code=stages.modules("analysis"),
    output:
        directory(LAYOUT.analysis),
    params:
        config=RESOLVED,
        reads=stages.analysis_slice(CONFIG),
    log:
        logged("analysis", "analyse"),
    benchmark:
        timed("analysis", "analyse")
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../environment.yml"
    shell:
        "saffron analysis --config {params.config} > {log} 2>&1"


rule analysis:
    input:
        rules.analyse.output,
