# Notebooks, executed with papermill; the executed copy is a log, so that a failing cell stays readable. Some draw a second
# figure beside their own (compute counted per model, ScalEff against its limit), which the report shows too.


rule figure:
    input:
        notebook="notebooks/{figure}.ipynb",
        analysis=rules.analyse.output,
        trees=LAYOUT.search_trees(SEEDS[0]),
    output:
        pdf=LAYOUT.figures / "{figure}.pdf",
        png=report(
            LAYOUT.figures / "{figure}.png", caption="../report/figure.rst", category="Figures", labels={"figure": "{figure}"}
        ),
    log:
        text=logged("figures", "{figure}"),
        notebook=f"{LAYOUT.data}/logs/figures/{{figure}}.ipynb",
    benchmark:
        timed("figures", "{figure}")
    wildcard_constraints:
        figure="|".join(stages.FIGURES),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.notebook(CONFIG, wildcards.figure).line,
    shell:
        "saffron figures notebook {wildcards.figure} --config {params.config} > {log.text} 2>&1"


# One notebook per ablation, named as in analysis.ablations.
use rule figure as ablation with:
    input:
        notebook="notebooks/{figure}.ipynb",
        analysis=rules.analyse.output,
        search=lambda wildcards: [LAYOUT.search(seed, CONFIG.analysis.ablations[wildcards.figure].experiment) for seed in SEEDS],
        judgements=lambda wildcards: judge_tables([CONFIG.analysis.ablations[wildcards.figure].experiment]),
    wildcard_constraints:
        figure=r"ablation_[a-z0-9_]+",
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.notebook(CONFIG, wildcards.figure).line,


rule table:
    input:
        notebook="notebooks/{table}.ipynb",
        analysis=rules.analyse.output,
    output:
        csv=report(LAYOUT.figures / "{table}.csv", caption="../report/table.rst", category="Tables", labels={"table": "{table}"}),
        md=LAYOUT.figures / "{table}.md",
        tex=LAYOUT.figures / "{table}.tex",
    log:
        text=logged("figures", "{table}"),
        notebook=f"{LAYOUT.data}/logs/figures/{{table}}.ipynb",
    benchmark:
        timed("figures", "{table}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.notebook(CONFIG, wildcards.table).line,
    shell:
        "saffron figures notebook {wildcards.table} --config {params.config} > {log.text} 2>&1"


rule report:
    input:
        figures=expand(rules.figure.output, figure=stages.shown(CONFIG, stages.FIGURES)),
        tables=expand(rules.table.output, table=stages.shown(CONFIG, stages.TABLES)),
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
        job=lambda wildcards: jobs.report(CONFIG).line,
    shell:
        "saffron figures report --config {params.config} > {log} 2>&1"


rule figures:
    input:
        rules.analysis.input,
        rules.report.input.figures,
        rules.report.input.tables,
        rules.report.output,


rule ablations:
    input:
        search_tables("ablations"),
        mrm_folders("ablations"),
        expand(rules.ablation.output, figure=stages.ablation_notebooks(CONFIG)),
        judge_tables(stages.experiments(CONFIG, "ablations")),
        [
            LAYOUT.judgements(seed, judge.name, name)
            for seed in SEEDS
            for judge in stages.judges_apart(CONFIG)
            for name in judge.experiments
        ],
