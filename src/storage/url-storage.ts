// Storage behind an address, read with fetch: in the browser, and in Node from a server. Needs nothing of either.

import { FormatError } from "../errors.js";
import { browserCache, type KeptFile } from "./browser-cache.js";
import type { ByteRange, Storage, StorageOptions } from "./storage.js";

/** Endings of files, as against folders, that a location may name. */
const FILE = /\.(safetensors|ckpt|pt|pth|bin|json)$/i;
/** From here on a file is kept in the browser's cache. */
const KEPT_BYTES = 2 ** 16;

/** Settings of {@link UrlStorage}. */
export interface UrlStorageOptions extends Pick<StorageOptions, "signal" | "onProgress" | "onMessage"> {
  /** Sent with every request, such as an authorization. */
  headers?: Record<string, string>;
}

/** Whether a location is an address by itself; in a page, every other one is relative to the page. */
export const isAddress = (location: string): boolean => /^https?:\/\//i.test(location);

/** The id in `hf://owner/name`, which names a model on the hub on every platform. */
export const hubIdIn = (location: string): string | undefined =>
  /^hf:\/\/([A-Za-z0-9_][\w.-]*\/[A-Za-z0-9_][\w.-]*)$/.exec(location)?.[1];

/**
 * The storage of an address, whether of a folder or of a file in it.
 *
 * @param options.isFile - True where the address is known to be a file's; by default its ending tells.
 */
