// Who may ask `fera studio` what: its token, its name, its page, its folders.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { plainPng } from "../support/data-folder.js";
import { runFera } from "../support/fera-program.js";
import { type StartedStudio, startStudio } from "../support/studio.js";

let dir: string;
let data: string;
let runs: string;
let studio: StartedStudio;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-studio-"));
  data = join(dir, "pictures");
  runs = join(dir, "runs");
  for (const folder of [join(data, "red"), join(runs, "old"), join(dir, "secret")])
    await mkdir(folder, { recursive: true });
  await writeFile(join(data, "red/a.png"), await plainPng());
  await writeFile(join(dir, "secret/b.png"), await plainPng(5));
  await writeFile(join(dir, "secret/words.txt"), "secret");
  await symlink(join(dir, "secret"), join(data, "red/link"));
  await symlink(join(dir, "secret/words.txt"), join(runs, "old/link.png"));
  await writeFile(join(runs, "old/run.json"), JSON.stringify({ fera: "0.1.0", model: "m", steps: 4, adapter: "lora" }));
  await writeFile(join(runs, "old/metrics.jsonl"), `${JSON.stringify({ step: 4, loss: 0.5, steps: 4 })}\n`);
  await mkdir(join(dir, "outside/checkpoints"), { recursive: true });
  await writeFile(join(dir, "outside/run.json"), JSON.stringify({ model: "hidden-model", steps: 4 }));
  await symlink(join(dir, "outside"), join(runs, "linked"));
  // As a runs folder from elsewhere could have it.
  for (const folder of [".studio", "stopped"]) await mkdir(join(runs, folder), { recursive: true });
  await writeFile(join(runs, "stopped/run.json"), JSON.stringify({ adapterName: "../../secret/weights.safetensors" }));
  await writeFile(join(dir, "secret/weights.safetensors"), "kept");
  const record = { state: "stopped", config: {}, isStarted: true, changedAt: 0 };
  const records = [{ ...record, id: "stopped" }, { ...record, id: "../outside" }, { ...record, id: 5 }, null];
  await writeFile(join(runs, ".studio/runs.json"), JSON.stringify({ runs: records }));
  studio = await startStudio({ data: [data], runs });
});

afterAll(async () => {
  await studio.stop();
  await rm(dir, { recursive: true });
});

