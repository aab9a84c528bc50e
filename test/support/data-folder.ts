// Data folders for tests.

import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import sharp from "sharp";

/** Writes files by their paths into a new folder below `root`. */
export async function writeFolder(root: string, files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = await mkdtemp(join(root, "folder-"));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), content);
  }
  return dir;
}

/** A small PNG of one colour; another number gives another file. */
export function plainPng(colour = 0): Promise<Buffer> {
  const background = { r: colour % 256, g: Math.floor(colour / 256) % 256, b: 90 };
  return sharp({ create: { width: 8, height: 8, channels: 3, background } })
    .png()
    .toBuffer();
}
