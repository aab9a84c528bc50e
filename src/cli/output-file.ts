// Says before any work that a result could not be written.

import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { FormatError } from "../errors.js";
import { makeFolder } from "../storage/file-access.js";

/**
 * Makes the folders on the way to a file and checks that it can be written there.
 *
 * @throws {FormatError} If it cannot.
 */
export async function prepareOutputFile(path: string): Promise<void> {
  const known = await stat(path).catch(() => undefined);
  if (known?.isDirectory()) throw new FormatError(path, "is a folder; name a file in it.");
  await prepareParent(path);
  if (known) {
    await access(path, constants.W_OK).catch((cause: Error) => {
      throw new FormatError(path, `cannot be written: ${cause.message}. Choose another name.`, { cause });
    });
  }
}

/** Makes the folders on the way to a file or folder. @throws {FormatError} If they cannot be made or written. */
export async function prepareParent(path: string): Promise<void> {
  const folder = dirname(path);
  try {
    await makeFolder(folder);
    await access(folder, constants.W_OK);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new FormatError(path, `its folder cannot be written: ${reason}. Choose another place.`, { cause });
  }
}
