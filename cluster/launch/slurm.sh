#!/usr/bin/env bash
# A sweep as a Slurm job: sbatch slurm.sh. Ended before its time, or sent back to the queue, it goes on from the store.
#SBATCH --job-name=<<NAME>>
#SBATCH --nodes=<<MACHINES>>
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=<<CPUS>>
#SBATCH --mem=<<MEMORY>>G
<<GPU_DIRECTIVE>>
#SBATCH --time=<<TIME>>
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

export PATH=<<ENVIRONMENT>>/bin:$PATH
export SWEEPS_STORE=<<STORE>>
export RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
# Others work on these machines: whoever reaches a Ray without a token can run anything as you.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"

# Ports of this job's own, above those of Ray's workers (10002 to 19999): two jobs may share a machine.
base=$((20000 + SLURM_JOB_ID % 4000 * 10))
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${hosts[0]}"
others=("${hosts[@]:1}")
ray=(ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

# One step for the head and one for all others, each ended with this script, and with it what it started.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  "${ray[@]}" --head --port="$base" --dashboard-host=127.0.0.1 --dashboard-port=$((base + 1)) \
  --dashboard-agent-listen-port=$((base + 2)) --ray-client-server-port=$((base + 3)) \
  --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
steps=($!)
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT
for _ in $(seq 180); do
  ray health-check --address "$head:$base" > /dev/null 2>&1 && break
  sleep 1
done
if [ "${#others[@]}" -gt 0 ]; then
  srun --overlap --nodes="${#others[@]}" --ntasks="${#others[@]}" --nodelist="$(IFS=,; echo "${others[*]}")" \
    "${ray[@]}" --address="$head:$base" --dashboard-agent-listen-port=$((base + 4)) \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID-others" &
  steps+=($!)
fi

# The sweep counts the machines that are there, and uses those that come later as they come.
cd <<PROJECT>>
RAY_ADDRESS="$head:$base" <<COMMAND>>
