# Safety4M: the guard's reward of every response prefix, in shards of conversations that run independently.


rule label:
    input:
        conversations=LAYOUT.conversations,
        tokenizer=rules.tokenizer.output,
        models=[LAYOUT.model(which, "{seed}") for which in stages.models_labelling(CONFIG)],
    output:
        LAYOUT.safety4m_shard("{seed}", "{shard}"),
    log:
        logged("safety4m", "label.seed{seed}.shard{shard}"),
    benchmark:
        timed("safety4m", "label.seed{seed}.shard{shard}")
    priority: 10  # everything else waits for this chain
    conda:
        "../../environment.yml"
    threads: CONFIG.runtime.torch_threads
    resources:
        gpu=GPU,
        mem_mb=MEM_MB,
        runtime=RUNTIME,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.label(CONFIG, int(wildcards.seed)).line,
    shell:
        "saffron safety4m label --config {params.config} --seed {wildcards.seed} --shard {wildcards.shard} > {log} 2>&1"


rule gather_labels:
    input:
        shards=expand(rules.label.output, shard=range(CONFIG.safety4m.shards), allow_missing=True),
        conversations=LAYOUT.conversations,
        record=LAYOUT.sources_record,
        tokenizer=rules.tokenizer.output,
    output:
        labels=LAYOUT.safety4m("{seed}") / "labels.parquet",
        mask=LAYOUT.safety4m("{seed}") / "unseen_mask.safetensors",
        card=LAYOUT.safety4m("{seed}") / "card.json",
        readme=LAYOUT.safety4m("{seed}") / "README.md",
    log:
        logged("safety4m", "gather_labels.seed{seed}"),
    benchmark:
        timed("safety4m", "gather_labels.seed{seed}")
    priority: 10  # everything else waits for this chain
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.label(CONFIG, int(wildcards.seed)).line,
    shell:
        "saffron safety4m gather --config {params.config} --seed {wildcards.seed} > {log} 2>&1"


rule safety4m:
    input:
        expand(rules.gather_labels.output, seed=SEEDS),
