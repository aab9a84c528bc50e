import { expect, it } from "vitest";
import { launchOf } from "./launch.js";

it.each([
  [{ OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "4", SLURM_PROCID: "0" }, "Open MPI's mpirun", 1, 4],
  [{ PMI_RANK: "0", PMI_SIZE: "2" }, "Hydra (MPICH's mpiexec)", 0, 2],
  [{ SLURM_PROCID: "3", SLURM_STEP_NUM_TASKS: "8" }, "srun", 3, 8],
])("a launcher is told by what it sets: %o", (environment, launcher, rank, size) => {
  expect(launchOf(environment)).toEqual({ launcher, rank, size });
});

it("a process that was started by hand has no launcher", () => {
  expect(launchOf({ PATH: "/bin", OMPI_COMM_WORLD_RANK: "1" })).toBeUndefined();
});
