// What an adapter is called in the settings that a picture carries.

import { basename, dirname, extname, resolve } from "node:path";

/**
 * Its file's name; that of its folder where a training wrote it, as those all call it `adapter.safetensors`.
 *
 * @returns Such as `inks.safetensors`, for `runs/inks/adapter.safetensors` too.
 */
export function adapterName(path: string): string {
  const whole = resolve(path);
  const name = basename(whole);
  const type = extname(name);
  return name === `adapter${type}` ? `${basename(dirname(whole))}${type}` : name;
}