/** As any program can send it: fetch does not let a Host be set. */
function send(path: string, headers: Record<string, string> = {}, method = "GET", body?: string) {
  return new Promise<{ status: number; text: string; headers: NodeJS.Dict<string | string[]> }>((resolve, reject) => {
    // Each on a connection of its own: what is refused before it is read ends the one that it came on.
    const sent = request(`${studio.origin}${path}`, { method, headers, agent: false }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      answer.on("end", () => resolve({ status: answer.statusCode!, text, headers: answer.headers }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

const bearer = () => ({ Authorization: `Bearer ${studio.token}` });
const cookie = () => ({ Cookie: `fera-studio-${new URL(studio.origin).port}=${studio.token}` });

describe("the token", () => {
  it.each([
    ["none", {}, ""],
    ["a wrong one", { Authorization: "Bearer wrong" }, ""],
    ["one that is nearly right", { Authorization: "Bearer TOKENx" }, ""],
    ["a wrong one in the address", {}, "?token=wrong"],
  ])("%s opens nothing below /api/, in words", async (_, headers, query) => {
    for (const path of ["state", "dataset/image", "run/file", "events", "nothing"]) {
      const { Authorization } = headers as Record<string, string>;
      const given: Record<string, string> = {};
      if (Authorization) given.Authorization = Authorization.replace("TOKEN", studio.token);
      const { status, text } = await send(`/api/${path}${query}`, given);
      expect(status, path).toBe(401);
      expect(JSON.parse(text).error).toMatch(/token/);
    }
  });

  it("opens it as a bearer, in the address and as the cookie of the first page", async () => {
    expect((await send("/api/state", bearer())).status).toBe(200);
    expect((await send(`/api/state?token=${studio.token}`)).status).toBe(200);
    expect((await send("/api/state", cookie())).status).toBe(200);
  });

  it("moves from the opened address into a cookie that scripts cannot read", async () => {
    const { status, headers } = await send(`/?token=${studio.token}`);
    expect([status, headers.location]).toEqual([303, "/"]);
    expect(headers["set-cookie"]![0]).toMatch(/^fera-studio-\d+=.*HttpOnly; SameSite=Strict/);
    expect((await send("/?token=wrong")).status).toBe(401);
  });
});

describe("pages of other sites", () => {
  it("cannot use another name for this machine", async () => {
    for (const Host of ["evil.example", `evil.example:${new URL(studio.origin).port}`, "127.0.0.1:1"]) {
      expect((await send("/api/state", { ...bearer(), Host })).status, Host).toBe(403);
      expect((await send("/", { Host })).status, Host).toBe(403);
    }
    const { port } = new URL(studio.origin);
    expect((await send("/api/state", { ...bearer(), Host: `localhost:${port}` })).status).toBe(200);
  });

  it("cannot change anything, with the cookie that a browser adds", async () => {
    const post = (headers: Record<string, string>) =>
      send("/api/datasets", { "Content-Type": "application/json", ...headers }, "POST", '{"label":"made"}');
    const own = { ...cookie(), "X-Fera-Studio": "1" };
    expect((await post(cookie())).status, "without the header").toBe(403);
    expect((await post({ ...own, Origin: "https://evil.example" })).status, "of another origin").toBe(403);
    expect((await post({ ...bearer(), Origin: "null" })).status, "of no origin").toBe(403);
    expect((await post({ ...own, Origin: studio.origin })).status).toBe(200);
  });

  it("cannot ask for anything either, not even one of another port of this machine, whose site is the same", async () => {
    for (const site of ["same-site", "cross-site"]) {
      for (const path of ["state", "events", "run/file?id=old&file=metrics.jsonl"]) {
        expect((await send(`/api/${path}`, { ...cookie(), "Sec-Fetch-Site": site })).status, path).toBe(403);
      }
    }
    for (const site of ["same-origin", "none"]) {
      expect((await send("/api/state", { ...cookie(), "Sec-Fetch-Site": site })).status).toBe(200);
    }
  });

  it("cannot frame it, and its own page runs no script but its own", async () => {
    for (const path of ["/", "/api/state", "/nothing"]) {
      const { headers } = await send(path);
      expect(headers["content-security-policy"]).toMatch(/script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'/);
      expect(headers["content-security-policy"]).toMatch(/frame-ancestors 'none'/);
      expect(headers["x-content-type-options"]).toBe("nosniff");
      expect(headers["cross-origin-opener-policy"]).toBe("same-origin");
      expect(headers["cross-origin-embedder-policy"]).toBe("require-corp");
      expect(headers["referrer-policy"]).toBe("no-referrer");
      expect(headers["access-control-allow-origin"]).toBeUndefined();
    }
  });
});

describe("what is read", () => {
  const get = (path: string, query: Record<string, string>) =>
    send(`/api/${path}?${new URLSearchParams(query)}`, bearer());

  it("lies in the chosen folders: not beside them, not above them, not behind links", async () => {
    const red = join(data, "red");
    const outside = [
      ["dataset", { id: join(dir, "secret"), resolution: "64" }],
      ["dataset", { id: "/etc", resolution: "64" }],
      ["dataset", { id: `${red}/../../secret`, resolution: "64" }],
      ["dataset", { id: join(red, "link"), resolution: "64" }],
      ["dataset/image", { id: red, image: "../../secret/b.png" }],
      ["dataset/image", { id: red, image: "link/b.png" }],
      ["dataset/image", { id: red, image: join(dir, "secret/b.png") }],
      ["run/file", { id: "old", file: "../../secret/words.txt" }],
      ["run/file", { id: "old", file: "link.png" }],
      ["run/file", { id: "../secret", file: "words.txt" }],
      ["run/file", { id: "..", file: "secret/words.txt" }],
      ["run/metrics", { id: "../../../etc" }],
      ["drawing", { id: "../../../secret/words.txt" }],
    ] as const;
    for (const [path, query] of outside) {
      const { status, text } = await get(path, query);
      expect(status, JSON.stringify([path, query, text])).toBe(403);
      expect(JSON.parse(text).error.length).toBeGreaterThan(20);
      expect(text).not.toContain('secret"}');
    }
    expect((await get("dataset", { id: red, resolution: "64" })).status).toBe(200);
    expect((await get("dataset/image", { id: red, image: "a.png" })).headers["content-type"]).toBe("image/webp");
    expect((await get("run/file", { id: "old", file: "metrics.jsonl" })).text).toContain('"loss":0.5');
  });

  it("is nothing of the page's folder but the page", async () => {
    for (const path of ["/../package.json", "/..%2fpackage.json", "/%2e%2e/cli/main.js", "/api/../../x"]) {
      expect((await send(path)).status, path).not.toBe(200);
    }
    expect((await send("/")).text).toContain("<!doctype html>");
  });

  it("is named where the request is wrong", async () => {
    expect(JSON.parse((await get("dataset", { id: data })).text).error).toMatch(/resolution/);
    expect(JSON.parse((await get("run/metrics", { id: "old", from: "-1" })).text).error).toMatch(/from .*"-1"/);
    const broken = await send("/api/check", { ...bearer(), "Content-Type": "application/json" }, "POST", "{");
    expect([broken.status, JSON.parse(broken.text).error]).toEqual([400, "The request must hold JSON."]);
    const large = await send("/api/check", bearer(), "POST", `{"settings":"${"x".repeat(2 ** 21)}"}`);
    expect(large.status).toBe(413);
  });
});

describe("what is changed", () => {
  const act = async (id: string, action: string) => {
    const { status, text } = await send("/api/run/action", bearer(), "POST", JSON.stringify({ id, action }));
    return { status, error: text === "" ? "" : (JSON.parse(text).error as string) };
  };

  it("is no run beside the runs folder, above it or behind a link out of it", async () => {
    for (const id of ["../outside", "old/../../outside", "..", ".", ".studio", "a\\..", "\0", "", "linked"]) {
      for (const action of ["resume", "remove", "stop"]) expect((await act(id, action)).status, id).toBe(403);
    }
    const linked = await send("/api/run?id=linked", bearer());
    expect(linked.status).toBe(403);
    expect(linked.text).not.toContain("hidden-model");
    expect(await act("none", "pause")).toEqual({ status: 404, error: 'There is no run "none".' });
    expect((await act("old", "pause")).error).toMatch(/was started on the command line/);
  });

  it("is no file that a run's own run.json names outside its folder", async () => {
    const runs = JSON.parse((await send("/api/runs", bearer())).text) as { id: string }[];
    expect(runs.map(({ id }) => id).sort()).toEqual(["old", "stopped"]);
    expect((await act("stopped", "remove")).status).toBe(204);
    expect(await readFile(join(dir, "secret/weights.safetensors"), "utf8")).toBe("kept");
  });
});

describe("the program", () => {
  it("says which port is in use, and what to do", async () => {
    const { port } = new URL(studio.origin);
    const { code, stderr } = await runFera("studio", "--no-open", "--port", port, "--runs", runs);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`port ${port} .*in use.*--port N`));
  });

  it("has a token that lasts, so that its page finds a restarted one again; nobody else can read it", async () => {
    const path = join(runs, ".studio/token");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const port = Number(new URL(studio.origin).port);
    const { token } = studio;
    expect(await studio.stop()).toBe(0);
    studio = await startStudio({ data: [data], runs, port });
    expect(studio.token).toBe(token);
    expect((await send("/api/state", cookie())).status).toBe(200);
    expect((await send("/api/run/file?id=.studio&file=token", bearer())).status).toBe(403);
  });

  it("leaves runs alone that another studio has, and names a folder that is not there", async () => {
    const second = await runFera("studio", "--no-open", "--port", "0", "--runs", runs);
    expect([second.code, second.stderr]).toEqual([
      1,
      expect.stringMatching(/another fera studio is at work with these runs/),
    ]);
    const missing = await runFera("studio", "--no-open", "--data", join(dir, "nowhere"), "--runs", join(dir, "others"));
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringMatching(/nowhere: there is no such folder/)]);
  });

  it("refuses an address that is none of this machine", async () => {
    const { code, stderr } = await runFera("studio", "--no-open", "--host", "192.0.2.1", "--runs", runs);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/192\.0\.2\.1 is no address of this machine/)]);
  });

  it("listens on this machine only, and says so where it is told to listen elsewhere", async () => {
    const { stdout } = await promisify(execFile)("cat", [`/proc/${studio.pid}/net/tcp`]).catch(() => ({ stdout: "" }));
    const port = Number(new URL(studio.origin).port).toString(16).toUpperCase().padStart(4, "0");
    if (stdout !== "") expect(stdout).toMatch(new RegExp(` 0100007F:${port} `));
    const everywhere = await startStudio({ runs: join(dir, "others"), args: ["--host", "0.0.0.0"] });
    try {
      // It comes behind the address, and through another pipe.
      const warned = () => expect(everywhere.output()).toMatch(/warning .*other machines can reach the studio/);
      await vi.waitFor(warned, { timeout: 30_000 });
    } finally {
      expect(await everywhere.stop("SIGINT")).toBe(0);
    }
  });
});
