// SentencePiece's unigram model: cuts a word into the pieces whose scores add up to the most. No files here.

import { FormatError, quoted } from "../../errors.js";

/** A piece and the logarithm of its probability. */
export type Piece = readonly [piece: string, score: number];

/** How much worse than the worst piece a character is that is none. */
const UNKNOWN_PENALTY = 10;
/** Every stretch of a word up to the longest piece is looked up. */
const MAX_PIECE_LENGTH = 256;

/**
 * Pieces by position; a piece's id is its place in the list.
 *
 * @see Kudo 2018, arXiv:1804.10959
 */
export class Unigram {
  readonly #ids = new Map<string, number>();
  readonly #scores: Float64Array;
  readonly #unknownScore: number;
  readonly #longest: number;

  /**
   * @param pieces - In the order of their ids; of two equal ones the later counts.
   * @param unknownId - Of what is no piece.
   * @param source - Names the file in messages.
   * @throws {FormatError} If there is no piece of that id, a score is no number, or a piece is empty.
   */
  constructor(
    pieces: readonly Piece[],
    readonly unknownId: number,
    source: string,
  ) {
    this.#scores = new Float64Array(pieces.length);
    let longest = 0;
    let least = 0;
    for (const [id, [piece, score]] of pieces.entries()) {
      if (piece === "" || !Number.isFinite(score)) {
        throw new FormatError(
          source,
          `piece ${id} must be a text with a finite score; got ${quoted(piece)}, ${score}.`,
        );
      }
      this.#ids.set(piece, id);
      this.#scores[id] = score;
      longest = Math.max(longest, piece.length);
      least = Math.min(least, score);
    }
    if (longest > MAX_PIECE_LENGTH) {
      throw new FormatError(source, `pieces may have ${MAX_PIECE_LENGTH} characters at most; one has ${longest}.`);
    }
    if (!Number.isInteger(unknownId) || unknownId < 0 || unknownId >= pieces.length) {
      throw new FormatError(source, `unk_id must be one of the ${pieces.length} pieces; got ${quoted(unknownId)}.`);
    }
    this.#longest = longest;
    this.#unknownScore = least - UNKNOWN_PENALTY;
  }

  /** How many ids there are. */
  get size(): number {
    return this.#scores.length;
  }

  idOf(piece: string): number | undefined {
    return this.#ids.get(piece);
  }

  /** The ids of the best pieces; neighbours that are no pieces become one unknown id together. Of equal scores the first counts. */
  encode(word: string): number[] {
    const length = word.length;
    const scores = new Float64Array(length + 1);
    const starts = new Int32Array(length + 1).fill(-1);
    const ids = new Int32Array(length + 1);
    for (let from = 0; from < length; ) {
      const next = from + (word.codePointAt(from)! > 0xffff ? 2 : 1);
      const reach = (to: number, id: number, score: number) => {
        const total = scores[from]! + score;
        if (starts[to]! >= 0 && total <= scores[to]!) return;
        [scores[to], starts[to], ids[to]] = [total, from, id];
      };
      let isPiece = false;
      for (let to = next; to <= Math.min(length, from + this.#longest); to++) {
        const id = this.#ids.get(word.slice(from, to));
        if (id === undefined) continue;
        reach(to, id, this.#scores[id]!);
        isPiece ||= to === next;
      }
      if (!isPiece) reach(next, this.unknownId, this.#unknownScore);
      from = next;
    }
    const result: number[] = [];
    for (let end = length; end > 0; end = starts[end]!) {
      if (ids[end] !== this.unknownId || result.at(-1) !== this.unknownId) result.push(ids[end]!);
    }
    return result.reverse();
  }
}
