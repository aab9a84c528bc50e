// Files out of what was dropped or picked, with their paths: folders are read to their ends.

/** A file and its path from where it was dropped. */
export interface PlacedFile {
  path: string;
  file: File;
}

/** What was dropped, ready to be added. */
export interface Dropped {
  /** A name for a set of them: the folder's, if it was one. */
  label: string;
  /** Under the names that they get in the set. */
  files: File[];
  /** Files that systems leave behind, such as .DS_Store. */
  leftOut: number;
  /** Whether they lay in several folders, which a set does not have. */
  isFlattened: boolean;
}

/** More are taken for a mistake, such as a whole disk. */
export const MAX_FILES = 50_000;

/**
 * Reads folders that were dropped. Must be called while the drop is handled: the transfer is empty after that.
 *
 * @throws {Error} If a folder cannot be read, or there are too many files.
 */
export async function droppedFiles({ items, files }: DataTransfer): Promise<PlacedFile[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return [...files].map((file) => ({ path: file.name, file }));
  const found: PlacedFile[] = [];
  for (const entry of entries) await walk(entry, "", found);
  return found;
}

/** Files of a picker, of a folder or single ones. */
export function pickedFiles(list: FileList): PlacedFile[] {
  return [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

async function walk(entry: FileSystemEntry, parent: string, found: PlacedFile[]): Promise<void> {
  const path = parent === "" ? entry.name : `${parent}/${entry.name}`;
  if (found.length >= MAX_FILES) {
    throw new Error(`More than ${MAX_FILES} files were dropped. Drop the folder that holds the images alone.`);
  }
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push({ path, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader hands out a folder in parts, the last one empty.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return;
    for (const child of part) await walk(child, path, found);
  }
}

const LEFT_BEHIND = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/i;

/** Names files within the set that they become part of, which has no folders: by their paths only where their names are not enough. */
export function placeFiles(found: readonly PlacedFile[]): Dropped {
  const wanted = found.filter(({ path }) => !LEFT_BEHIND.test(path));
  const tops = new Set(wanted.map(({ path }) => (path.includes("/") ? path.slice(0, path.indexOf("/")) : "")));
  const top = tops.size === 1 ? [...tops][0]! : "";
  const paths = wanted.map(({ path }) => (top === "" ? path : path.slice(top.length + 1)));
  const lastOf = (path: string) => path.split("/").at(-1)!;
  const isUnique = new Set(paths.map((path) => lastOf(path).toLowerCase())).size === paths.length;
  const files = wanted.map(({ file }, index) => {
    // A caption is renamed as its image is.
    const name = isUnique ? lastOf(paths[index]!) : paths[index]!.replaceAll("/", "-");
    return new File([file], name, { type: file.type, lastModified: file.lastModified });
  });
  const isFlattened = paths.some((path) => path.includes("/"));
  return { label: top, files, leftOut: found.length - wanted.length, isFlattened };
}
