// What a launcher's environment says about the process that it started, before any MPI library is loaded.

/** A launcher's place for this process. */
export interface Launch {
  /** In words, for messages. */
  launcher: string;
  rank: number;
  size: number;
}

/** By the variables with rank and number of ranks. Open MPI's set PMIx's, too, and Slurm's are there under any launcher. */
const LAUNCHERS = [
  ["Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
  ["Hydra (MPICH's mpiexec)", "PMI_RANK", "PMI_SIZE"],
  ["srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
] as const;

/** Undefined where no launcher that is known has started this process. */
export function launchOf(environment: Readonly<Record<string, string | undefined>>): Launch | undefined {
  for (const [launcher, rankName, sizeName] of LAUNCHERS) {
    const [rank, size] = [Number(environment[rankName] ?? Number.NaN), Number(environment[sizeName] ?? Number.NaN)];
    if (Number.isSafeInteger(rank) && Number.isSafeInteger(size) && size > 0) return { launcher, rank, size };
  }
  return undefined;
}
