import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, normalize } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { SD1_LAYOUT, singleFileOf } from "./support/single-file.js";
import "../src/storage/node.js";
import "../src/runtime/node.js";
import { readAdapter } from "../src/adapters/index.js";
import { FormatError } from "../src/errors.js";
import { CLIPTextModel } from "../src/models/index.js";
import { StableDiffusionPipeline } from "../src/pipelines/index.js";
import { DDIMScheduler } from "../src/schedulers/index.js";
import type { DownloadProgress } from "../src/storage/hub/index.js";
import { encodeSafetensors, readSafetensors } from "../src/storage/index.js";
import { addressStorage } from "../src/storage/url-storage.js";

const ROOT = "test/reference";
const TINY = "pipeline-tiny";

let server: Server;
let address: string;
let requests: string[];
let knowsRanges = true;
/** Files that lie on no disk. */
const made = new Map<string, Uint8Array>();
/** Answers in place of a file. */
let special: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = normalize(decodeURIComponent(request.url!.split("?")[0]!)).slice(1);
  requests.push(`${request.method} ${path}`);
  if (special?.(request, response)) return;
  const bytes = made.get(path) ?? (await readFile(join(ROOT, path)).catch(() => undefined));
  if (!bytes) {
    response.writeHead(404).end();
    return;
  }
  const range = knowsRanges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") : null;
  const part = range ? bytes.subarray(Number(range[1]), Number(range[2]) + 1) : bytes;
  response.writeHead(range ? 206 : 200, { "content-length": part.length, etag: `"${bytes.length}"` });
  response.end(request.method === "HEAD" ? undefined : part);
}

beforeAll(async () => {
  server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
afterEach(() => {
  special = undefined;
  knowsRanges = true;
  made.clear();
});
const reset = () => {
  requests = [];
};
reset();

async function latentsOf(pipeline: StableDiffusionPipeline) {
  const { latents } = await pipeline.generate({ prompt: "a red circle", steps: 2, seed: 1 });
  await pipeline.release();
  return latents.data;
}

describe("a model behind an address", () => {
  it("gives what its folder gives, reports its bytes, and each of its weights comes once", async () => {
    reset();
    const progress: DownloadProgress[] = [];
    const onProgress = (each: DownloadProgress) => progress.push(each);
    const remote = await StableDiffusionPipeline.fromPretrained(`${address}/${TINY}`, { onProgress });
    expect(requests.filter((each) => /^GET .*safetensors$/.test(each)).sort()).toEqual([
      `GET ${TINY}/text_encoder/model.safetensors`,
      `GET ${TINY}/unet/diffusion_pytorch_model.safetensors`,
      `GET ${TINY}/vae/diffusion_pytorch_model.safetensors`,
    ]);
    const unet = progress.filter(({ path }) => path === "unet/diffusion_pytorch_model.safetensors");
    expect(unet.length).toBeGreaterThan(1);
    for (const { receivedBytes, totalBytes } of progress) expect(receivedBytes).toBeLessThanOrEqual(totalBytes);
    expect(unet.at(-1)!.receivedBytes).toBe(unet.at(-1)!.totalBytes);
    const local = await StableDiffusionPipeline.fromPretrained(join(ROOT, TINY));
    expect(await latentsOf(remote)).toEqual(await latentsOf(local));
  });

  it.each([true, false])("may be a single file, with a server that knows ranges: %s", async (ranges) => {
    knowsRanges = ranges;
    made.set("one.safetensors", encodeSafetensors(await singleFileOf(join(ROOT, TINY), SD1_LAYOUT)));
    const options = { config: `${address}/${TINY}` };
    const remote = await StableDiffusionPipeline.fromSingleFile(`${address}/one.safetensors?download=true`, options);
    const local = await StableDiffusionPipeline.fromPretrained(join(ROOT, TINY));
    expect(await latentsOf(remote)).toEqual(await latentsOf(local));
  });

  it("has schedulers and adapters, too", async () => {
    const scheduler = await DDIMScheduler.fromPretrained(`${address}/${TINY}`, { subfolder: "scheduler" });
    expect(scheduler.config.beta_schedule).toBe("scaled_linear");
    const adapter = await readAdapter(`${address}/unet-sd15/adapters_trained.safetensors`);
    expect(adapter.state.size).toBe((await readAdapter(`${ROOT}/unet-sd15/adapters_trained.safetensors`)).state.size);
  });

  it("ends with the standard AbortError while its weights come", async () => {
    const controller = new AbortController();
    const onProgress = ({ path }: DownloadProgress) => {
      if (path.startsWith("unet/diffusion")) controller.abort();
    };
    const options = { onProgress, signal: controller.signal };
    const failure = await StableDiffusionPipeline.fromPretrained(`${address}/${TINY}`, options).catch((error) => error);
    expect(failure).toBeInstanceOf(DOMException);
    expect(failure.name).toBe("AbortError");
  });

  it("that is missing is refused by its address", async () => {
    const load = (path: string) => CLIPTextModel.fromPretrained(`${address}/${path}`);
    await expect(load("none")).rejects.toThrow(/none\/text_encoder\/config\.json: the server has no such file/);
    await expect(StableDiffusionPipeline.fromPretrained(`${address}/none`)).rejects.toThrow(
      /model_index\.json: the server/,
    );
    special = (_, response) => {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<html>");
      return true;
    };
    await expect(load(TINY)).rejects.toThrow(/config\.json: the server has no such file/);
    special = (_, response) => {
      response.writeHead(503).end();
      return true;
    };
    await expect(load(TINY)).rejects.toThrow(/config\.json: the server answered 503/);
    await expect(CLIPTextModel.fromPretrained("http://127.0.0.1:9/x")).rejects.toThrow(FormatError);
  });
});

describe("a storage behind an address", () => {
  it("reads ranges from servers with and without ranges, and knows sizes", async () => {
    const storage = addressStorage(`${address}/unet-sd15`);
    const whole = await readFile(join(ROOT, "unet-sd15/adapters_trained.safetensors"));
    for (const ranges of [true, false]) {
      knowsRanges = ranges;
      const part = await storage.read("adapters_trained.safetensors", { offset: 1000, length: 3000 });
      expect(Buffer.from(part!)).toEqual(whole.subarray(1000, 4000));
      expect(await storage.size("adapters_trained.safetensors")).toBe(whole.length);
    }
    expect(await storage.read("none")).toBeUndefined();
    expect(await storage.exists("none")).toBe(false);
    expect(await storage.list()).toBeUndefined();
  });

  it("refuses a file that is cut off on the way", async () => {
    special = (_, response) => {
      response.writeHead(200, { "content-length": 100 });
      response.write(Buffer.alloc(40));
      setTimeout(() => response.destroy(), 50);
      return true;
    };
    await expect(addressStorage(address).read("x")).rejects.toThrow(/\/x: the connection broke off at byte 40/);
  });

  it("asks for a file's content where a server answers no questions about it", async () => {
    special = (request, response) => {
      if (request.method !== "HEAD") return false;
      response.writeHead(405).end();
      return true;
    };
    expect(await addressStorage(address).exists("random.safetensors")).toBe(true);
    expect((await readSafetensors(join(ROOT, "random.safetensors"))).tensors.size).toBeGreaterThan(0);
  });
});
