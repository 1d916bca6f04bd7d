# What the sandbox must show on its development split, before a benchmark is read (data/reference/sandbox/criteria.yaml).


rule compare_on_outputs:
    input:
        search=lambda wildcards: [LAYOUT.search(wildcards.seed, name) for name in stages.on_development(CONFIG)],
        prompts=sorted({str(LAYOUT.prompts(item.dataset)) for item in stages.on_development(CONFIG).values()}),
        tokenizer=rules.tokenizer.output,
        guard=rules.guard.output,
        merged=LAYOUT.mrm("{seed}") / "merged",
        head=LAYOUT.mrm("{seed}") / "head.safetensors",
    output:
        LAYOUT.mrm("{seed}") / "outputs.json",
    log:
        logged("mrm", "compare_on_outputs.seed{seed}"),
    benchmark:
        timed("mrm", "compare_on_outputs.seed{seed}")
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=GPU,
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.outputs(CONFIG).line,
    shell:
        "saffron mrm outputs --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


rule judge_criteria:
    input:
        search=[LAYOUT.search(seed, name) for seed in SEEDS for name in stages.before_benchmarks(CONFIG)],
        judgements=judge_tables(stages.before_benchmarks(CONFIG)),
        outputs=expand(rules.compare_on_outputs.output, seed=SEEDS),
        held_out=[LAYOUT.mrm(seed) / "evaluation.json" for seed in SEEDS],
        criteria="data/reference/sandbox/criteria.yaml",
    output:
        LAYOUT.analysis / "criteria.json",
    log:
        logged("analysis", "criteria"),
    benchmark:
        timed("analysis", "criteria")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.criteria(CONFIG).line,
    shell:
        "saffron criteria --config {params.config} > {log} 2>&1"


rule criteria:
    input:
        rules.judge_criteria.output,
