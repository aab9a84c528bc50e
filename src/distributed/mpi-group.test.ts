// What a group of ranks does over the MPI library that is installed. Skipped where there is none.

import { describe, expect, it } from "vitest";
import { isInstalled, runRanks, WITHOUT_MPI } from "../../test/support/mpi-program.js";

/** Every rank prints one line with what it got. */
const PROGRAM = `
import { joinMpi } from "./dist/distributed/index.js";
const ranks = await joinMpi();
const short = Float32Array.of(ranks.rank + 1, 0.5);
const long = new Float32Array(300_000).fill(ranks.rank + 1);
await Promise.all([ranks.sum(short), ranks.sum(long)]);
const texts = await ranks.gather("r".repeat(ranks.rank + 1) + "é");
const bytes = await ranks.broadcast(ranks.rank === 0 ? Uint8Array.of(7, 8, 9) : undefined);
await ranks.barrier();
const line = [ranks.rank, ranks.size, ranks.hosts.length, [...short], long.every((v) => v === short[0]), texts, [...bytes]];
process.stdout.write(JSON.stringify(line) + " " + ranks.connection + "\\n");
await ranks.leave();
`;

const HAS_MPI = isInstalled("Open MPI");

describe.skipIf(!HAS_MPI)(HAS_MPI ? "ranks over MPI" : `ranks over MPI: ${WITHOUT_MPI}`, () => {
  it.each([1, 2, 3])("sums, gathers and broadcasts among %i ranks", async (size) => {
    const { code, output } = await runRanks(size, ["--input-type=module", "--eval", PROGRAM]);
    expect(code, output).toBe(0);
    const lines = output.split("\n").filter((line) => line.startsWith("["));
    const sum = (size * (size + 1)) / 2;
    const texts = Array.from({ length: size }, (_, rank) => `${"r".repeat(rank + 1)}é`);
    const expected = Array.from({ length: size }, (_, rank) =>
      JSON.stringify([rank, size, size, [sum, size / 2], true, texts, [7, 8, 9]]),
    );
    expect(lines.map((line) => line.slice(0, line.lastIndexOf("]") + 1)).sort()).toEqual(expected);
    expect(lines[0]).toMatch(/\] Open MPI v\d/);
  });
});
