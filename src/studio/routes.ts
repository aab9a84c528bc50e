// The addresses below /api/: each reads its request, asks the studio, and answers JSON or a file.

import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { quoted } from "../errors.js";
import { isObject } from "../storage/json.js";
import { eventStream } from "./event-hub.js";
import type { DataSetQuery, RunAction } from "./protocol.js";
import { serveUserFile } from "./served-file.js";
import type { Studio } from "./studio.js";
import { StudioError } from "./studio-error.js";

/** Most bytes of a request that is no file. */
const JSON_BYTES = 2 ** 20;

/** All of them, for a server that has checked who asks. */
export function routes(studio: Studio): Hono {
  const api = new Hono();
  const limited = bodyLimit({
    maxSize: JSON_BYTES,
    onError: () => {
      throw new StudioError(413, `A request may have ${JSON_BYTES} bytes at most.`);
    },
  });
  // Files have their own limit.
  api.post("/*", async (c, next) => (c.req.path.endsWith("/dataset/files") ? next() : limited(c, next)));

  api.get("/state", async (c) => c.json(await studio.state()));
  api.get("/events", (c) => eventStream(studio.events, c.req.raw.signal));
  api.get("/options", (c) => c.json(studio.options()));
  api.get("/samplers", (c) => c.json(studio.samplers()));

  api.get("/dataset", async (c) =>
    c.json(await studio.dataSets.view(asked(c.req.query("id"), "id"), dataSetQuery(c.req.query()))),
  );
  api.get("/dataset/image", async (c) => {
    const { id, image, side = "256" } = c.req.query();
    const bytes = await studio.dataSets.image(asked(id, "id"), asked(image, "image"), Number(side));
    return c.body(bytes as Uint8Array<ArrayBuffer>, 200, {
      "Content-Type": bytes[0] === 0x89 ? "image/png" : "image/webp",
      "Cache-Control": "private, no-cache",
    });
  });

  api.post("/datasets", async (c) => c.json(await studio.imageFiles.create((await bodyOf(c)).text("label"))));
  api.post("/dataset/files", async (c) => {
    const { id, name } = c.req.query();
    return c.json(await studio.imageFiles.add(asked(id, "id"), asked(name, "name"), c.req.raw.body));
  });
  api.post("/dataset/caption", async (c) => {
    const body = await bodyOf(c);
    await studio.imageFiles.setCaption(body.text("id"), body.text("image"), body.text("caption"));
    return c.body(null, 204);
  });
  api.post("/dataset/remove", async (c) => {
    const body = await bodyOf(c);
    await studio.imageFiles.remove(body.text("id"), body.text("image"));
    return c.body(null, 204);
  });

  api.get("/runs", async (c) => c.json(await studio.runs.list()));
  api.get("/run", async (c) => c.json(await studio.runs.details(asked(c.req.query("id"), "id"))));
  api.get("/run/metrics", async (c) => {
    const { id, from = "0" } = c.req.query();
    return c.json(await studio.runs.metrics(asked(id, "id"), count(from, "from")));
  });
  api.get("/run/file", async (c) => {
    const { id, file } = c.req.query();
    return serveUserFile(await studio.runs.file(asked(id, "id"), asked(file, "file")));
  });
  api.post("/check", async (c) => c.json(await studio.check((await bodyOf(c)).object("settings"))));
  api.post("/predict", async (c) =>
    c.json(await studio.predict((await bodyOf(c)).object("settings"), c.req.raw.signal)),
  );
  api.post("/runs", async (c) => {
    const body = await bodyOf(c);
    return c.json(await studio.start(body.text("name"), body.object("settings")));
  });
  api.post("/run/action", async (c) => {
    const body = await bodyOf(c);
    await studio.act(body.text("id"), body.text("action") as RunAction);
    return c.body(null, 204);
  });

  api.get("/adapters", async (c) => c.json(await studio.runs.adapters()));
  api.post("/drawings", async (c) => c.json({ job: await studio.drawings.draw((await bodyOf(c)).all) }));
  api.post("/drawings/cancel", async (c) => {
    studio.drawings.cancel((await bodyOf(c)).text("job"));
    return c.body(null, 204);
  });
  api.get("/drawing", async (c) => serveUserFile(await studio.drawings.file(asked(c.req.query("id"), "id"))));
  api.all("*", (c) => {
    throw new StudioError(404, `The studio has no ${c.req.method} ${c.req.path}.`);
  });
  return api;
}

/** A request's JSON object, whose parts are asked for by name. */
async function bodyOf(context: Context) {
  const body: unknown = await context.req.json().catch((cause: unknown) => {
    if (cause instanceof StudioError) throw cause;
    throw new StudioError(400, "The request must hold JSON.", { cause });
  });
  if (!isObject(body)) throw new StudioError(400, "The request must hold a JSON object.");
  return {
    all: body,
    text(name: string): string {
      if (typeof body[name] === "string") return body[name];
      throw new StudioError(400, `${name} must be a text; got ${quoted(body[name])}.`);
    },
    object(name: string): Record<string, unknown> {
      if (isObject(body[name])) return body[name];
      throw new StudioError(400, `${name} must be an object; got ${quoted(body[name])}.`);
    },
  };
}

function asked(value: string | undefined, name: string): string {
  if (value !== undefined && value !== "") return value;
  throw new StudioError(400, `The request lacks ${name}.`);
}

function count(text: string, name: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new StudioError(400, `${name} must be an integer of 0 or more; got ${JSON.stringify(text)}.`);
}

const MOST_PIXELS = 8192;

function dataSetQuery({ resolution = "", bucket }: Record<string, string>): DataSetQuery {
  const side = count(resolution, "resolution");
  if (side >= 1 && side <= MOST_PIXELS) return { resolution: side, bucket: bucket === "true" };
  throw new StudioError(400, `resolution must be an integer from 1 to ${MOST_PIXELS}; got ${side}.`);
}
