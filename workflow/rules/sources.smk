# Conversations and attack prompts, from the sandbox world or from the hub.


rule build_sources:
    output:
        conversations=LAYOUT.conversations,
        prompts=[LAYOUT.prompts(name) for name in stages.prompt_sets(CONFIG)],
        corpus=stages.corpora(CONFIG, LAYOUT),
        record=LAYOUT.sources_record,
    log:
        logged("sources", "build_sources"),
    benchmark:
        timed("sources", "build_sources")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.sources(CONFIG).line,
    shell:
        "saffron sources --config {params.config} > {log} 2>&1"


rule sources:
    input:
        rules.build_sources.output,
