// Who may ask: the holder of the token, from this page only. Against pages of other sites that a browser shows beside this
// one: the Host header (DNS rebinding), the Origin and a header of our own (requests that such a page sends).

import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { secureHeaders } from "hono/secure-headers";
import { StudioError } from "./studio-error.js";

/** Where the studio is reached. */
export interface Place {
  token: string;
  port: number;
  /** Names and addresses by which it may be called, without the port. */
  hosts: ReadonlySet<string>;
  /** Stand for the token once each: what starts a browser can be read by every user of the machine. */
  tickets: Set<string>;
}

/** The header without which nothing is changed: a form of another site cannot send it. */
export const STUDIO_HEADER = "X-Fera-Studio";

/** Names of this machine for itself, as they stand in an address. */
export const LOOPBACK: readonly string[] = ["127.0.0.1", "localhost", "[::1]"];

/** An address as it stands in a URL: IPv6 in brackets. */
export const bracketed = (address: string): string =>
  address.includes(":") && !address.startsWith("[") ? `[${address}]` : address;

/** Whether only this machine can reach what listens there. */
export const isLoopback = (host: string): boolean => LOOPBACK.includes(bracketed(host.toLowerCase()));

/** Headers of every answer. Scripts come from here alone; threads need a page that is cross-origin isolated. */
export const pageHeaders = (): MiddlewareHandler =>
  secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
      scriptSrc: ["'self'", "'wasm-unsafe-eval'"],
      workerSrc: ["'self'"],
      // Charts and pictures are placed by style attributes.
      styleSrc: ["'self'", "'unsafe-inline'"],
      imgSrc: ["'self'", "blob:", "data:"],
      connectSrc: ["'self'"],
      manifestSrc: ["'self'"],
    },
    crossOriginOpenerPolicy: "same-origin",
    crossOriginEmbedderPolicy: "require-corp",
    crossOriginResourcePolicy: "same-origin",
    referrerPolicy: "no-referrer",
    xFrameOptions: "DENY",
    // There is no TLS on this machine's own address.
    strictTransportSecurity: false,
  });

/** Refuses calls under a name that is none of ours. */
export function knownHost(place: () => Place): MiddlewareHandler {
  return async (context, next) => {
    const { hosts, port } = place();
    const host = (context.req.header("host") ?? "").toLowerCase();
    const [, name = "", number = "80"] = /^(.*?)(?::(\d+))?$/.exec(host) ?? [];
    if (!hosts.has(name) || Number(number) !== port) {
      throw new StudioError(403, `The studio does not answer under the name ${JSON.stringify(host)}.`);
    }
    await next();
  };
}

/** The first page, `/?token=…`: keeps the token in a cookie that scripts cannot read, and takes it out of the address. */
export function entrance(place: () => Place): MiddlewareHandler {
  return async (context, next) => {
    const given = context.req.query("token");
    if (given === undefined) return next();
    const { token, port, tickets } = place();
    if (!tickets.delete(given) && !isSame(given, token)) throw wrongToken();
    setCookie(context, cookieName(port), token, { httpOnly: true, sameSite: "Strict", path: "/" });
    return context.redirect("/", 303);
  };
}

/** Asks for the token, and for what changes something also where it comes from. */
export function authorized(place: () => Place): MiddlewareHandler {
  return async (context, next) => {
    const { token, port } = place();
    const bearer = /^Bearer (.+)$/i.exec(context.req.header("authorization") ?? "")?.[1];
    const given = bearer ?? context.req.query("token") ?? getCookie(context, cookieName(port));
    if (given === undefined || !isSame(given, token)) throw wrongToken();
    // A page of another port of this machine is of the same site: the cookie comes with what it asks for.
    const site = context.req.header("sec-fetch-site");
    if (site !== undefined && site !== "same-origin" && site !== "none") {
      throw new StudioError(403, "Only the studio's own page may ask: this request came from a page elsewhere.");
    }
    const isReading = context.req.method === "GET" || context.req.method === "HEAD";
    if (!isReading) checkOrigin(context, bearer !== undefined);
    await next();
  };
}

function checkOrigin(context: Context, hasBearer: boolean): void {
  const origin = context.req.header("origin");
  // The Host is one of ours by now.
  if (origin !== undefined && origin !== `http://${(context.req.header("host") ?? "").toLowerCase()}`) {
    throw new StudioError(
      403,
      `Requests from ${JSON.stringify(origin)} are refused: only the studio's own page may send them.`,
    );
  }
  if (!hasBearer && context.req.header(STUDIO_HEADER) === undefined) {
    throw new StudioError(403, `What changes something must have the header ${STUDIO_HEADER}.`);
  }
}

/** Cookies are shared by all ports of a host. */
const cookieName = (port: number): string => `fera-studio-${port}`;

const wrongToken = (): StudioError =>
  new StudioError(
    401,
    "The token is missing or not the studio's. Open the address that fera studio printed in its terminal.",
  );

/** In a time that tells nothing of where they differ. */
function isSame(a: string, b: string): boolean {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(hash(a), hash(b));
}
