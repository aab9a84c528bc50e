// The studio over HTTP: the page, and the addresses below /api/ for the holder of the token. Node only.

import { randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { type ServerType, serve } from "@hono/node-server";
import { Hono } from "hono";
import { FeraError, RuntimeError } from "../errors.js";
import { describeSystemError, isFailedWrite } from "../storage/file-access.js";
import { authorized, bracketed, entrance, knownHost, LOOPBACK, type Place, pageHeaders } from "./access.js";
import { routes } from "./routes.js";
import { pageFiles, servePageFile } from "./served-file.js";
import type { Studio } from "./studio.js";
import { StudioError } from "./studio-error.js";

/** The port where nothing else is asked for, and how many behind it are tried. */
export const DEFAULT_PORT = 5380;
const PORTS_TRIED = 20;

/** Settings of {@link startServer}. */
export interface ServerOptions {
  /** The address to listen on. */
  host: string;
  /** 0 for any that is free; by default the first free one from {@link DEFAULT_PORT} on. */
  port?: number | undefined;
  token: string;
  /** Folder of the built page. */
  page: string;
}

/** A server that listens. */
export interface StudioServer {
  port: number;
  /** With the token. */
  url: string;
  /** An address that opens the page once, without the token. */
  openOnce(): string;
  close(): Promise<void>;
}

/** @throws {RuntimeError} If the port is in use, or the address is none of this machine. */
export async function startServer(studio: Studio, options: ServerOptions): Promise<StudioServer> {
  const { host, token } = options;
  const files = await pageFiles(options.page);
  if (!files.has("/index.html")) {
    throw new RuntimeError(`${options.page} holds no page. Build it: npm run build:studio.`);
  }
  const place: Place = { token, port: 0, hosts: hostsOf(host), tickets: new Set() };
  const app = createApp(studio, () => place, files);
  const server = await listen(app, host, options.port);
  place.port = (server.address() as AddressInfo).port;
  const name = isEverywhere(host) ? "127.0.0.1" : bracketed(host);
  return {
    port: place.port,
    url: `http://${name}:${place.port}/?token=${token}`,
    openOnce: () => {
      const ticket = randomBytes(24).toString("base64url");
      place.tickets.add(ticket);
      return `http://${name}:${place.port}/?token=${ticket}`;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        if ("closeAllConnections" in server) server.closeAllConnections();
      }),
  };
}

function createApp(studio: Studio, place: () => Place, files: ReadonlyMap<string, string>): Hono {
  const app = new Hono();
  app.use(pageHeaders());
  app.onError((error, context) => {
    const { status, message } = answerTo(error);
    // Set anew: what the middleware set belongs to an answer that was not given.
    return context.json({ error: message }, status);
  });
  app.use(knownHost(place));
  app.use("/api/*", authorized(place));
  app.use("/api/*", async (context, next) => {
    await next();
    if (!context.res.headers.has("Cache-Control")) context.header("Cache-Control", "no-store");
  });
  app.route("/api", routes(studio));
  app.get("/", entrance(place));
  app.get("*", (context) => {
    const { path } = context.req;
    const file = files.get(path === "/" ? "/index.html" : path);
    if (file === undefined) throw new StudioError(404, "There is no such page.");
    return servePageFile(file);
  });
  app.all("*", () => {
    throw new StudioError(404, "There is no such page.");
  });
  return app;
}

/** What went wrong, as HTTP and in words. */
function answerTo(error: Error): { status: StudioError["status"]; message: string } {
  if (error instanceof StudioError) return { status: error.status, message: error.message };
  const refused = describeSystemError(error);
  if (refused !== undefined) return { status: 500, message: refused };
  if (error instanceof FeraError) return { status: isFailedWrite(error) ? 500 : 400, message: error.message };
  return { status: 500, message: `Unexpected error: ${error.message}` };
}

async function listen(app: Hono, host: string, port: number | undefined): Promise<ServerType> {
  if (port !== undefined) return listenAt(app, host, port);
  for (let next = DEFAULT_PORT; ; next++) {
    try {
      return await listenAt(app, host, next);
    } catch (error) {
      const isTaken = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === "EADDRINUSE";
      if (!isTaken || next >= DEFAULT_PORT + PORTS_TRIED) throw error;
    }
  }
}

function listenAt(app: Hono, host: string, port: number): Promise<ServerType> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host.replace(/^\[|\]$/g, ""), port }, () => resolve(server));
    server.once("error", (cause: NodeJS.ErrnoException) => reject(cannotListen(host, port, cause)));
  });
}

function cannotListen(host: string, port: number, cause: NodeJS.ErrnoException): RuntimeError {
  const where = `port ${port} of ${host}`;
  switch (cause.code) {
    case "EADDRINUSE":
      return new RuntimeError(
        `${where} is in use, perhaps by another fera studio. Close that, or choose another with --port N (0 for any free one).`,
        { cause },
      );
    case "EACCES":
      return new RuntimeError(`${where} may not be used by this user. Choose one above 1023 with --port N.`, { cause });
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return new RuntimeError(`${host} is no address of this machine. Choose another --host.`, { cause });
    default:
      return new RuntimeError(`${where} cannot be listened on: ${cause.message}.`, { cause });
  }
}

const isEverywhere = (host: string): boolean => host === "0.0.0.0" || host === "::" || host === "[::]";

/** Names by which the page may be called. */
function hostsOf(host: string): ReadonlySet<string> {
  const hosts = new Set([...LOOPBACK, bracketed(host.toLowerCase())]);
  if (isEverywhere(host)) {
    hosts.add(hostname().toLowerCase());
    for (const addresses of Object.values(networkInterfaces())) {
      for (const { address } of addresses ?? []) hosts.add(bracketed(address.toLowerCase()));
    }
  }
  return hosts;
}
