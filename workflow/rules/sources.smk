# Conversations and prompt sets. A set with a source of its own is a job of its own, so that one more runs nothing else again.


rule build_sources:
    output:
        conversations=LAYOUT.conversations,
        prompts=[LAYOUT.prompts(name) for name in stages.prompt_sets(CONFIG) if name not in stages.own_prompts(CONFIG)],
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
        "saffron sources --config {params.config} --shared > {log} 2>&1"


rule build_prompts:
    output:
        table=LAYOUT.prompts("{own}"),
        record=LAYOUT.prompts_record("{own}"),
    log:
        logged("sources", "build_prompts.{own}"),
    benchmark:
        timed("sources", "build_prompts.{own}")
    wildcard_constraints:
        own="|".join(stages.own_prompts(CONFIG)) or "(?!)",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.prompts(CONFIG, wildcards.own).line,
    shell:
        "saffron sources --config {params.config} --prompts {wildcards.own} > {log} 2>&1"


rule sources:
    input:
        rules.build_sources.output,
        expand(rules.build_prompts.output, own=stages.own_prompts(CONFIG)),
