# Tokenizer, policy, guard and the DeepAlign policy: trained in the sandbox; otherwise fetched, or made of what was fetched.
# Chat formats are written with the tokenizer. A model is a folder as save_pretrained leaves it.


rule tokenizer:
    input:
        corpus=stages.corpora(CONFIG, LAYOUT),
        conversations=LAYOUT.conversations,
        formats=f"{REFERENCE}/chat_formats.json",
    output:
        directory(LAYOUT.tokenizer),
    log:
        logged("models", "tokenizer"),
    benchmark:
        timed("models", "tokenizer")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.model(CONFIG, "tokenizer").line,
    shell:
        "saffron models tokenizer --config {params.config} > {log} 2>&1"


rule policy:
    input:
        learnt=stages.learns_from(CONFIG, LAYOUT, "policy"),
        tokenizer=rules.tokenizer.output,
    output:
        directory(LAYOUT.model("policy", "{seed}")),
    log:
        logged("models", "policy.seed{seed}"),
    benchmark:
        timed("models", "policy.seed{seed}")
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=training_gpu("policy"),
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.model(CONFIG, "policy", int(wildcards.seed)).line,
    shell:
        "saffron models policy --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


rule guard:
    input:
        learnt=stages.learns_from(CONFIG, LAYOUT, "guard"),
        tokenizer=rules.tokenizer.output,
    output:
        directory(LAYOUT.model("guard", "{seed}")),
    log:
        logged("models", "guard.seed{seed}"),
    benchmark:
        timed("models", "guard.seed{seed}")
    priority: 10  # everything else waits for this chain
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=training_gpu("guard"),
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.model(CONFIG, "guard", int(wildcards.seed)).line,
    shell:
        "saffron models guard --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


# Another guard, trained alike from another seed: a judge that no search reads (ablations).
rule other_guard:
    input:
        learnt=stages.learns_from(CONFIG, LAYOUT, "other_guard"),
        tokenizer=rules.tokenizer.output,
    output:
        directory(LAYOUT.model("other_guard", "{seed}")),
    log:
        logged("models", "other_guard.seed{seed}"),
    benchmark:
        timed("models", "other_guard.seed{seed}")
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=training_gpu("other_guard"),
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.model(CONFIG, "other_guard", int(wildcards.seed)).line,
    shell:
        "saffron models other-guard --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


rule deepalign:
    input:
        corpus=stages.corpora(CONFIG, LAYOUT),
        tokenizer=rules.tokenizer.output,
        policy=rules.policy.output,
    output:
        directory(LAYOUT.model("deepalign", "{seed}")),
    log:
        logged("models", "deepalign.seed{seed}"),
    benchmark:
        timed("models", "deepalign.seed{seed}")
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=training_gpu("deepalign"),
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.model(CONFIG, "deepalign", int(wildcards.seed)).line,
    shell:
        "saffron models deepalign --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


rule models:
    input:
        rules.tokenizer.output,
        expand(LAYOUT.model("{which}", "{seed}"), which=stages.model_names(CONFIG), seed=SEEDS),
