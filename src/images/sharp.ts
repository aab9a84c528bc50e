// The image library of Node, loaded on first use: a program that draws nothing and reads no image never loads it.

import { RuntimeError } from "../errors.js";

/** sharp. @throws {RuntimeError} If it is not installed or does not run on this machine. */
export async function loadSharp(): Promise<typeof import("sharp")["default"]> {
  try {
    return (await import("sharp")).default;
  } catch (cause) {
    throw new RuntimeError(
      `images: the package "sharp" cannot be loaded (${(cause as Error).message.split("\n")[0]}). Install it: npm install sharp.`,
      { cause },
    );
  }
}
