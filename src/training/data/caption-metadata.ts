// The captions that a folder lists in one file, as Hugging Face's imagefolder has it: metadata.jsonl or metadata.csv.

import path from "node:path";
import { FormatError, quoted } from "../../errors.js";
import { readTextFile } from "./text-file.js";

/** What is read as a list of captions, the first that a folder has. */
export const METADATA_FILES = ["metadata.jsonl", "metadata.csv"] as const;

/** Larger captions have no place in any text encoder, and would cost their tokenizing. */
export const MAX_CAPTION_BYTES = 65_536;

const MAX_METADATA_BYTES = 2 ** 28;

/** Names of the column of captions, the first that a line has. */
const CAPTION_COLUMNS = ["text", "caption", "prompt"];

/** One caption of the list. */
export interface ListedCaption {
  text: string;
  /** Where it stands: the file, relative to the data folder, and the line (of a CSV file: the record). */
  file: string;
  line: number;
}

/**
 * Reads a list of captions.
 *
 * @param root - The data folder.
 * @param file - The list, relative to it, with forward slashes.
 * @param column - The column of captions; by default `text`, `caption` or `prompt`, in this order.
 * @param onRepeat - Called for each image that is listed again; the last one stands.
 * @returns Captions by the image's path relative to the data folder.
 * @throws {FormatError} If it is not valid text, or a line is malformed or too long; the line is named.
 */
export async function readCaptionMetadata(
  root: string,
  file: string,
  column: string | undefined,
  onRepeat: (image: string, before: ListedCaption, now: ListedCaption) => void,
): Promise<Map<string, ListedCaption>> {
  const where = path.join(root, file);
  const content = await readTextFile(where, MAX_METADATA_BYTES);
  const known = column === undefined ? CAPTION_COLUMNS : [column];
  const rows = file.endsWith(".csv") ? csvRows(content, where, known) : jsonRows(content, where);
  const captions = new Map<string, ListedCaption>();
  for (const { line, row } of rows) {
    const { file_name: name } = row;
    const text = row[known.find((key) => row[key] !== undefined && row[key] !== null) ?? ""];
    if (typeof name !== "string" || typeof text !== "string") {
      throw new FormatError(where, `line ${line} must have a "file_name" and a ${quoted(known[0])}${others(known)}.`);
    }
    if (text.length > MAX_CAPTION_BYTES) {
      throw new FormatError(
        where,
        `line ${line}: the text for ${quoted(name)} has ${text.length} characters; at most ${MAX_CAPTION_BYTES} are read.`,
      );
    }
    const image = path.posix.join(path.posix.dirname(file), name);
    const caption = { text: text.trim(), file, line };
    const before = captions.get(image);
    if (before) onRepeat(image, before, caption);
    captions.set(image, caption);
  }
  return captions;
}

interface Row {
  line: number;
  row: Record<string, unknown>;
}

function* jsonRows(content: string, where: string): Generator<Row> {
  for (const [index, text] of content.split(/\r?\n/).entries()) {
    if (text.trim() === "") continue;
    const line = index + 1;
    let row: unknown;
    try {
      row = JSON.parse(text);
    } catch (cause) {
      throw new FormatError(where, `line ${line} is not valid JSON: ${quoted(text)}.`, { cause });
    }
    yield { line, row: (row ?? {}) as Record<string, unknown> };
  }
}

/** What a caption's column may be called else. */
function others(known: readonly string[]): string {
  return known.length === 1 ? "" : ` (or ${known.slice(1).map(quoted).join(", ")}; another is named by captionColumn)`;
}

function* csvRows(content: string, where: string, known: readonly string[]): Generator<Row> {
  let header: string[] | undefined;
  for (const { line, fields } of parseCsv(content, where)) {
    if (!header) {
      header = fields;
      if (!fields.includes("file_name") || !known.some((name) => fields.includes(name))) {
        throw new FormatError(
          where,
          `its first line must name the columns file_name and ${known[0]}${others(known)}; got ${quoted(fields)}.`,
        );
      }
      continue;
    }
    if (fields.length !== header.length) {
      throw new FormatError(where, `line ${line} has ${fields.length} fields; the first line names ${header.length}.`);
    }
    yield { line, row: Object.fromEntries(header.map((name, i) => [name, fields[i]])) };
  }
}

/** Records of comma-separated values as RFC 4180 writes them; empty lines are left out. */
function* parseCsv(content: string, where: string): Generator<{ line: number; fields: string[] }> {
  // One field and what ends it. Quoted: anything, with "" for ".
  const field = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|$)/y;
  let fields: string[] = [];
  let start = 1;
  let line = 1;
  while (field.lastIndex < content.length) {
    const match = field.exec(content);
    if (!match) throw new FormatError(where, `line ${line}: a quotation mark is out of place, or never closed.`);
    const [whole, inQuotes, plain, end] = match;
    fields.push(inQuotes?.replaceAll('""', '"') ?? plain!);
    line += whole.split("\n").length - 1;
    // After a comma at the very end one more, empty field would follow.
    if (end === "," && field.lastIndex < content.length) continue;
    if (end === ",") fields.push("");
    if (fields.length > 1 || fields[0] !== "") yield { line: start, fields };
    fields = [];
    start = line;
  }
}
