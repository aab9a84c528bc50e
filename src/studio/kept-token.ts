// The token of a runs folder: the same one at every start, so that an open page finds a restarted studio again. Node only.

import { randomBytes } from "node:crypto";
import { lstat, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder } from "../storage/file-access.js";
import { STUDIO_FOLDER } from "./run-records.js";

const TOKEN = /^[\w-]{32}$/;
/** Rights of anybody but the owner. */
const OTHERS = 0o077;

/** Reads it, or makes one: where there is none, and where others could have read or written it. */
export async function keptToken(runs: string): Promise<string> {
  const folder = join(runs, STUDIO_FOLDER);
  const path = join(folder, "token");
  const known = await lstat(path).catch(() => undefined);
  // Windows has no such rights.
  const isPrivate = known?.isFile() && (process.platform === "win32" || (known.mode & OTHERS) === 0);
  const kept = isPrivate ? (await readFile(path, "utf8")).trim() : "";
  if (TOKEN.test(kept)) return kept;
  const token = randomBytes(24).toString("base64url");
  await makeFolder(folder);
  await rm(path, { force: true });
  const handle = await open(path, "wx", 0o600);
  await handle.writeFile(`${token}\n`).finally(() => handle.close());
  return token;
}
