// The environment variables of Python's huggingface_hub, and the options that go before them. Node only.

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { ConfigError } from "../../errors.js";
import type { HubOptions } from "./hub-options.js";

/** Where the hub is, where its files are kept, and who asks. */
export interface HubSettings {
  /** Without a slash at the end. */
  endpoint: string;
  cacheDir: string;
  token: string | undefined;
  offline: boolean;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";

/**
 * Reads `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and their older names.
 *
 * @throws {ConfigError} If the endpoint is no http address.
 */
export async function hubSettings(
  { token, cacheDir, localFilesOnly = false }: Pick<HubOptions, "token" | "cacheDir" | "localFilesOnly">,
  env: NodeJS.ProcessEnv = process.env,
): Promise<HubSettings> {
  const home = env.HF_HOME
    ? expanded(env.HF_HOME)
    : join(env.XDG_CACHE_HOME ? expanded(env.XDG_CACHE_HOME) : join(homedir(), ".cache"), "huggingface");
  const cache = cacheDir ?? (env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"));
  return {
    endpoint: checkedEndpoint(env.HF_ENDPOINT || DEFAULT_ENDPOINT),
    cacheDir: expanded(cache),
    token: token === undefined ? await storedToken(env, home) : token || undefined,
    offline: localFilesOnly || isSet(env.HF_HUB_OFFLINE) || isSet(env.TRANSFORMERS_OFFLINE),
  };
}

/** Whether a name can be a model's on the hub: owner/name. */
export function isHubId(name: string): boolean {
  const part = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?$/;
  const parts = name.split("/");
  return parts.length === 2 && parts.every((text) => part.test(text) && !/--|\.\./.test(text));
}

async function storedToken(env: NodeJS.ProcessEnv, home: string): Promise<string | undefined> {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (given) return given.trim();
  if (isSet(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const file = env.HF_TOKEN_PATH ? expanded(env.HF_TOKEN_PATH) : join(home, "token");
  const text = await readFile(file, "utf8").catch(() => "");
  return text.trim() || undefined;
}

function checkedEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "https:" && url?.protocol !== "http:") {
    throw new ConfigError(`HF_ENDPOINT must be an http or https address; got ${JSON.stringify(text)}.`);
  }
  return text.replace(/\/+$/, "");
}

function expanded(path: string): string {
  return resolve(path.replace(/^~(?=$|[/\\])/, homedir()));
}

function isSet(value: string | undefined): boolean {
  return /^(1|on|yes|true)$/i.test(value ?? "");
}