export function addressStorage(
  address: string,
  options: UrlStorageOptions = {},
  { isFile }: { isFile?: boolean } = {},
): UrlStorage {
  const [path = "", query = ""] = splitAt(address, address.search(/[?#]/));
  const slash = path.lastIndexOf("/");
  if (!(isFile ?? FILE.test(path))) return new UrlStorage(path.replace(/\/+$/, ""), options);
  return new UrlStorage(path.slice(0, Math.max(slash, 0)), options, path.slice(slash + 1), query);
}

/**
 * A folder of a server. It cannot be listed; files are asked for by name.
 *
 * Whole files of some size go into the browser's Cache API, where there is one, and come from there as long as the server
 * names the same version of them, or cannot be reached. `onProgress` counts the bytes of the files begun so far.
 */
export class UrlStorage implements Storage {
  #received = 0;
  #total = 0;

  constructor(
    readonly location: string,
    readonly options: UrlStorageOptions = {},
    readonly file?: string,
    private readonly query = "",
  ) {}

  nameOf(name: string): string {
    const path = [this.location, name].filter((part) => part !== "").join("/");
    return name === this.file ? path + this.query : path;
  }

  async exists(name: string): Promise<boolean> {
    return (await this.#head(name)) !== undefined;
  }

  async size(name: string): Promise<number | undefined> {
    const headers = await this.#head(name);
    return headers && lengthOf(headers);
  }

  async read(name: string, range?: ByteRange): Promise<Uint8Array | undefined> {
    const url = this.nameOf(name);
    const kept = await browserCache.find(url);
    if (kept && (await this.#isCurrent(name, kept))) return kept.read(range);
    if (range) return this.#readRange(name, range);
    const response = await this.#request(url);
    if (!(await isFile(response, url))) return undefined;
    const bytes = await this.#bodyOf(response, name);
    if (bytes.length >= KEPT_BYTES) {
      await browserCache.keep(url, response.headers, bytes, this.options.onMessage);
    }
    return bytes;
  }

  /** A server names no folder's files. */
  list(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** The answer's headers without its content; undefined where there is no such file. */
  async #head(name: string): Promise<Headers | undefined> {
    const url = this.nameOf(name);
    let response = await this.#request(url, { method: "HEAD" });
    // Some servers answer questions for content only.
    if (response.status === 405 || response.status === 501) response = await this.#request(url);
    const found = await isFile(response, url);
    await response.body?.cancel();
    return found ? response.headers : undefined;
  }

  async #isCurrent(name: string, kept: KeptFile): Promise<boolean> {
    let headers: Headers | undefined;
    try {
      headers = await this.#head(name);
    } catch (error) {
      this.options.signal?.throwIfAborted();
      this.options.onMessage?.(`${(error as Error).message} The copy in the browser's cache is used.`);
      return true;
    }
    return headers !== undefined && kept.isSameVersion(headers);
  }

  /** Servers that know no ranges send the file from its beginning: what comes before is let go, what comes after not taken. */
  async #readRange(name: string, { offset, length }: ByteRange): Promise<Uint8Array | undefined> {
    const url = this.nameOf(name);
    if (length === 0) return (await this.exists(name)) ? new Uint8Array(0) : undefined;
    const response = await this.#request(url, {
      headers: { range: `bytes=${offset}-${offset + length - 1}` },
    });
    if (!(await isFile(response, url))) return undefined;
    const start = response.status === 206 ? offset : 0;
    return this.#bodyOf(response, name, { offset: offset - start, length });
  }

  /** @throws {FormatError} If the connection ends early. */
  async #bodyOf(response: Response, name: string, part?: ByteRange): Promise<Uint8Array> {
    const { onProgress, signal } = this.options;
    const url = this.nameOf(name);
    const length = part?.length ?? lengthOf(response.headers);
    const begin = part?.offset ?? 0;
    const chunks: Uint8Array[] = [];
    let position = 0;
    let taken = 0;
    this.#total += length ?? 0;
    const reader = response.body?.getReader();
    try {
      while (reader && (part === undefined || taken < part.length)) {
        const { done, value } = await reader.read();
        if (done) break;
        const own = value.subarray(
          Math.max(0, begin - position),
          part === undefined ? value.length : Math.max(0, begin + part.length - position),
        );
        position += value.length;
        if (own.length === 0) continue;
        chunks.push(own);
        taken += own.length;
        this.#received += own.length;
        if (length === undefined) this.#total += own.length;
        onProgress?.({ path: name, receivedBytes: this.#received, totalBytes: this.#total });
      }
    } catch (cause) {
      signal?.throwIfAborted();
      throw new FormatError(url, `the connection broke off at byte ${position}: ${(cause as Error).message}.`, {
        cause,
      });
    } finally {
      await reader?.cancel().catch(() => undefined);
    }
    if (length !== undefined && taken < length && !isCompressed(response)) {
      throw new FormatError(url, `ends at byte ${begin + taken} of ${begin + length}; fetch it again.`);
    }
    return concatenated(chunks, taken);
  }

  async #request(url: string, init: RequestInit = {}): Promise<Response> {
    const { signal, headers } = this.options;
    signal?.throwIfAborted();
    try {
      return await fetch(url, { ...init, headers: { ...headers, ...init.headers }, signal: signal ?? null });
    } catch (cause) {
      signal?.throwIfAborted();
      throw new FormatError(url, `cannot be fetched: ${(cause as Error).message}.`, { cause });
    }
  }
}

/** Servers of single-page applications answer with their page where they have no file. @throws {FormatError} On a refusal. */
async function isFile(response: Response, url: string): Promise<boolean> {
  if (response.ok && !response.headers.get("content-type")?.startsWith("text/html")) return true;
  await response.body?.cancel();
  if (response.ok || response.status === 404 || response.status === 410) return false;
  throw new FormatError(url, `the server answered ${response.status} ${response.statusText}.`);
}

/** The length of what is read; an answer that was compressed on the way does not say it. */
function lengthOf(headers: Headers): number | undefined {
  const text = headers.get("content-length");
  return text === null || headers.get("content-encoding") ? undefined : Number(text);
}

const isCompressed = (response: Response): boolean => response.headers.get("content-encoding") !== null;

function concatenated(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const only = chunks[0];
  // Its own buffer, so that tensors can share the memory.
  if (chunks.length === 1 && only && only.byteLength === only.buffer.byteLength) return only;
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}

const splitAt = (text: string, index: number): [string, string] =>
  index < 0 ? [text, ""] : [text.slice(0, index), text.slice(index)];
