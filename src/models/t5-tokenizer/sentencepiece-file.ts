// Reads `spiece.model`, SentencePiece's protobuf: pieces, scores, and the map of characters. Other kinds than unigram are refused.

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { ConfigError, FormatError } from "../../errors.js";
import type { Piece } from "./unigram.js";

/** What a file holds. */
export interface SentencePieceModel {
  pieces: Piece[];
  unknownId: number;
  /** See `charsmapNormalizer`; empty where there is none. */
  charsmap: Uint8Array;
}

/** No text encoder has more. */
const MAX_PIECES = 2 ** 20;
const UNIGRAM = 1;
/** `SentencePiece.Type`. */
const [UNKNOWN, BYTE] = [2, 6];

/**
 * Parses a file; its bytes are not trusted.
 *
 * @param source - Names the file in messages.
 * @throws {FormatError} If it is no such file, or is cut off.
 * @throws {ConfigError} If its model is none of unigrams, or has pieces for bytes.
 * @see sentencepiece_model.proto
 */
export function parseSentencePiece(bytes: Uint8Array, source: string): SentencePieceModel {
  const pieces: Piece[] = [];
  let unknownId: number | undefined;
  let charsmap = new Uint8Array();
  let kind = UNIGRAM;
  try {
    fields(bytes, {
      1: (reader) => {
        const { piece, score, type } = readPiece(reader.bytes());
        if (type === BYTE) throw new ConfigError(`${source}: pieces for bytes (byte_fallback) are not supported.`);
        if (type === UNKNOWN) unknownId ??= pieces.length;
        pieces.push([piece, score]);
        if (pieces.length > MAX_PIECES) throw new FormatError(source, `has more than ${MAX_PIECES} pieces.`);
      },
      2: (reader) =>
        fields(reader.bytes(), {
          3: (trainer) => {
            kind = trainer.int32();
          },
        }),
      3: (reader) =>
        fields(reader.bytes(), {
          2: (normalizer) => {
            charsmap = normalizer.bytes().slice();
          },
        }),
    });
  } catch (cause) {
    if (cause instanceof FormatError || cause instanceof ConfigError) throw cause;
    throw new FormatError(source, `is no SentencePiece model: ${(cause as Error).message}.`, { cause });
  }
  if (kind !== UNIGRAM) {
    throw new ConfigError(
      `${source}: model_type must be 1 (unigram); got ${kind}. Other SentencePiece models are not supported.`,
    );
  }
  if (pieces.length === 0 || unknownId === undefined) {
    throw new FormatError(source, "is no SentencePiece model: it has no pieces, or none for what is unknown.");
  }
  return { pieces, unknownId, charsmap };
}

function readPiece(bytes: Uint8Array): { piece: string; score: number; type: number } {
  const result = { piece: "", score: 0, type: 1 };
  fields(bytes, {
    1: (reader) => {
      result.piece = reader.string();
    },
    2: (reader) => {
      result.score = reader.float();
    },
    3: (reader) => {
      result.type = reader.int32();
    },
  });
  return result;
}

/** The wire types of the fields that are read. */
type Fields = Readonly<Record<number, (reader: BinaryReader) => void>>;

/** Calls what is listed for each field; others are skipped. A field of another wire type fails where it is read. */
function fields(bytes: Uint8Array, known: Fields): void {
  const reader = new BinaryReader(bytes, (text) => new TextDecoder("utf-8", { fatal: true }).decode(text));
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    const read = known[field];
    if (read && wireType !== WireType.StartGroup && wireType !== WireType.EndGroup) read(reader);
    else reader.skip(wireType, field);
  }
  if (reader.pos !== reader.len) throw new RangeError("a field goes beyond the end");
}
