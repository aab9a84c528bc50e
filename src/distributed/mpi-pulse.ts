// Whether ranks are alive, so that one that hangs ends all of them with its name.

import { setTimeout as sleep } from "node:timers/promises";
import { TrainingError } from "../errors.js";
import { check, isDone, memory } from "./mpi-calls.js";
import type { MpiLibrary } from "./mpi-library.js";
import { type RankGroup, rankName } from "./rank-group.js";

/** Settings of `joinMpi`. */
export interface MpiOptions {
  /**
   * Seconds without a sign of life after which a rank counts as hung. Its event loop must turn once in that time: longest
   * without a turn is the building of a large model's graph. Default 30.
   */
  silenceSeconds?: number;
  /** Told why, before all ranks end because one is silent or the connection fails; by default it is printed to stderr. */
  onFailure?: (error: Error) => void;
}

export const DEFAULT_SILENCE_SECONDS = 30;

const BEATS_PER_SILENCE = 30;
/** Tags of signs of life, and of the word that all end. */
const BEAT = 71;
const END = 72;
/** Exit code. */
const FAILED = 1;
/** Silence that is enough where this process was told to end. */
const SILENCE_AT_END_SECONDS = 5;

/** Signs of life in a ring: each rank sends them to the next one, and watches the one before. */
export class Pulse {
  private readonly timer: NodeJS.Timeout;
  private readonly sent = memory(BigInt64Array, 1);
  private readonly received = memory(BigInt64Array, 1);
  private readonly outgoing = memory(Uint8Array, 1);
  private readonly incoming = memory(Uint8Array, 1);
  private readonly next: number;
  private readonly before: number;
  private readonly intervalMs: number;
  /** Word from any rank that all end. */
  private readonly ending = memory(BigInt64Array, 1);
  private readonly word = memory(Uint8Array, 1);
  private readonly lastWords = memory(Uint8Array, 1);
  private silenceMs: number;
  private isSending = false;
  private isOver = false;
  private silentMs = 0;
  private lookedAt = performance.now();

  constructor(
    private readonly mpi: MpiLibrary,
    private readonly group: Pick<RankGroup, "rank" | "size" | "hosts" | "abort">,
    private readonly options: MpiOptions,
  ) {
    const { rank, size } = group;
    this.next = (rank + 1) % size;
    this.before = (rank + size - 1) % size;
    this.silenceMs = (options.silenceSeconds ?? DEFAULT_SILENCE_SECONDS) * 1000;
    this.intervalMs = Math.min(this.silenceMs / BEATS_PER_SILENCE, 1000);
    this.listen();
    const { anySource, byte, world } = mpi;
    check(mpi, "MPI_Irecv", mpi.calls.MPI_Irecv(this.word, 1, byte, anySource, END, world, this.ending));
    this.timer = setInterval(() => {
      try {
        this.beat();
      } catch (error) {
        this.give(error as Error);
      }
    }, this.intervalMs);
    this.timer.unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  hasten(): void {
    this.silenceMs = Math.min(this.silenceMs, SILENCE_AT_END_SECONDS * 1000);
  }

  /** Tells all others that they end, whether they hear it or not. */
  sayEnd(): void {
    this.stop();
    const { mpi, group, lastWords } = this;
    lastWords[0] = 1;
    for (let rank = 0; rank < group.size; rank++) {
      if (rank === group.rank) continue;
      const request = memory(BigInt64Array, 1);
      mpi.calls.MPI_Isend(lastWords, 1, mpi.byte, rank, END, mpi.world, request);
    }
  }

  /** Sends a last sign, and waits for the last one of the rank before: MPI ends with nothing under way. */
  async end(): Promise<void> {
    this.stop();
    while (this.isSending && !isDone(this.mpi, "MPI_Isend", this.sent)) await sleep(1);
    this.send(1);
    while (!this.isOver) {
      this.look();
      await sleep(1);
    }
    while (!isDone(this.mpi, "MPI_Isend", this.sent)) await sleep(1);
    // To itself, so that nothing is left that waits.
    const { mpi, group, lastWords, sent, ending } = this;
    check(mpi, "MPI_Isend", mpi.calls.MPI_Isend(lastWords, 1, mpi.byte, group.rank, END, mpi.world, sent));
    while (!isDone(mpi, "MPI_Irecv", ending) || !isDone(mpi, "MPI_Isend", sent)) await sleep(1);
  }

  private beat(): void {
    if (this.isSending && isDone(this.mpi, "MPI_Isend", this.sent)) this.isSending = false;
    // What has not arrived yet is sign enough.
    if (!this.isSending) this.send(0);
    if (isDone(this.mpi, "MPI_Irecv", this.ending)) {
      this.group.abort(FAILED);
      return;
    }
    const now = performance.now();
    // Where this process itself stood still, nothing can be said of the other one.
    this.silentMs += Math.min(now - this.lookedAt, 2 * this.intervalMs);
    this.lookedAt = now;
    if (this.look()) this.silentMs = 0;
    if (this.silentMs < this.silenceMs) return;
    const seconds = Math.round(this.silentMs / 1000);
    this.give(
      new TrainingError(
        `${rankName(this.group, this.before)} has given no sign for ${seconds} s: it hangs, or its host or the network does. ` +
          "All ranks end. The newest checkpoint is intact; --resume goes on from it.",
      ),
    );
  }

  /** Tells why, and ends all ranks. */
  private give(error: Error): void {
    this.stop();
    const { onFailure = ({ message }: Error) => process.stderr.write(`fera: ${message}\n`) } = this.options;
    onFailure(error);
    this.group.abort(FAILED);
  }

  private send(last: number): void {
    const { mpi, outgoing, next, sent } = this;
    outgoing[0] = last;
    check(mpi, "MPI_Isend", mpi.calls.MPI_Isend(outgoing, 1, mpi.byte, next, BEAT, mpi.world, sent));
    this.isSending = true;
  }

  private listen(): void {
    const { mpi, incoming, before, received } = this;
    check(mpi, "MPI_Irecv", mpi.calls.MPI_Irecv(incoming, 1, mpi.byte, before, BEAT, mpi.world, received));
  }

  /** Takes in what has come. @returns Whether there was any. */
  private look(): boolean {
    let hasCome = false;
    while (!this.isOver && isDone(this.mpi, "MPI_Irecv", this.received)) {
      hasCome = true;
      if (this.incoming[0] === 1) this.isOver = true;
      else this.listen();
    }
    return hasCome;
  }
}
