// Ranks that MPI connects. All calls are made on this thread and return at once; what takes time is polled between other work
// of the event loop, so that signals are heard, and a rank that gives no sign any more is noticed.

import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ConfigError, RuntimeError } from "../errors.js";
import { type Launch, launchOf } from "./launch.js";
import { check, isDone, isFixed, memory, TEXT_BYTES } from "./mpi-calls.js";
import { LIBRARY_VARIABLE, loadMpiLibrary, type MpiLibrary } from "./mpi-library.js";
import { type MpiOptions, Pulse } from "./mpi-pulse.js";
import type { RankGroup } from "./rank-group.js";

/** MPI_THREAD_FUNNELED: calls come from one thread of a process that has several. */
const FUNNELED = 1;
/** What one turn of the event loop polls at most. */
const BURST_MS = 0.5;
/** After so long without an end, a wait for other ranks leaves the processor to them. */
const PATIENCE_MS = 10;
/** Largest count of one call, below that of an int. */
const LARGEST_COUNT = 2 ** 29;
/** In which the others hear that all end. */
const LAST_WORDS_MS = 300;
/** MPI_Abort may wait for a launcher that is waiting itself. */
const ABORT_LIMIT_MS = 2000;

/**
 * Joins the ranks that a launcher started: `mpirun -n 4 node train.js`. Once in a process.
 *
 * @throws {ConfigError} If there is no MPI library, or it is not the launcher's.
 * @throws {RuntimeError} If MPI fails to start.
 */
export async function joinMpi(options: MpiOptions = {}): Promise<RankGroup> {
  const launch = launchOf(process.env);
  const mpi = await loadMpiLibrary(launch);
  const level = memory(Int32Array, 1);
  check(mpi, "MPI_Init_thread", mpi.calls.MPI_Init_thread(null, null, FUNNELED, level));
  check(mpi, "MPI_Comm_set_errhandler", mpi.calls.MPI_Comm_set_errhandler(mpi.world, mpi.errorsReturn));
  const number = (name: "MPI_Comm_rank" | "MPI_Comm_size"): number => {
    const result = memory(Int32Array, 1);
    check(mpi, name, mpi.calls[name](mpi.world, result));
    return result[0]!;
  };
  const [rank, size] = [number("MPI_Comm_rank"), number("MPI_Comm_size")];
  if (launch && launch.size !== size) {
    mpi.calls.MPI_Finalize();
    throw new ConfigError(mismatch(launch, mpi, size));
  }
  return MpiGroup.join(mpi, rank, size, options);
}

const mismatch = ({ launcher, size }: Launch, { version }: MpiLibrary, found: number): string =>
  `--distributed mpi: ${launcher} started ${size} processes, but ${version} sees ${found}: the launcher is of another MPI. ` +
  `Start with the mpirun of that library, or name the launcher's library in ${LIBRARY_VARIABLE}. (srun: --mpi=pmix for ` +
  "Open MPI, --mpi=pmi2 for MPICH.)";

/** Calls that are under way, one at a time: ranks must make them in the same order. */
class MpiGroup implements RankGroup {
  hosts: readonly string[] = [];
  private last: Promise<unknown> = Promise.resolve();
  private pulse: Pulse | undefined;
  private hasLeft = false;
  private isEnding = false;

  private constructor(
    private readonly mpi: MpiLibrary,
    readonly rank: number,
    readonly size: number,
  ) {}

  static async join(mpi: MpiLibrary, rank: number, size: number, options: MpiOptions): Promise<MpiGroup> {
    const group = new MpiGroup(mpi, rank, size);
    const [name, length] = [memory(Uint8Array, TEXT_BYTES), memory(Int32Array, 1)];
    check(mpi, "MPI_Get_processor_name", mpi.calls.MPI_Get_processor_name(name, length));
    group.hosts = await group.gather(new TextDecoder().decode(name.subarray(0, length[0])));
    if (size > 1) group.pulse = new Pulse(mpi, group, options);
    return group;
  }

  get connection(): string {
    return this.mpi.version;
  }

  sum(values: Float32Array): Promise<void> {
    const { mpi } = this;
    return this.inTurn(async () => {
      if (this.size === 1) return;
      await this.meet();
      // Memory of V8's own heap, which only short arrays lie in, may move.
      const fixed = isFixed(values) ? values : memory(Float32Array, values.length);
      if (fixed !== values) fixed.set(values);
      for (let start = 0; start < fixed.length; start += LARGEST_COUNT) {
        const part = fixed.subarray(start, start + LARGEST_COUNT);
        const { inPlace, float, sumOperation, world } = mpi;
        await this.done("MPI_Iallreduce", (request) =>
          mpi.calls.MPI_Iallreduce(inPlace, part, part.length, float, sumOperation, world, request),
        );
      }
      if (fixed !== values) values.set(fixed);
    });
  }

