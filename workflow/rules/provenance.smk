# The record of a finished run: versions, commit, seeds, hardware, sha256 of every output.


rule provenance:
    input:
        rules.sources.input,
        rules.models.input,
        rules.safety4m.input,
        rules.mrm.input,
        rules.search.input,
        rules.analysis.input,
        rules.figures.input,
        code=stages.modules("provenance"),
    output:
        LAYOUT.provenance,
    params:
        config=RESOLVED,
        reads=stages.whole_config(CONFIG),
    log:
        logged("provenance", "provenance"),
    benchmark:
        timed("provenance", "provenance")
    resources:
        mem_mb=2000,
        runtime=30,
    conda:
        "../../environment.yml"
    shell:
        "saffron provenance --config {params.config} > {log} 2>&1"
