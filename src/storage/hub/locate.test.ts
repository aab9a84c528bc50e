import { createHash } from "node:crypto";
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HubServer } from "../../../test/support/hub-server.js";
import { FormatError } from "../../errors.js";
import { HubError } from "./hub-error.js";
import type { DownloadProgress } from "./hub-options.js";
import { fetchModel, locateModel } from "./locate.js";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const ID = "someone/tiny-model";
const LARGE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) % 251);
const SHA256 = createHash("sha256").update(LARGE).digest("hex");
const WEIGHTS = "unet/diffusion_pytorch_model.safetensors";
const EVERYTHING = { parts: (index: Record<string, unknown>) => Object.keys(index) };

let server: HubServer;
let home: string;
let cache: string;

beforeEach(async () => {
  server = new HubServer({
    [ID]: {
      commit: COMMIT,
      revisions: ["main", "v1.0", "refs/pr/1"],
      files: {
        "README.md": "not needed",
        "model_index.json": '{"unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": []}',
        "tokenizer/vocab.json": '{"a": 0}',
        "tokenizer/merges.txt": "#version",
        "unet/config.json": "{}",
        [WEIGHTS]: LARGE,
        "unet/diffusion_pytorch_model.fp16.safetensors": LARGE.slice(0, 2000),
        "unet/diffusion_pytorch_model.bin": LARGE.slice(1),
        "safety_checker/model.safetensors": LARGE.slice(2),
        "big.ckpt": LARGE.slice(3),
      },
    },
    "someone/private": { commit: COMMIT, revisions: ["main"], files: { "config.json": "{}" }, token: "hf_secret" },
    "someone/gated": { commit: COMMIT, revisions: ["main"], files: {}, token: "hf_other", gated: true },
  });
  await server.start();
  home = await mkdtemp(join(tmpdir(), "fera-hub-"));
  cache = join(home, "hub");
  vi.stubEnv("HF_HOME", home);
  vi.stubEnv("HF_ENDPOINT", server.address);
  for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"]) {
    vi.stubEnv(name, "");
  }
  vi.stubEnv("HF_HUB_OFFLINE", "");
  vi.stubEnv("TRANSFORMERS_OFFLINE", "");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  await rm(home, { recursive: true, force: true });
});

const model = () => join(cache, "models--someone--tiny-model");
/** Compared as a whole: `toEqual` takes seconds over so many elements. */
const expectLarge = async (folder: string) => expect((await readFile(join(folder, WEIGHTS))).equals(LARGE)).toBe(true);
const blobs = () => readdir(join(model(), "blobs"));

