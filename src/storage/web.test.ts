import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { openStorage, readFileAt, writeFileAt } from "./storage.js";
import "./web.js";

let asked: { url: string; authorization: string | null }[];

beforeEach(() => {
  asked = [];
  // The platform's own fetch: what is asked for, and where, is what is to be seen.
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    asked.push({ url, authorization: new Headers(init.headers).get("authorization") });
    return new Response("{}");
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

it("a page's own folders and other addresses are read as they are named, without a token", async () => {
  await (await openStorage("models/tiny/", { token: "secret" })).read("unet/config.json");
  await readFileAt("https://example.org/a.safetensors?x=1");
  expect(asked).toEqual([
    { url: "models/tiny/unet/config.json", authorization: null },
    { url: "https://example.org/a.safetensors?x=1", authorization: null },
  ]);
});

it("a model that is marked as one of the hub is read from there, at its revision, with the token", async () => {
  const storage = await openStorage("hf://owner/name", { revision: "refs/pr/1", token: "secret" });
  await storage.read("unet/config.json");
  expect(asked).toEqual([
    {
      url: "https://huggingface.co/owner/name/resolve/refs%2Fpr%2F1/unet/config.json",
      authorization: "Bearer secret",
    },
  ]);
});

it("nothing is written", async () => {
  await expect(writeFileAt("a.safetensors", new Uint8Array(1))).rejects.toThrow(
    /a\.safetensors: a page cannot write files; offer the bytes of fera\.toSafetensors\(\) as a download/,
  );
});
