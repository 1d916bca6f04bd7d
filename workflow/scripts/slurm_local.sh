#!/bin/bash
# A real Slurm on this one machine, to try the cluster profile without a cluster. Needs Debian's slurm-wlm and munge, and root.
#   slurm_local.sh up FOLDER      start it; its configuration, state and logs stay in FOLDER (a new or empty one)
#   slurm_local.sh down FOLDER    end what `up` started, and nothing else
#   slurm_local.sh verify FOLDER  up; the smoke workflow whole, then once more with a running job cancelled; down
# After `up`: export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH
set -euo pipefail

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}
[ $# -eq 2 ] || usage
mkdir -p "$2"
state=$(realpath "$2")
export SLURM_CONF=$state/slurm.conf

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

configure() {
    local node cpus memory
    node=$(hostname -s) cpus=$(nproc) memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$state"/{controller,spool,logs}
    dd if=/dev/urandom of="$state/munge.key" bs=1024 count=1 status=none
    chmod 600 "$state/munge.key"
    cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/logs/slurmctld.log
SlurmdLogFile=$state/logs/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES DefMemPerCPU=500 MaxTime=INFINITE State=UP
CONF
    # Snakemake's jobs call srun with a cleaned environment; this one still finds the configuration.
    mkdir -p "$state/bin"
    printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$state/bin/srun"
    chmod 755 "$state/bin/srun"
    # Two devices that exist everywhere stand in for GPUs: Slurm hands them out like real ones.
    printf 'Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n' >"$state/gres.conf"
}

up() {
    for program in munged slurmctld slurmd; do
        if ! command -v "$program" >/dev/null; then
            echo "$program not found: apt-get install slurm-wlm munge" >&2
            exit 2
        fi
    done
    if [ -e "$SLURM_CONF" ]; then
        echo "$state holds a Slurm already: name a new folder, or run '$0 down $state' and delete it" >&2
        exit 2
    fi
    configure
    munged --force --key-file="$state/munge.key" --socket="$state/munge.socket" --pid-file="$state/munged.pid" \
        --log-file="$state/logs/munged.log" --seed-file="$state/munge.seed"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF" -N "$(hostname -s)"
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
            echo "Slurm is up: export SLURM_CONF=$SLURM_CONF PATH=$state/bin:\$PATH"
            return
        fi
        sleep 1
    done
    echo "the node did not become idle; see $state/logs" >&2
    exit 1
}

down() {
    local name pid
    if [ -e "$SLURM_CONF" ] && [ -e "$state/slurmctld.pid" ]; then
        # By id: a controller that answers for another cluster would list other jobs, this one lists its own.
        squeue --noheader --format=%A | xargs --no-run-if-empty scancel || true
        for _ in $(seq 40); do
            [ -n "$(squeue --noheader 2>/dev/null)" ] || break
            sleep 1
        done
    fi
    for name in slurmd slurmctld munged; do
        pid=$(cat "$state/$name.pid" 2>/dev/null || true)
        # A number can have passed to another process: only one that was started with this folder is ended.
        if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$state"; then
            kill "$pid"
            for _ in $(seq 30); do
                [ -d "/proc/$pid" ] || break
                sleep 0.5
            done
        fi
    done
    echo "Slurm in $state is down"
}

# `workflow exec` takes the place of the shell that calls it, so that its process id is snakemake's.
workflow() {
    ${1:-} snakemake --workflow-profile profiles/slurm --configfile config/smoke.yaml --latency-wait 5 \
        --slurm-status-command squeue --slurm-no-account --slurm-init-seconds-before-status-checks 1 \
        --set-resources search_replicate:gpu=1 label:gpu=1 train_mrm:gpu=1
}

# One line per job: id, rule, state, elapsed time, GPUs.
states() {
    squeue --states=all --noheader --sort=i --Format='jobid:8,comment:50,state:12,timeused:8,tres-per-job:20'
}

# End the second run if it is under way: snakemake first tries to cancel its jobs, which may take a while.
stop() {
    [ -n "${run:-}" ] || return 0
    kill "$run" 2>/dev/null || true
    for _ in $(seq 30); do
        kill -0 "$run" 2>/dev/null || return 0
        sleep 1
    done
    kill -KILL "$run" 2>/dev/null || true
}

verify() {
    local table=$state/jobs.txt before victim=''
    run=''
    trap 'stop; down' EXIT
    up
    export PATH="$state/bin:$PATH"
    rm -rf data/smoke figures/smoke
    workflow 2>&1 | tee "$state/first.log"
    { echo "# whole"; states; } >"$table"
    before=$(squeue --states=all --noheader --format=%A | sort -n | tail -1)

    rm -rf data/smoke figures/smoke
    workflow exec >"$state/second.log" 2>&1 &
    run=$!
    while [ -z "$victim" ] && kill -0 "$run" 2>/dev/null; do
        # The first policy or search job of this run that is running.
        victim=$(squeue --states=RUNNING --noheader --format='%A %k' | awk -v before="$before" '$1 > before && /policy|search/ {print $1; exit}')
        sleep 0.5
    done
    if [ -n "$victim" ]; then
        scancel "$victim"
    fi
    wait "$run"
    run=''
    { echo "# job ${victim:-none} cancelled while it ran"; states | awk -v before="$before" '$1 > before'; } >>"$table"
    cat "$table"
    if [ -z "$victim" ] || [ ! -e figures/smoke/report.html ]; then
        echo "no job could be cancelled, or the second run did not reach the report; see $state/second.log" >&2
        exit 1
    fi
    echo "both runs reached the report"
}

case $1 in
    up) up ;;
    down) down ;;
    verify) verify ;;
    *) usage ;;
esac
