// Files from servers in the browser's Cache API, so that a model is downloaded once. Does nothing where there is none: in
// Node, and in pages that are neither https nor localhost.

import type { ByteRange } from "./storage.js";

const NAME = "fera";
/** Headers that distinguish versions of a file, the surest first. */
const VALIDATORS = ["etag", "last-modified"];

/** A file that is in the cache. */
export interface KeptFile {
  /** Whether a server's answer is about the version that is kept. */
  isSameVersion(headers: Headers): boolean;
  read(range?: ByteRange): Promise<Uint8Array>;
}

/** The cache by address. */
export const browserCache = {
  async find(url: string): Promise<KeptFile | undefined> {
    const response = await (await open())?.match(url).catch(() => undefined);
    if (!response) return undefined;
    return {
      isSameVersion: (headers) => {
        const validator = VALIDATORS.find((name) => headers.get(name) !== null);
        return validator !== undefined && headers.get(validator) === response.headers.get(validator);
      },
      async read(range) {
        const blob = await response.blob();
        const part = range ? blob.slice(range.offset, range.offset + range.length) : blob;
        return new Uint8Array(await part.arrayBuffer());
      },
    };
  },

  /** Keeps a file whose version can be told; says where there is no room. */
  async keep(
    url: string,
    headers: Headers,
    bytes: Uint8Array,
    onMessage: ((message: string) => void) | undefined,
  ): Promise<void> {
    const own = VALIDATORS.flatMap((name): [string, string][] => {
      const value = headers.get(name);
      return value === null ? [] : [[name, value]];
    });
    const cache = own.length > 0 ? await open() : undefined;
    await cache?.put(url, new Response(bytes as Uint8Array<ArrayBuffer>, { headers: own })).catch((cause: Error) => {
      onMessage?.(`${url} is downloaded again at every start: the browser's cache cannot keep it (${cause.message}).`);
    });
  },
};

/** @returns Undefined where the platform has no such cache, or forbids it. */
async function open(): Promise<Cache | undefined> {
  if (!("caches" in globalThis)) return undefined;
  return caches.open(NAME).catch(() => undefined);
}
