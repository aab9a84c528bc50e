// A server on this machine that answers as the Hugging Face hub does: repositories with revisions, files by commit, large
// files by redirection to another host, ranges, refusals. It can also fail on purpose.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One repository at one commit. */
export interface HubRepository {
  commit: string;
  /** Branches and tags that stand for the commit. */
  revisions: string[];
  files: Record<string, Uint8Array | string>;
  /** A token that must come with every request. */
  token?: string;
  gated?: boolean;
  /** What the hub knows under `/datasets`. */
  isDataset?: boolean;
}

/** A request as it came. */
export interface HubRequest {
  host: "hub" | "cdn";
  url: string;
  range: string | undefined;
  authorization: string | undefined;
}

/** Files from this size on are stored like Git LFS's: named by SHA-256, and served by the other host. */
const LARGE_BYTES = 1000;

/** What goes wrong, by file name. */
export interface HubFaults {
  /** Closes the connection after so many bytes of an answer, so many times. */
  cutOff?: Record<string, { afterBytes: number; times: number }>;
  /** Sends other bytes than the checksum is of, so many times. */
  damage?: Record<string, number>;
  /** Sends everything, whatever range is asked for. */
  ignoreRanges?: boolean;
  /** Answers with this status instead, so many times. */
  status?: { code: number; times: number };
}

/** The server; start it, and give its address as `HF_ENDPOINT`. */
export class HubServer {
  readonly requests: HubRequest[] = [];
  faults: HubFaults = {};
  readonly #hub: Server;
  readonly #cdn: Server;

  constructor(readonly repositories: Record<string, HubRepository>) {
    this.#hub = createServer((request, response) => this.#answer("hub", request, response));
    this.#cdn = createServer((request, response) => this.#answer("cdn", request, response));
  }

  async start(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    }
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  }

  get address(): string {
    return addressOf(this.#hub);
  }

  /** Paths of the files whose bytes were asked for. */
  get fetched(): string[] {
    return this.requests.flatMap(({ url }) => /\/resolve\/[^/]+\/(.+)$/.exec(url)?.[1] ?? []);
  }

  #answer(host: "hub" | "cdn", request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://hub");
    const path = decodeURIComponent(url.pathname);
    const { range, authorization } = request.headers;
    this.requests.push({ host, url: path, range, authorization });
    const { status } = this.faults;
    if (status && status.times > 0) {
      status.times--;
      refuse(response, status.code, undefined, "broken on purpose");
      return;
    }
    if (host === "cdn") {
      const [, id, name] = /^\/cdn\/([^/]+\/[^/]+)\/(.+)$/.exec(path) ?? [];
      this.#send(request, response, name!, bytesOf(this.repositories[id!]!.files[name!]!), {});
      return;
    }
    const api = /^\/api\/(?:models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path);
    const resolve = /^\/(?:datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const id = (api ?? resolve)?.[1] ?? "";
    const known = this.repositories[id];
    const repository = Boolean(known?.isDataset) === /^\/(api\/)?datasets\//.test(path) ? known : undefined;
    // The hub tells nobody without a token whether a private model exists.
    if (!repository || (repository.token && authorization !== `Bearer ${repository.token}`)) {
      if (repository?.gated) {
        refuse(response, 403, "GatedRepo", "Access to this model is restricted.");
        return;
      }
      if (authorization) {
        refuse(response, 404, "RepoNotFound", "Repository not found");
        return;
      }
      refuse(response, 401, "RepoNotFound", "Invalid username or password.");
      return;
    }
    const revision = (api?.[3] ?? resolve?.[2])!;
    const { commit, revisions, files } = repository;
    if (revision !== commit && !revisions.includes(revision)) {
      refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
      return;
    }
    if (api?.[2] === "revision") {
      json(response, { _id: "0", id, sha: commit, private: false, lastModified: "2024-01-01T00:00:00.000Z" });
      return;
    }
    if (api) {
      const entries = Object.keys(files).map((name) => describe(name, files[name]!));
      json(response, entries);
      return;
    }
    const name = resolve![3]!;
    if (files[name] === undefined) {
      refuse(response, 404, "EntryNotFound", "Entry not found");
      return;
    }
    const bytes = bytesOf(files[name]);
    const { oid, lfs } = describe(name, bytes);
    const headers = { "x-repo-commit": commit, etag: `"${lfs?.oid ?? oid}"` };
    if (!lfs) {
      this.#send(request, response, name, bytes, headers);
      return;
    }
    const location = `${addressOf(this.#cdn)}/cdn/${id}/${name}`;
    response.writeHead(302, {
      ...headers,
      "x-linked-etag": `"${lfs.oid}"`,
      "x-linked-size": String(lfs.size),
      location,
    });
    response.end();
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    content: Uint8Array,
    headers: Record<string, string>,
  ): void {
    let bytes = content;
    const damage = this.faults.damage ?? {};
    if ((damage[name] ?? 0) > 0) {
      damage[name]!--;
      bytes = Uint8Array.from(bytes, (value, i) => (i === 0 ? value ^ 1 : value));
    }
    const start = this.faults.ignoreRanges ? undefined : /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
    if (start !== undefined && Number(start) >= bytes.length) {
      refuse(response, 416, undefined, "no such range");
      return;
    }
    const body = bytes.subarray(Number(start ?? 0));
    const range = start === undefined ? {} : { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
    response.writeHead(start === undefined ? 200 : 206, {
      ...headers,
      ...range,
      "accept-ranges": "bytes",
      "content-length": String(body.length),
    });
    const cut = this.faults.cutOff?.[name];
    if (!cut || cut.times === 0) {
      response.end(body);
      return;
    }
    cut.times--;
    response.write(body.subarray(0, cut.afterBytes), () => setTimeout(() => response.socket?.destroy(), 50));
  }
}

function describe(path: string, content: Uint8Array | string) {
  const bytes = bytesOf(content);
  const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  if (bytes.length < LARGE_BYTES) return { type: "file", path, size: bytes.length, oid };
  const lfs = { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 };
  return { type: "file", path, size: bytes.length, oid: "a".repeat(40), lfs };
}

function bytesOf(content: Uint8Array | string): Uint8Array {
  return typeof content === "string" ? new TextEncoder().encode(content) : content;
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string | undefined, message: string): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "x-error-message": message,
    ...(code && { "x-error-code": code }),
  });
  response.end(JSON.stringify({ error: message }));
}

function addressOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
