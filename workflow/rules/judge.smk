# What judges say of stored outputs, one table per judge and experiment; no search is repeated. One job is one judge on a group
# of experiments (workflow.judging_parts).

for part, names in stages.judging_parts(CONFIG).items():

    rule:
        name:
            f"judge_{part}"
        input:
            search=[LAYOUT.search("{seed}", name) for name in names],
            prompts=prompts_judged(names),
            models=lambda wildcards: models_judging(wildcards.judge, wildcards.seed),
        output:
            [LAYOUT.judgements("{seed}", "{judge}", name) for name in names],
        log:
            logged("judge", f"judge_{part}.seed{{seed}}.{{judge}}"),
        benchmark:
            timed("judge", f"judge_{part}.seed{{seed}}.{{judge}}")
        wildcard_constraints:
            judge="|".join(JUDGES),
        conda:
            "../../environment.yml"
        threads: CONFIG.runtime.torch_threads
        resources:
            gpu=lambda wildcards: GPU if stages.models_judging(CONFIG, wildcards.judge) else 0,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            part=part,
            job=judges_of(names),
        shell:
            "saffron judge {wildcards.judge} --config {params.config} --seed {wildcards.seed} --part {params.part} > {log} 2>&1"


# Judges and measurements of some experiments alone (ablations).
for judge in stages.judges_apart(CONFIG):

    rule:
        name:
            f"judge_{stages.APART}_{judge.name}"
        input:
            search=[LAYOUT.search("{seed}", name) for name in judge.experiments],
            prompts=prompts_judged(judge.experiments),
            models=models_judging(judge.name, "{seed}"),
        output:
            [LAYOUT.judgements("{seed}", judge.name, name) for name in judge.experiments],
        log:
            logged("judge", f"judge_{stages.APART}.seed{{seed}}.{judge.name}"),
        benchmark:
            timed("judge", f"judge_{stages.APART}.seed{{seed}}.{judge.name}")
        conda:
            "../../environment.yml"
        threads: CONFIG.runtime.torch_threads
        resources:
            gpu=GPU if stages.models_judging(CONFIG, judge.name) else 0,
            mem_mb=MEM_MB,
            runtime=RUNTIME,
        params:
            config=RESOLVED,
            judge=judge.name,
            part=stages.APART,
            job=judges_of(judge.experiments, judge.name),
        shell:
            "saffron judge {params.judge} --config {params.config} --seed {wildcards.seed} --part {params.part} > {log} 2>&1"


rule judge:
    input:
        judge_tables(stages.experiments(CONFIG)),
