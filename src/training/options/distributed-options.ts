// How the processes of one training find each other. No part of what is trained: a resumed run may have others.

import { choice, number } from "./option.js";

/** Part of `TRAIN_OPTIONS`. */
export const DISTRIBUTED_OPTIONS = {
  distributed: choice("divide every batch among the processes that mpirun or srun started (docs/distributed.md)", [
    "mpi",
  ]),
  distributedTimeout: number(
    "with --distributed: seconds without a sign of life after which a process counts as hung",
    {
      min: 1,
    },
  ).withDefault(30),
};
