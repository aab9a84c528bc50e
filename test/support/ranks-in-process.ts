// Ranks that are parts of one process: what a group promises, without MPI.

import type { RankGroup } from "../../src/distributed/index.js";

/** A call that waits for all ranks. */
interface Meeting {
  given: unknown[];
  met: Promise<unknown[]>;
  open: (given: unknown[]) => void;
}

/** Groups of `size` ranks, on the hosts that are named. */
export function ranksInProcess(size: number, hosts: readonly string[] = Array(size).fill("here")): RankGroup[] {
  const meetings: Meeting[] = [];
  const calls = Array<number>(size).fill(0);
  /** What every rank gave to its n-th call. */
  const meet = (rank: number, given: unknown): Promise<unknown[]> => {
    const number = calls[rank]!++;
    if (!meetings[number]) {
      let open = (_: unknown[]): void => {};
      const met = new Promise<unknown[]>((resolve) => {
        open = resolve;
      });
      meetings[number] = { given: [], met, open };
    }
    const { given: all, met, open } = meetings[number];
    all[rank] = given;
    if (all.filter((one) => one !== undefined).length === size) open(all);
    return met;
  };
  return Array.from({ length: size }, (_, rank) => ({
    ...{ rank, size, hosts, connection: "one process" },
    async sum(values) {
      const all = (await meet(rank, values.slice())) as Float32Array[];
      values.set(all.reduce((sum, other) => sum.map((value, i) => Math.fround(value + other[i]!))));
    },
    broadcast: async (bytes = new Uint8Array()) => ((await meet(rank, bytes)) as Uint8Array[])[0]!.slice(),
    gather: async (text) => (await meet(rank, text)) as string[],
    barrier: async () => void (await meet(rank, true)),
    leave: async () => void (await meet(rank, true)),
    expectEnd() {},
    abort(exitCode) {
      throw new Error(`rank ${rank} ends all with ${exitCode}`);
    },
  }));
}
