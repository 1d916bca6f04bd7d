# The whole replication: sources → models → safety4m → mrm → search → judge → analysis → figures.
# WHAT to run is a config (--configfile config/<name>.yaml), HOW to run it a profile (--workflow-profile profiles/<name>).
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

from saffron.runs import started

started.require(Path(workflow.main_snakefile).parent, sys.argv)

if not workflow.config_settings.configfiles:

    configfile: "config/sandbox.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/safety4m.smk"
include: "workflow/rules/mrm.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/criteria.smk"
include: "workflow/rules/provenance.smk"


# Every stage stands here, not only the last: a file that was deleted is made again only if the target asks for it.
rule all:
    default_target: True
    input:
        rules.sources.input,
        rules.models.input,
        rules.safety4m.input,
        rules.mrm.input,
        rules.search.input,
        rules.judge.input,
        rules.analysis.input,
        rules.figures.input,
        rules.provenance.output,
