// The folder for files that can be made again. Node only.

import { homedir } from "node:os";
import path from "node:path";

/** Where fera keeps files that it can make again: `FERA_CACHE`, else `XDG_CACHE_HOME/fera`, else `~/.cache/fera`. */
export function cacheFolder(): string {
  if (process.env.FERA_CACHE) return path.resolve(process.env.FERA_CACHE);
  const base = process.env.XDG_CACHE_HOME;
  return path.join(base && path.isAbsolute(base) ? base : path.join(homedir(), ".cache"), "fera");
}
