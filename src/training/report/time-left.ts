// How long a training still takes: steps, and what comes between them, each at the pace that was measured.

/** Something that is done after some of the steps. */
export interface Interlude {
  /** Steps between two; 0 for never but `atEnd`. */
  every: number;
  /** Whether it is done after the last step in any case. */
  atEnd: boolean;
}

/** Steps whose pace counts: the last ones. */
const RECENT = 50;

/** Adds up durations. Seconds throughout. */
export class TimeLeft {
  private readonly recent: number[] = [];
  private readonly means = new Map<string, { sum: number; count: number }>();

  constructor(
    private readonly steps: number,
    private readonly interludes: Readonly<Record<string, Interlude>>,
  ) {}

  /** One step took so long, what came after it left out. */
  stepTook(seconds: number): void {
    this.recent.push(seconds);
    if (this.recent.length > RECENT) this.recent.shift();
  }

  /** One interlude took so long. */
  tookBetween(name: string, seconds: number): void {
    const known = this.means.get(name) ?? { sum: 0, count: 0 };
    this.means.set(name, { sum: known.sum + seconds, count: known.count + 1 });
  }

  /**
   * Steps and interludes that are still to come after a step; interludes that have not been timed yet count as nothing.
   *
   * @returns Undefined before the first step.
   */
  after(step: number): number | undefined {
    if (this.recent.length === 0) return undefined;
    // The first step of a run is slow: it counts for as long as there are few others.
    const pace = [...this.recent].sort((a, b) => a - b)[Math.floor(this.recent.length / 2)]!;
    let seconds = (this.steps - step) * pace;
    for (const [name, interlude] of Object.entries(this.interludes)) {
      const mean = this.means.get(name);
      if (mean) seconds += this.timesAfter(step, interlude) * (mean.sum / mean.count);
    }
    return seconds;
  }

  private timesAfter(step: number, { every, atEnd }: Interlude): number {
    const { steps } = this;
    if (step >= steps) return 0;
    const regular = every === 0 ? 0 : Math.floor(steps / every) - Math.floor(step / every);
    return regular + (atEnd && (every === 0 || steps % every !== 0) ? 1 : 0);
  }
}