  broadcast(bytes: Uint8Array = new Uint8Array()): Promise<Uint8Array> {
    return this.inTurn(async () => {
      if (this.size === 1) return bytes;
      await this.meet();
      const length = memory(Float64Array, 1);
      length[0] = bytes.length;
      await this.sendFromFirst(bytesOf(length));
      const sent = memory(Uint8Array, length[0]);
      if (this.rank === 0) sent.set(bytes);
      for (let start = 0; start < sent.length; start += LARGEST_COUNT) {
        await this.sendFromFirst(sent.subarray(start, start + LARGEST_COUNT));
      }
      return sent;
    });
  }

  gather(text: string): Promise<string[]> {
    const { size } = this;
    return this.inTurn(async () => {
      const bytes = new TextEncoder().encode(text);
      if (size === 1) return [text];
      await this.meet();
      const lengths = memory(Int32Array, size);
      const length = memory(Int32Array, 1);
      length[0] = bytes.length;
      await this.gatherBytes(bytesOf(length), lengths);
      const longest = Math.max(1, ...lengths);
      const own = memory(Uint8Array, longest);
      own.set(bytes);
      const all = memory(Uint8Array, longest * size);
      await this.gatherBytes(own, all);
      const decoder = new TextDecoder();
      return Array.from(lengths, (length, i) => decoder.decode(all.subarray(i * longest, i * longest + length)));
    });
  }

  barrier(): Promise<void> {
    return this.inTurn(() => this.meet());
  }

  async leave(): Promise<void> {
    if (this.hasLeft) return;
    await this.inTurn(async () => {
      await this.meet();
      await this.pulse?.end();
      this.hasLeft = true;
      check(this.mpi, "MPI_Finalize", this.mpi.calls.MPI_Finalize());
    });
  }

  expectEnd(): void {
    this.pulse?.hasten();
  }

  abort(exitCode: number): void {
    if (this.isEnding || this.hasLeft) return;
    this.isEnding = true;
    // A thread of its own: this one may not come back from MPI_Abort.
    const code = `setTimeout(() => process.kill(process.pid, "SIGKILL"), ${LAST_WORDS_MS + ABORT_LIMIT_MS})`;
    new Worker(code, { eval: true, execArgv: [] }).unref();
    this.pulse?.sayEnd();
    setTimeout(() => this.mpi.calls.MPI_Abort(this.mpi.world, exitCode), LAST_WORDS_MS);
  }

  /** Waits until all ranks are here, without taking a processor from those that still compute. */
  private async meet(): Promise<void> {
    if (this.size === 1) return;
    const { mpi } = this;
    await this.done("MPI_Ibarrier", (request) => mpi.calls.MPI_Ibarrier(mpi.world, request), PATIENCE_MS);
  }

  private async gatherBytes(own: Uint8Array, all: Uint8Array | Int32Array): Promise<void> {
    const { mpi } = this;
    await this.done("MPI_Iallgather", (request) =>
      mpi.calls.MPI_Iallgather(own, own.length, mpi.byte, all, own.length, mpi.byte, mpi.world, request),
    );
  }

  private async sendFromFirst(bytes: Uint8Array): Promise<void> {
    const { mpi } = this;
    await this.done("MPI_Ibcast", (request) =>
      mpi.calls.MPI_Ibcast(bytes, bytes.length, mpi.byte, 0, mpi.world, request),
    );
  }

  /** Begins a call and polls until it is done. */
  private async done(
    name: string,
    begin: (request: BigInt64Array) => number,
    patienceMs = Number.POSITIVE_INFINITY,
  ): Promise<void> {
    const request = memory(BigInt64Array, 1);
    check(this.mpi, name, begin(request));
    const beganAt = performance.now();
    for (;;) {
      const burstAt = performance.now();
      do {
        if (isDone(this.mpi, name, request)) return;
      } while (performance.now() - burstAt < BURST_MS);
      if (burstAt - beganAt < patienceMs) await nextTurn();
      else await sleep(1);
    }
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.last.then(() => {
      if (this.hasLeft) throw new RuntimeError("MPI: this process has left the group already.");
      return work();
    });
    this.last = next.catch(() => undefined);
    return next;
  }
}

const bytesOf = ({ buffer, byteLength }: Float64Array | Int32Array): Uint8Array =>
  new Uint8Array(buffer, 0, byteLength);
