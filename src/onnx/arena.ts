// ONNX Runtime's memory arena (its BFC allocator, version 1.30), followed without running anything: how much of its memory
// has been touched when values of these sizes come and go in this order.

/** A value that comes to live, or one that goes; each has its own number. */
export type ArenaEvent = { kind: "allocate"; id: number; bytes: number } | { kind: "free"; id: number };

/** Sizes are rounded up to it. */
const UNIT_BYTES = 256;
const FIRST_REGION_BYTES = 2 ** 20;
const LARGEST_REGION_BYTES = 2 ** 30;
/** A free chunk that is larger than wanted by this much is always split. */
const DEAD_BYTES = 2 ** 27;
const LAST_BIN = 20;
const PAGE_BYTES = 4096;

/** A part of a region: a value's, or free. */
interface Chunk {
  region: Region;
  start: number;
  bytes: number;
  isFree: boolean;
  previous: Chunk | undefined;
  next: Chunk | undefined;
}

/** One allocation of the system's memory, of which pages count once they are touched. */
interface Region {
  number: number;
  /** Whether each page was touched. */
  pages: Uint8Array;
}

/** An arena: best fit among free chunks, which are split and joined; regions that grow by doubling. */
export class Arena {
  /** Free chunks by the power of two of their size. */
  private readonly bins: Set<Chunk>[] = Array.from({ length: LAST_BIN + 1 }, () => new Set());
  private readonly used = new Map<number, Chunk>();
  private nextRegionBytes = FIRST_REGION_BYTES;
  private regions = 0;
  private touchedPages = 0;

  /** Bytes of the pages that were touched so far: what is resident. */
  get residentBytes(): number {
    return this.touchedPages * PAGE_BYTES;
  }

  /** Follows a run. */
  follow(events: readonly ArenaEvent[]): void {
    for (const event of events) {
      if (event.kind === "allocate") this.allocate(event.id, event.bytes);
      else this.free(event.id);
    }
  }

  private allocate(id: number, wanted: number): void {
    if (wanted === 0) return;
    const bytes = Math.ceil(wanted / UNIT_BYTES) * UNIT_BYTES;
    const chunk = this.take(bytes) ?? this.extended(bytes);
    if (chunk.bytes >= 2 * bytes || chunk.bytes - bytes >= DEAD_BYTES) this.split(chunk, bytes);
    this.used.set(id, chunk);
    this.touch(chunk.region, chunk.start, chunk.start + bytes);
  }

  private free(id: number): void {
    const chunk = this.used.get(id);
    if (!chunk) return;
    this.used.delete(id);
    chunk.isFree = true;
    this.keep(this.joined(this.joined(chunk, chunk.next), chunk.previous));
  }

  /** The smallest free chunk that is large enough, the first by place among equals. */
  private take(bytes: number): Chunk | undefined {
    for (let bin = binOf(bytes); bin <= LAST_BIN; bin++) {
      let best: Chunk | undefined;
      for (const chunk of this.bins[bin]!) {
        if (chunk.bytes >= bytes && (!best || isBefore(chunk, best))) best = chunk;
      }
      if (!best) continue;
      this.bins[bin]!.delete(best);
      best.isFree = false;
      return best;
    }
    return undefined;
  }

  private extended(bytes: number): Chunk {
    let isDoubled = false;
    while (bytes > this.nextRegionBytes) {
      this.nextRegionBytes *= 2;
      isDoubled = true;
    }
    const size = this.nextRegionBytes;
    if (!isDoubled) this.nextRegionBytes = Math.min(2 * size, Math.max(LARGEST_REGION_BYTES, size));
    const region = { number: this.regions++, pages: new Uint8Array(Math.ceil(size / PAGE_BYTES)) };
    return { region, start: 0, bytes: size, isFree: false, previous: undefined, next: undefined };
  }

  private split(chunk: Chunk, bytes: number): void {
    const { region, start, next } = chunk;
    const rest = { region, start: start + bytes, bytes: chunk.bytes - bytes, isFree: true, previous: chunk, next };
    if (next) next.previous = rest;
    chunk.next = rest;
    chunk.bytes = bytes;
    this.keep(rest);
  }

  /** A free chunk and the one beside it as one, where that is free too. */
  private joined(chunk: Chunk, beside: Chunk | undefined): Chunk {
    if (!beside?.isFree) return chunk;
    this.bins[binOf(beside.bytes)]!.delete(beside);
    const [first, second] = beside.start < chunk.start ? [beside, chunk] : [chunk, beside];
    first.bytes += second.bytes;
    first.next = second.next;
    if (second.next) second.next.previous = first;
    return first;
  }

  private keep(chunk: Chunk): void {
    this.bins[binOf(chunk.bytes)]!.add(chunk);
  }

  private touch({ pages }: Region, start: number, end: number): void {
    const last = Math.ceil(end / PAGE_BYTES);
    for (let page = Math.floor(start / PAGE_BYTES); page < last; page++) {
      if (pages[page] === 0) {
        pages[page] = 1;
        this.touchedPages++;
      }
    }
  }
}

const binOf = (bytes: number): number =>
  Math.min(LAST_BIN, Math.floor(Math.log2(Math.max(bytes, UNIT_BYTES) / UNIT_BYTES)));

function isBefore(a: Chunk, b: Chunk): boolean {
  if (a.bytes !== b.bytes) return a.bytes < b.bytes;
  return a.region === b.region ? a.start < b.start : a.region.number < b.region.number;
}
