# The record of a finished run: versions, commit, seeds, hardware, sha256 of every output.


rule provenance:
    input:
        rules.sources.input,
        rules.models.input,
        rules.safety4m.input,
        rules.mrm.input,
        rules.search.input,
        rules.judge.input,
        rules.analysis.input,
        rules.figures.input,
    output:
        LAYOUT.provenance,
    log:
        logged("provenance", "provenance"),
    benchmark:
        timed("provenance", "provenance")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=RESOLVED,
        job=lambda wildcards: jobs.provenance(CONFIG).line,
    shell:
        "saffron provenance --config {params.config} > {log} 2>&1"