describe("a model on the hub", () => {
  it("is fetched into the layout of Python's cache, and not again", async () => {
    const folder = await fetchModel(ID, EVERYTHING);
    expect(folder).toBe(join(model(), "snapshots", COMMIT));
    expect(await readFile(join(model(), "refs", "main"), "utf8")).toBe(COMMIT);
    await expectLarge(folder);
    expect((await lstat(join(folder, WEIGHTS))).isSymbolicLink()).toBe(true);
    expect(await readlink(join(folder, WEIGHTS))).toBe(join("..", "..", "..", "blobs", SHA256));
    // A small file is named by git's SHA-1 of it: `printf '{}' | git hash-object --stdin`.
    expect(await blobs()).toContain("9e26dfeeb6e641a33dae4961196235bdb965b21b");
    const before = server.fetched.length;
    await fetchModel(ID, EVERYTHING);
    expect(server.fetched).toHaveLength(before);
  });

  it("comes with the needed files only, safetensors before pickles", async () => {
    await fetchModel(ID, EVERYTHING);
    expect(server.fetched.sort()).toEqual([
      "model_index.json",
      "tokenizer/merges.txt",
      "tokenizer/vocab.json",
      "unet/config.json",
      WEIGHTS,
    ]);
  });

  it("comes in the variant that is asked for", async () => {
    await fetchModel(ID, { parts: ["unet"], variant: "fp16" });
    expect(server.fetched).toContain("unet/diffusion_pytorch_model.fp16.safetensors");
    expect(server.fetched).not.toContain(WEIGHTS);
  });

  it("comes without weights where only configurations are wanted", async () => {
    await fetchModel(ID, { parts: "all", weights: false });
    expect(server.fetched.sort()).toEqual([
      "model_index.json",
      "tokenizer/merges.txt",
      "tokenizer/vocab.json",
      "unet/config.json",
    ]);
  });

  it("tells its size before, and how far it is", async () => {
    const messages: string[] = [];
    const progress: DownloadProgress[] = [];
    await fetchModel(ID, {
      ...EVERYTHING,
      onMessage: (message) => messages.push(message),
      onProgress: (event) => progress.push(event),
    });
    expect(messages).toEqual([`Downloading ${ID}: 300 kB into ${model()}.`]);
    const { receivedBytes, totalBytes } = progress.at(-1)!;
    expect(receivedBytes).toBe(totalBytes);
    expect(totalBytes).toBeGreaterThan(LARGE.length);
    const counts = progress.map((event) => event.receivedBytes);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
  });

  it("may be named by a tag, a pull request's ref or a commit", async () => {
    for (const revision of ["v1.0", "refs/pr/1", COMMIT]) await fetchModel(ID, { parts: ["tokenizer"], revision });
    expect(await readFile(join(model(), "refs", "refs", "pr", "1"), "utf8")).toBe(COMMIT);
    expect(await readdir(join(model(), "refs"))).not.toContain(COMMIT);
  });

  it("goes on where the connection was cut off", async () => {
    server.faults = { cutOff: { [WEIGHTS]: { afterBytes: 100_000, times: 2 } } };
    const folder = await fetchModel(ID, { parts: ["unet"] });
    await expectLarge(folder);
    const ranges = server.requests.filter(({ host }) => host === "cdn").map(({ range }) => range);
    // How much of a cut-off answer still arrives is the system's affair.
    const starts = ranges.map((range) => Number(/^bytes=(\d+)-$/.exec(range ?? "bytes=0-")![1]));
    expect(starts).toHaveLength(3);
    expect(starts[0]).toBe(0);
    expect(starts[1]).toBeGreaterThan(0);
    expect(starts[2]).toBeGreaterThan(starts[1]!);
  });

  it("goes on in the next call when the connection does not come back", async () => {
    server.faults = { cutOff: { [WEIGHTS]: { afterBytes: 150_000, times: 1 } } };
    const stopped = new AbortController();
    const failing = fetchModel(ID, {
      parts: ["unet"],
      signal: stopped.signal,
      onProgress: ({ receivedBytes }) => receivedBytes > 100_000 && stopped.abort(),
    });
    await expect(failing).rejects.toThrow(/abort/);
    expect(await failing.catch((error: unknown) => error)).toBeInstanceOf(DOMException);
    expect(await blobs()).toContain(`${SHA256}.fera-incomplete`);
    server.faults = {};
    server.requests.length = 0;
    const folder = await fetchModel(ID, { parts: ["unet"] });
    await expectLarge(folder);
    const [request] = server.requests.filter(({ host }) => host === "cdn");
    expect(Number(/^bytes=(\d+)-$/.exec(request!.range!)![1])).toBeGreaterThan(0);
    expect((await blobs()).filter((name) => name.includes("incomplete"))).toEqual([]);
  });

  it("is refused in the end when every connection is cut off", async () => {
    server.faults = { cutOff: { [WEIGHTS]: { afterBytes: 0, times: 99 } } };
    await expect(fetchModel(ID, { parts: ["unet"] })).rejects.toThrow(/cut off 5 times at byte 0 of 300000/);
  });

  it("is fetched anew where the server knows no ranges", async () => {
    server.faults = { cutOff: { [WEIGHTS]: { afterBytes: 100_000, times: 1 } }, ignoreRanges: true };
    const folder = await fetchModel(ID, { parts: ["unet"] });
    await expectLarge(folder);
  });

  it("with a wrong checksum is refused, and nothing of it is left", async () => {
    server.faults = { damage: { [WEIGHTS]: 99 } };
    const failure = await fetchModel(ID, { parts: ["unet"] }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(HubError);
    expect((failure as Error).message).toMatch(new RegExp(`${WEIGHTS} arrived damaged.*the hub names ${SHA256}`));
    expect((await blobs()).filter((name) => name.startsWith(SHA256))).toEqual([]);
    const snapshot = join(model(), "snapshots", COMMIT);
    await expect(lstat(join(snapshot, WEIGHTS))).rejects.toThrow(/ENOENT/);
    server.faults = { damage: { "unet/config.json": 1 } };
    await rm(cache, { recursive: true });
    await expect(fetchModel(ID, { parts: ["unet"] })).rejects.toThrow(/config\.json arrived damaged/);
  });

  it("is fetched from the start when a leftover turns out to be something else", async () => {
    await mkdir(join(model(), "blobs"), { recursive: true });
    await writeFile(join(model(), "blobs", `${SHA256}.fera-incomplete`), new Uint8Array(1000).fill(7));
    const folder = await fetchModel(ID, { parts: ["unet"] });
    await expectLarge(folder);
  });

  it("is fetched once by two calls at the same time", async () => {
    await Promise.all([fetchModel(ID, { parts: ["unet"] }), fetchModel(ID, { parts: ["unet"] })]);
    expect(server.fetched.filter((path) => path === WEIGHTS)).toHaveLength(1);
  });

  it("survives answers that the hub is busy", async () => {
    server.faults = { status: { code: 503, times: 1 } };
    await expect(fetchModel(ID, { parts: ["tokenizer"] })).resolves.toContain(COMMIT);
  });
});

describe("a token", () => {
  it("goes to the hub, from the option or HF_TOKEN or the file of `hf auth login`, and to no other host", async () => {
    const repository = server.repositories["someone/private"]!;
    repository.files["model.safetensors"] = LARGE;
    await fetchModel("someone/private", { parts: [""], token: "hf_secret" });
    expect(server.requests.filter(({ host }) => host === "hub").every((r) => r.authorization)).toBe(true);
    expect(server.requests.filter(({ host }) => host === "cdn").map((r) => r.authorization)).toEqual([undefined]);
    vi.stubEnv("HF_TOKEN", "hf_secret");
    await fetchModel("someone/private", { parts: [""] });
    vi.stubEnv("HF_TOKEN", "");
    await writeFile(join(home, "token"), "hf_secret\n");
    await fetchModel("someone/private", { parts: [""] });
    await expect(fetchModel("someone/private", { parts: [""], token: false })).rejects.toThrow(/\(401\)/);
  });
});

describe("what the hub refuses is said", () => {
  it.each([
    ["a model that is not there", "someone/none", {}, 401, /no such public model.*HF_TOKEN.*Invalid username/],
    ["a model that a token does not reach", "someone/none", { token: "hf_x" }, 404, /no such model on the hub \(404\)/],
    ["a revision that is not there", ID, { revision: "v9" }, 404, /has no revision "v9" \(404\)/],
    ["a gated model", "someone/gated", { token: "hf_x" }, 403, /accepted its conditions \(403\).*someone\/gated/],
  ])("%s", async (_, id, options, status, message) => {
    const failure = await fetchModel(id, { parts: [""], ...options }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(HubError);
    expect((failure as HubError).status).toBe(status);
    expect((failure as Error).message).toMatch(message);
  });

  it("weights that are there in another variant only", async () => {
    const { files } = server.repositories[ID]!;
    delete files[WEIGHTS];
    delete files["unet/diffusion_pytorch_model.bin"];
    await expect(fetchModel(ID, { parts: ["unet"] })).rejects.toThrow(/tiny-model\/unet: .*Ask for the variant "fp16"/);
    expect(server.fetched).toEqual(["model_index.json"]);
  });

  it("file names and revisions that lead out of the cache", async () => {
    server.repositories[ID]!.files["../../evil.json"] = "{}";
    await expect(fetchModel(ID, { parts: ["unet"] })).rejects.toThrow(/file name "\.\.\/\.\.\/evil\.json"/);
    await expect(fetchModel(ID, { parts: ["unet"], revision: "../x" })).rejects.toThrow(/revision must be/);
  });
});

describe("without the hub", () => {
  it("offline mode takes what is in the cache, and refuses the rest", async () => {
    await expect(fetchModel(ID, { parts: ["tokenizer"], localFilesOnly: true })).rejects.toThrow(/is not in .*offline/);
    const folder = await fetchModel(ID, { parts: ["tokenizer"] });
    server.requests.length = 0;
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await fetchModel(ID, { parts: ["tokenizer"] })).toBe(folder);
    expect(await fetchModel(ID, { parts: ["tokenizer"], revision: COMMIT })).toBe(folder);
    expect(server.requests).toEqual([]);
  });

  it("a model in the cache is used, and that is said", async () => {
    const folder = await fetchModel(ID, { parts: ["tokenizer"] });
    await server.stop();
    const messages: string[] = [];
    expect(await fetchModel(ID, { parts: ["tokenizer"], onMessage: (text) => messages.push(text) })).toBe(folder);
    expect(messages).toEqual([expect.stringMatching(/cannot be reached.*The copy in .* is used/)]);
    await expect(fetchModel("someone/other", { parts: [""] })).rejects.toThrow(/cannot be reached/);
  });
});

describe("locateModel", () => {
  it("takes a local folder before a model on the hub", async () => {
    const before = process.cwd();
    await mkdir(join(home, ID), { recursive: true });
    process.chdir(home);
    try {
      expect(await locateModel(ID, { parts: [""] })).toEqual({ kind: "folder", path: ID });
    } finally {
      process.chdir(before);
    }
    expect(server.requests).toEqual([]);
    expect(await locateModel("package.json", { parts: [""] })).toMatchObject({ kind: "file" });
  });

  it("says of a name that is on the hub neither, that its folder is here", async () => {
    const failure = await locateModel("src/none", { parts: [""], token: false }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(HubError);
    expect((failure as Error).message).toMatch(/The folder src is here, but has no none in it\.$/);
    const other = await locateModel("someone/none", { parts: [""], token: false }).catch((error: unknown) => error);
    expect((other as Error).message).not.toContain("is here");
  });

  it("asks the hub for nothing that can only be a path", async () => {
    for (const name of ["./a/b", "../a", "/none/such", "a/b/c", "a", "a/../b", "a/.b", "some..one/x"]) {
      await expect(locateModel(name, { parts: [""] })).rejects.toBeInstanceOf(FormatError);
    }
    expect(server.requests).toEqual([]);
  });
});
