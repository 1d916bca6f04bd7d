# Saffron-1, the multifurcation reward model: the guard with LoRA and an lm_head bias, trained on Safety4M.


rule train_mrm:
    input:
        labels=rules.gather_labels.output.labels,
        mask=rules.gather_labels.output.mask,
        tokenizer=rules.tokenizer.output,
        guard=rules.guard.output,
    output:
        adapter=directory(LAYOUT.mrm("{seed}", "{variant}") / "adapter"),
        merged=directory(LAYOUT.mrm("{seed}", "{variant}") / "merged"),
        head=LAYOUT.mrm("{seed}", "{variant}") / "head.safetensors",
    log:
        logged("mrm", "train_mrm.seed{seed}.{variant}"),
    benchmark:
        timed("mrm", "train_mrm.seed{seed}.{variant}")
    priority: 10  # everything else waits for this chain
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads * CONFIG.mrm.processes
    resources:
        gpu=GPU * CONFIG.mrm.processes,
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.train(CONFIG, int(wildcards.seed), wildcards.variant).line,
    shell:
        "saffron mrm train --config {params.config} --seed {wildcards.seed} --variant {wildcards.variant} > {log} 2>&1"


rule evaluate_mrm:
    input:
        labels=rules.gather_labels.output.labels,
        tokenizer=rules.tokenizer.output,
        mrm=rules.train_mrm.output,
    output:
        table=LAYOUT.mrm("{seed}", "{variant}") / "evaluation.parquet",
        record=LAYOUT.mrm("{seed}", "{variant}") / "evaluation.json",
        readme=LAYOUT.mrm("{seed}", "{variant}") / "README.md",
    log:
        logged("mrm", "evaluate_mrm.seed{seed}.{variant}"),
    benchmark:
        timed("mrm", "evaluate_mrm.seed{seed}.{variant}")
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=GPU,
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.evaluate(CONFIG, int(wildcards.seed), wildcards.variant).line,
    shell:
        "saffron mrm evaluate --config {params.config} --seed {wildcards.seed} --variant {wildcards.variant} > {log} 2>&1"


rule mrm:
    input:
        mrm_folders("replicate"),
