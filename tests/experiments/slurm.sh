#!/usr/bin/env bash
# A SLURM of one node on loopback, in one folder: `slurm.sh start DIR` and `slurm.sh stop DIR`, as root.
# Afterwards SLURM_CONF=DIR/slurm.conf is all that sbatch, squeue and scontrol need. No cgroups, no accounting.
set -euo pipefail
action=$1 dir=$2
daemons=(slurmctld slurmd munged)

stop() {
  for name in "${daemons[@]}"; do
    [ -s "$dir/$name.pid" ] && kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
  done
  for _ in $(seq 50); do
    alive=0
    for name in "${daemons[@]}"; do
      [ -s "$dir/$name.pid" ] && kill -0 "$(cat "$dir/$name.pid")" 2>/dev/null && alive=1
    done
    [ "$alive" = 0 ] && return
    sleep 0.1
  done
  for name in "${daemons[@]}"; do
    [ -s "$dir/$name.pid" ] && kill -9 "$(cat "$dir/$name.pid")" 2>/dev/null || true
  done
}

# Daemons that kept our output open would keep whoever reads it waiting.
daemon() { "$@" >> "$dir/start.log" 2>&1 < /dev/null; }

start() {
  local host ctld_port slurmd_port
  host=$(hostname -s)
  mkdir -p "$dir/state" "$dir/spool"
  chmod 755 "$dir"
  read -r ctld_port slurmd_port < <(python3 -I -c '
import socket
taken = [socket.socket() for _ in range(2)]
for one in taken: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in taken))')
  cat > "$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=100000
ReturnToService=2
KillWait=20
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  head -c 1024 /dev/urandom > "$dir/munge.key"
  chmod 400 "$dir/munge.key"
  daemon munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
  export SLURM_CONF="$dir/slurm.conf"
  daemon slurmctld
  daemon slurmd
  for _ in $(seq 100); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && return
    sleep 0.2
  done
  echo "error: the node does not become idle: $(sinfo -h -o '%T %E' 2>&1); $(tail -n 3 "$dir/slurmd.log")" >&2
  stop
  exit 1
}

"$action"
