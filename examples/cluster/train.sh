#!/usr/bin/env bash
# A training on the hosts of a file, by Open MPI's mpirun over ssh. From the project's folder, which every host has at the same path:
#   HOSTS=hosts.txt RANKS=4 examples/cluster/train.sh --model MODEL --data photos --output runs/photos --batch-size 8
# hosts.txt: one line per host, "node-a slots=1". Without HOSTS all ranks run on this machine. A training that is there goes on.
set -euo pipefail
ranks=${RANKS:-2}
output=
words=("$@")
for ((i = 0; i < ${#words[@]} - 1; i++)); do [ "${words[i]}" != --output ] || output=${words[i + 1]}; done
[ -n "$output" ] || { echo "train.sh: give --output FOLDER" >&2; exit 2; }
resume=()
[ ! -e "$output/run.json" ] || resume=(--resume)
# One rank per host gets all its processors: nothing is bound.
exec mpirun -n "$ranks" ${HOSTS:+--hostfile "$HOSTS" --map-by node} --bind-to none \
  ${FERA_MPI_LIBRARY:+-x FERA_MPI_LIBRARY} \
  npx fera train "$@" "${resume[@]}" --distributed mpi
