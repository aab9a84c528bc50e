// A progress bar: one line that is rewritten on a terminal, a plain line now and then elsewhere.

import { formatDuration } from "./format.js";
import { printable } from "./printable.js";

/** Settings of a {@link Progress}. */
export interface ProgressOptions {
  label: string;
  total: number;
  /** What is counted, for "3.1 steps/s". */
  unit: string;
  /** Default stderr, so that stdout holds results only. */
  stream?: Pick<NodeJS.WriteStream, "write" | "isTTY" | "columns">;
  /** Milliseconds from any start. */
  now?: () => number;
}

const BAR_WIDTH = 20;
const REDRAW_MS = 80;
/** Between plain lines; in a long run a thirtieth of the time so far, so that logs stay short. */
const LINE_MS = 2000;
const LINE_SHARE = 1 / 30;

/**
 * Shows how far something is: count, note, speed, time left.
 *
 * The speed is that from the first update on: what comes before it, compiling or an earlier run's steps, does not count.
 */
export class Progress {
  private readonly stream: NonNullable<ProgressOptions["stream"]>;
  private readonly now: () => number;
  private readonly startedAt: number;
  private first: { done: number; at: number } | undefined;
  private shownAt = Number.NEGATIVE_INFINITY;
  private open = false;

  constructor(private readonly options: ProgressOptions) {
    this.stream = options.stream ?? process.stderr;
    this.now = options.now ?? (() => performance.now());
    this.startedAt = this.now();
  }

  /**
   * @param done - 0 … total.
   * @param note - Shown after the count, such as "loss 0.12".
   * @param secondsLeft - Where more is known about it than the speed tells.
   */
  update(done: number, note = "", secondsLeft?: number): void {
    const now = this.now();
    const elapsed = now - this.startedAt;
    this.first ??= { done, at: now };
    const pause = this.stream.isTTY ? REDRAW_MS : Math.max(LINE_MS, elapsed * LINE_SHARE);
    if (done < this.options.total && now - this.shownAt < pause) return;
    this.shownAt = now;
    const line = this.line(done, note, now, this.first, secondsLeft);
    if (!this.stream.isTTY) {
      this.stream.write(`${line}\n`);
      return;
    }
    this.stream.write(`\r\x1b[2K${line.slice(0, Math.max(20, (this.stream.columns || 100) - 1))}`);
    this.open = true;
  }

  /** Writes a line of its own, above the bar; control characters are escaped, here as in notes. */
  say(message: string): void {
    const line = printable(message);
    this.stream.write(this.open ? `\r\x1b[2K${line}\n` : `${line}\n`);
    this.open = false;
  }

  /** Leaves the bar as it is; what is written next starts on a line of its own. */
  end(): void {
    if (this.open) this.stream.write("\n");
    this.open = false;
  }

  private line(
    done: number,
    note: string,
    now: number,
    first: { done: number; at: number },
    secondsLeft?: number,
  ): string {
    const { label, total, unit } = this.options;
    const filled = Math.round((BAR_WIDTH * done) / Math.max(1, total));
    const parts = [`${done}/${total}`];
    if (note !== "") parts.push(note);
    const rate = (1000 * (done - first.done)) / (now - first.at);
    if (rate > 0) parts.push(`${rate >= 10 ? rate.toFixed(0) : rate.toPrecision(2)} ${unit}/s`);
    if (done >= total) parts.push(formatDuration((now - this.startedAt) / 1000));
    else if (secondsLeft !== undefined) parts.push(`${formatDuration(secondsLeft)} left`);
    else if (rate > 0) parts.push(`${formatDuration((total - done) / rate)} left`);
    const bar = this.stream.isTTY ? `${"█".repeat(filled)}${"░".repeat(BAR_WIDTH - filled)}  ` : "";
    return printable(`${label}  ${bar}${parts.join("  ")}`);
  }
}
