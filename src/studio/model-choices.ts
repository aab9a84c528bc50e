// The models that the page offers: the one that comes with the library, and those that were named. Node only.

import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { quoted } from "../errors.js";
import { pathExists, readJsonObject } from "../storage/file-access.js";
import { isHubId } from "../storage/hub/index.js";
import type { ModelChoice } from "./protocol.js";
import { StudioError } from "./studio-error.js";

/** The id of the model that comes with the library. */
export const EMBEDDED = "embedded";

/** Models by what the page calls them. */
export class Models {
  /** @param named - As `--model` takes them: folders, single files, ids on the hub. */
  constructor(
    private readonly embedded: string,
    private readonly named: readonly string[],
  ) {}

  async list(): Promise<ModelChoice[]> {
    const ids = [...this.named.map(absolute), EMBEDDED];
    return Promise.all(
      [...new Set(ids)].map(async (id) => {
        const defaultSize = await sizeOf(this.pathOf(id));
        const label = id === EMBEDDED ? "embedded icon model" : existsSync(id) ? basename(id) : id;
        return { id, label, ...(defaultSize !== undefined && { defaultSize }) };
      }),
    );
  }

  /** Whether it is one of the list. */
  has(id: string): boolean {
    return id === EMBEDDED || this.named.map(absolute).includes(id);
  }

  /** What `--model` takes for a model of the list or of the hub. @throws {StudioError} For any other. */
  async chosenPath(id: string): Promise<string> {
    if (this.has(id) || (isHubId(id) && !(await pathExists(id)))) return this.pathOf(id);
    throw new StudioError(
      403,
      `The studio was not started with the model ${quoted(id)}. Start it with --model, or name one on the hub (OWNER/NAME).`,
    );
  }

  /** What the page calls the model of a run. */
  idOf(path: string): string {
    return path === this.embedded ? EMBEDDED : path;
  }

  /** What `--model` takes. */
  pathOf(id: string): string {
    return id === EMBEDDED ? this.embedded : id;
  }
}

const absolute = (model: string): string => (existsSync(model) ? resolve(model) : model);

/** Side in pixels that a folder's model was trained for, by its configurations; undefined where they do not tell. */
async function sizeOf(model: string): Promise<number | undefined> {
  const config = (part: string) => readJsonObject(join(model, part, "config.json")).catch(() => undefined);
  const [unet, vae] = await Promise.all([config("unet"), config("vae")]);
  const side = [unet?.sample_size].flat()[0];
  const blocks = vae?.block_out_channels ?? vae?.encoder_block_out_channels;
  if (typeof side !== "number" || !Array.isArray(blocks)) return undefined;
  return side * 2 ** (blocks.length - 1);
}
