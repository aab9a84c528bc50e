// Text files as people's programs leave them: UTF-8 or UTF-16, told by a byte-order mark. Nothing is decoded by guess.

import { FormatError } from "../../errors.js";
import { withFile } from "../../storage/file-access.js";

/**
 * Decodes by the byte-order mark; without one as strict UTF-8.
 *
 * @returns The text, without the mark.
 * @throws {FormatError} If the bytes are not valid in that encoding, or hold NUL, as UTF-16 without a mark does.
 */
export function decodeText(bytes: Uint8Array, source: string): string {
  const advice = "Save it as UTF-8.";
  if (startsWith(bytes, 0xff, 0xfe, 0, 0) || startsWith(bytes, 0, 0, 0xfe, 0xff)) {
    throw new FormatError(source, `is UTF-32 by its byte-order mark, which is not read. ${advice}`);
  }
  const encoding = startsWith(bytes, 0xff, 0xfe) ? "utf-16le" : startsWith(bytes, 0xfe, 0xff) ? "utf-16be" : "utf-8";
  let text: string;
  try {
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (cause) {
    const why = encoding === "utf-8" ? "" : ", which its byte-order mark promises";
    throw new FormatError(source, `is not valid ${encoding.toUpperCase()}${why}. ${advice}`, { cause });
  }
  if (text.includes("\0")) {
    throw new FormatError(source, `holds NUL characters: no text, or UTF-16 without a byte-order mark. ${advice}`);
  }
  return text;
}

/**
 * Reads a text file.
 *
 * @param maxBytes - A larger file is refused before it is read.
 * @throws {FormatError} If it is missing, larger, or not valid text.
 */
export async function readTextFile(file: string, maxBytes: number): Promise<string> {
  const bytes = await withFile(file, ({ sizeBytes, read }) => {
    if (sizeBytes > maxBytes) {
      throw new FormatError(file, `has ${sizeBytes} bytes; at most ${maxBytes} are read.`);
    }
    return read(0, sizeBytes);
  });
  return decodeText(bytes, file);
}

function startsWith(bytes: Uint8Array, ...mark: number[]): boolean {
  return mark.every((byte, i) => bytes[i] === byte);
}
