// The browser's own storage (OPFS) as folders and files: reading, and writing whole files or none. For the page and its
// worker.

import { isObject, jsonIn } from "../../../src/storage/json.js";

/** Folders below the root. */
export const DATA_FOLDER = "data";
export const RUNS_FOLDER = "runs";

type Folder = FileSystemDirectoryHandle;

/** @throws {Error} Where the browser has no such storage, as in some private windows. */
export async function storageRoot(): Promise<Folder> {
  try {
    return await navigator.storage.getDirectory();
  } catch (cause) {
    throw new Error(
      "This browser gives the page no storage of its own (OPFS), as in private windows. Open the page in an ordinary window.",
      { cause },
    );
  }
}

/** A folder below another, made where it is missing. */
export async function makeFolder(root: Folder, ...path: readonly string[]): Promise<Folder> {
  let folder = root;
  for (const name of path) folder = await folder.getDirectoryHandle(name, { create: true });
  return folder;
}

/** A folder below another; undefined where there is none. */
export async function findFolder(root: Folder, ...path: readonly string[]): Promise<Folder | undefined> {
  let folder = root;
  for (const name of path) {
    const next = await missing(folder.getDirectoryHandle(name));
    if (!next) return undefined;
    folder = next;
  }
  return folder;
}

/** A file by its path below a folder, as it is now; undefined where there is none. */
export async function findFile(folder: Folder, path: string): Promise<File | undefined> {
  const names = path.split("/");
  const name = names.pop()!;
  const parent = await findFolder(folder, ...names);
  const handle = parent && (await missing(parent.getFileHandle(name)));
  return handle && (await missing(handle.getFile()));
}

/** Names of what lies in a folder, in the order of people: 2 before 10. */
export async function namesIn(folder: Folder, kind: "file" | "directory"): Promise<string[]> {
  const names: string[] = [];
  for await (const [name, handle] of folder.entries()) if (handle.kind === kind) names.push(name);
  return names.sort(new Intl.Collator("en", { numeric: true }).compare);
}

/** The text of a file; undefined where there is none. */
export async function readText(folder: Folder, path: string): Promise<string | undefined> {
  for (let attempt = 0; ; attempt++) {
    const file = await findFile(folder, path);
    try {
      return await file?.text();
    } catch (error) {
      // It was written to between the two calls.
      if (attempt === 3 || (error as Error).name !== "NotReadableError") throw error;
    }
  }
}

/** A JSON object from a file; undefined where there is none, or it is damaged. */
export async function readObject(folder: Folder, path: string): Promise<Record<string, unknown> | undefined> {
  const value = jsonIn((await readText(folder, path)) ?? "");
  return isObject(value) ? value : undefined;
}

/** Writes a file whole, or leaves what was there. @throws {Error} In words where the disk is full. */
export async function writeFile(folder: Folder, path: string, content: Blob | BufferSource | string): Promise<void> {
  const names = path.split("/");
  const name = names.pop()!;
  await inWords(path, async () => {
    const parent = await makeFolder(folder, ...names);
    const isNew = (await missing(parent.getFileHandle(name))) === undefined;
    const handle = await parent.getFileHandle(name, { create: true });
    // It writes beside the file, and puts it in place when it is closed.
    const stream = await handle.createWritable();
    try {
      await stream.write(content);
      await stream.close();
    } catch (error) {
      await stream.abort().catch(() => undefined);
      if (isNew) await parent.removeEntry(name).catch(() => undefined);
      throw error;
    }
  });
}

/** Adds to the end of a file, whole or not at all. @throws {Error} In words where the disk is full. */
export async function appendText(folder: Folder, name: string, text: string): Promise<void> {
  await inWords(name, async () => {
    const handle = await folder.getFileHandle(name, { create: true });
    const stream = await handle.createWritable({ keepExistingData: true });
    try {
      await stream.seek((await handle.getFile()).size);
      await stream.write(text);
      await stream.close();
    } catch (error) {
      await stream.abort().catch(() => undefined);
      throw error;
    }
  });
}

/** Deletes a file or folder, where there is one. */
export async function remove(folder: Folder, name: string): Promise<void> {
  await missing(folder.removeEntry(name, { recursive: true }));
}

/**
 * A name for a folder or file as it was given, where it is one.
 *
 * @throws {Error} That says what names are.
 */
export function plainName(what: string, given: string): string {
  const name = given.normalize("NFC").trim();
  const isPlain = name !== "" && !name.startsWith(".") && name.length <= 100 && !/[/\\:*?"<>|\p{Cc}]/u.test(name);
  if (isPlain) return name;
  throw new Error(
    `${what} must be a plain name of at most 100 characters, without / \\ : * ? " < > | and not beginning with a dot; got ${JSON.stringify(given.slice(0, 120))}.`,
  );
}

/** Undefined where there is no such entry, or one of the other kind. */
async function missing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (["NotFoundError", "TypeMismatchError"].includes((error as Error).name)) return undefined;
    throw error;
  }
}

async function inWords(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if ((cause as Error).name === "QuotaExceededError") {
      throw new Error(
        `${path} cannot be written: the room that this browser gives the page is full. ` +
          "Remove runs or data sets that are not needed, or make room on the disk.",
        { cause },
      );
    }
    if ((cause as Error).name === "NoModificationAllowedError") {
      throw new Error(`${path} cannot be written: another tab is writing it. Try again.`, { cause });
    }
    throw cause;
  }
}
