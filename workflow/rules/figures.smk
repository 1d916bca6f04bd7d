# Notebooks, executed with papermill; the executed copy is a log, so that a failing cell stays readable. A page is a figure or
# table with what is read beside it; what there is, each described once, says saffron.figures.discovery.


for page, exhibits in PAGES.items():

    rule:
        name:
            f"draw_{page}"
        input:
            notebook=f"notebooks/{exhibits[0].notebook}.ipynb",
            analysis=rules.analyse.output,
            trees=LAYOUT.search_trees(SEEDS[0]),
            outputs=outputs_read(exhibits),
        output:
            made_by(exhibits),
        log:
            text=logged("figures", page),
            notebook=f"{LAYOUT.data}/logs/figures/{page}.ipynb",
        benchmark:
            timed("figures", page)
        conda:
            "../../environment.yml"
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            config=RESOLVED,
            page=page,
            job=page_made(page),
        shell:
            "saffron figures notebook {params.page} --config {params.config} > {log.text} 2>&1"


rule report:
    input:
        figures=drawn("replicate"),
        analysis=rules.analyse.output,
        trees=LAYOUT.search_trees(SEEDS[0]),
        cards=expand(rules.gather_labels.output.card, seed=SEEDS),
    output:
        LAYOUT.figures / "report.html",
    log:
        logged("figures", "report"),
    benchmark:
        timed("figures", "report")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=RESOLVED,
        job=lambda wildcards: figure_jobs.report(CONFIG).line,
    shell:
        "saffron figures report --config {params.config} > {log} 2>&1"


rule figures:
    input:
        rules.analysis.input,
        rules.report.input.figures,
        rules.report.output,


rule ablations:
    input:
        search_tables("ablations"),
        mrm_folders("ablations"),
        drawn("ablations"),
        judge_tables(stages.experiments(CONFIG, "ablations")),
        [
            LAYOUT.judgements(seed, judge.name, name)
            for seed in SEEDS
            for judge in stages.judges_apart(CONFIG)
            for name in judge.experiments
        ],
