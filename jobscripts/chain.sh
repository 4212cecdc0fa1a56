#!/bin/bash
# For sites that do not requeue: N jobs of the same run, one after the other. Those that find it done end at once.
#
#     jobscripts/chain.sh INPUT DIR N [SBATCH-OPTION…]
#
# As many jobs as the run may need; resources are those of run.sbatch, unless given here (--time=04:00:00). `touch
# DIR/stop` ends the run with a checkpoint, and then the jobs that are left.
set -eu
usage='usage: chain.sh INPUT DIR N [SBATCH-OPTION…]'
input=${1:?$usage} dir=${2:?$usage} jobs=${3:?$usage}
shift 3
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "chain.sh: N must be a number from 1 on, found '$jobs'" >&2; exit 2; }

script=$(dirname "$(readlink -f "$0")")/run.sbatch
export EIGENTRAIN_REQUEUE=0
previous=''
for ((i = 1; i <= jobs; i++)); do
    # afterany: the run is to go on whichever way the job before it has ended.
    job=$(sbatch --parsable --no-requeue ${previous:+--dependency=afterany:$previous} "$@" "$script" "$input" "$dir")
    previous=${job%%;*}
    echo "$previous"
done
