// Requests to the hub: what a repository holds at a revision, and its files' bytes. Listing is @huggingface/hub's work;
// who asks, retries and messages are here. Node only.

import { ConfigError } from "../../errors.js";
import { pause } from "../file-access.js";
import { HubError } from "./hub-error.js";
import type { HubSettings } from "./hub-settings.js";

/** A file of a repository. */
export interface HubFile {
  path: string;
  sizeBytes: number;
  /** SHA-256 of the content in 64 digits for large files, git's SHA-1 of the blob in 40 for others; names the blob. */
  hash: string;
}

/** A repository at one commit. */
export interface HubListing {
  /** 40 hexadecimal digits. */
  commit: string;
  files: Map<string, HubFile>;
}

const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^([0-9a-f]{40}|[0-9a-f]{64})$/;
const TRIES = 4;
const FIRST_PAUSE_MS = 500;
/** Failures of a connection that another try may not meet. */
const PASSING = new Set(["ECONNRESET", "EPIPE", "ETIMEDOUT", "UND_ERR_SOCKET", "UND_ERR_HEADERS_TIMEOUT", "EAI_AGAIN"]);

/** What a repository is for. */
export type RepositoryKind = "model" | "dataset";

/** What a repository is called in messages. */
const NOUNS: Readonly<Record<RepositoryKind, string>> = { model: "model", dataset: "data set" };

/** Talks to one hub about one model or data set. */
export class HubClient {
  constructor(
    readonly id: string,
    readonly revision: string,
    readonly settings: Pick<HubSettings, "endpoint" | "token">,
    readonly signal?: AbortSignal,
    readonly kind: RepositoryKind = "model",
  ) {
    checkRevision(revision);
  }

  /** @throws {HubError} If the hub does not answer, refuses, or names files that lead out of a folder. */
  async list(): Promise<HubListing> {
    // Loaded on demand: it takes a fifth of a second.
    const { datasetInfo, listFiles, modelInfo } = await import("@huggingface/hub");
    const common = { hubUrl: this.settings.endpoint, fetch: this.#fetch.bind(this) as typeof fetch };
    const wrong = (what: string) => new HubError(`${this.id}: ${this.settings.endpoint} answers with ${what}.`);
    try {
      const asked = { name: this.id, revision: this.revision, additionalFields: ["sha" as const], ...common };
      const { sha } = await (this.kind === "model" ? modelInfo(asked) : datasetInfo(asked));
      if (typeof sha !== "string" || !COMMIT.test(sha)) throw wrong(`the commit ${JSON.stringify(sha)}`);
      const files = new Map<string, HubFile>();
      for await (const entry of listFiles({
        repo: { type: this.kind, name: this.id },
        revision: sha,
        recursive: true,
        ...common,
      })) {
        if (entry.type !== "file") continue;
        const hash = entry.lfs?.oid ?? entry.oid ?? "";
        const sizeBytes = entry.lfs?.size ?? entry.size;
        if (!isInside(entry.path)) throw wrong(`the file name ${JSON.stringify(entry.path)}`);
        if (!HASH.test(hash)) throw wrong(`the checksum ${JSON.stringify(hash)} for ${entry.path}`);
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw wrong(`the size ${sizeBytes} for ${entry.path}`);
        files.set(entry.path, { path: entry.path, sizeBytes, hash });
      }
      return { commit: sha, files };
    } catch (cause) {
      this.signal?.throwIfAborted();
      if (cause instanceof HubError) throw cause;
      throw new HubError(`${this.id}: the hub's answer cannot be read: ${(cause as Error).message}.`, { cause });
    }
  }

  /**
   * Asks for a file's bytes from `offset` on.
   *
   * @throws {HubError} If there is no answer or it is a refusal.
   */
  read(commit: string, path: string, offset: number): Promise<Response> {
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    const url = `${this.#page}/resolve/${commit}/${encoded}`;
    // Compressed answers have other offsets and lengths.
    const headers = { "accept-encoding": "identity", ...(offset > 0 && { range: `bytes=${offset}-` }) };
    return this.#fetch(url, { headers });
  }

  /** Where people see the repository. */
  get #page(): string {
    return `${this.settings.endpoint}/${this.kind === "model" ? "" : "datasets/"}${this.id}`;
  }

  /** fetch with the token, which it does not pass on to another host that the hub redirects to. */
  async #fetch(url: string, init: RequestInit = {}): Promise<Response> {
    const { token, endpoint } = this.settings;
    const headers = new Headers(init.headers);
    if (token !== undefined && new URL(url).origin === new URL(endpoint).origin) {
      headers.set("authorization", `Bearer ${token}`);
    }
    for (let attempt = 1; ; attempt++) {
      let failure: HubError;
      try {
        const response = await fetch(url, { ...init, headers, signal: this.signal });
        // 416: there is nothing from that offset on; the caller decides.
        if (response.ok || response.status === 416) return response;
        await response.body?.cancel();
        failure = this.#refusal(response, url);
      } catch (cause) {
        this.signal?.throwIfAborted();
        const system = (cause as Error).cause as NodeJS.ErrnoException | undefined;
        failure = new HubError(
          `${this.id}: ${endpoint} cannot be reached (${system?.message || system?.code || (cause as Error).message}). ` +
            "Check the connection and HF_ENDPOINT, or name a local folder.",
          { cause },
        );
        if (!PASSING.has(system?.code ?? "")) throw failure;
      }
      if (!failure.isOutage || attempt === TRIES) throw failure;
      await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1), this.signal);
    }
  }

  #refusal({ status, headers }: Response, url: string): HubError {
    const said = headers.get("x-error-message");
    const code = headers.get("x-error-code");
    const { endpoint, token } = this.settings;
    const noun = NOUNS[this.kind];
    const because = said ? ` The hub says: ${said}` : "";
    const error = (text: string) => new HubError(`${this.id}: ${text}${because}`, { status });
    if (code === "GatedRepo" || (status === 403 && code !== "DisabledRepo")) {
      return error(
        `access is granted only to who has accepted its conditions (${status}). Do so at ${this.#page}, and ` +
          `give a token of that account (HF_TOKEN).`,
      );
    }
    if (status === 401) {
      return error(
        token === undefined
          ? `there is no such public ${noun} on the hub (401). Check the name; if it is private, give a token (HF_TOKEN).`
          : `the hub does not accept the token, or it may not read this ${noun} (401). Check the name and HF_TOKEN.`,
      );
    }
    if (status === 404 && code === "RevisionNotFound") {
      return error(`has no revision ${JSON.stringify(this.revision)} (404). Name a branch, tag or commit of it.`);
    }
    if (status === 404 && code === "EntryNotFound") return error(`${new URL(url).pathname} is not there (404).`);
    if (status === 404) return error(`there is no such ${noun} on the hub (404), and no such local folder either.`);
    if (status === 429) return error("the hub asks to wait before more is fetched (429). Try again later.");
    return error(`${endpoint} answers with an error (${status}). Try again later.`);
  }
}

function checkRevision(revision: string): void {
  if (/^[\w][\w.+/-]*$/.test(revision) && isInside(revision)) return;
  throw new ConfigError(`revision must be a branch, tag or commit; got ${JSON.stringify(revision)}.`);
}

/** Whether a path names something below the folder that it is joined to. */
function isInside(path: string): boolean {
  return /^[^\\:\0]+$/.test(path) && path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}
