#!/bin/bash
# Copy this file, fill in the two lines marked <...>, and submit it from the project's folder: sbatch slurm_submit.sh paper
# It runs snakemake as one small, long job, which submits the real jobs and goes on from what is finished when sent again.
# Account and partition of the real jobs stand in profiles/slurm/config.yaml.
#SBATCH --job-name=saffron
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=3-00:00:00
#SBATCH --output=saffron-%j.log
##SBATCH --account=<account>
##SBATCH --partition=<partition for long CPU jobs>
set -euo pipefail

config=${1:-paper}
if [ ! -e "config/$config.yaml" ]; then
    echo "config/$config.yaml: no such config; submit from the project's folder" >&2
    exit 2
fi
export PATH="$PWD/.venv/bin:$PATH"
# A controller inside a job must not pass its own allocation on to the jobs it submits; where Slurm's own settings lie it must.
for name in "${!SLURM_@}" "${!SBATCH_@}"; do
    [ "$name" = SLURM_CONF ] || unset "$name"
done
exec snakemake --workflow-profile profiles/slurm --configfile "config/$config.yaml"
