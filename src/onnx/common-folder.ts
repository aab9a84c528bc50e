// Path arithmetic for weights in files; strings only, so that it runs anywhere.

/** The deepest folder that holds every path, or undefined for none. Paths are absolute with `/` or `\` separators. */
export function commonFolder(paths: readonly string[]): string | undefined {
  let folder: string | undefined;
  for (const path of paths) {
    const parent = path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")));
    if (folder === undefined) folder = parent;
    while (
      folder !== "" &&
      parent !== folder &&
      !parent.startsWith(`${folder}/`) &&
      !parent.startsWith(`${folder}\\`)
    ) {
      folder = folder.slice(0, Math.max(folder.lastIndexOf("/"), folder.lastIndexOf("\\"), 0));
    }
  }
  return folder;
}

/** A folder by a name that means it alone, too: the root, or a drive's, has its separator. */
export function rootedFolder(folder: string): string {
  if (folder === "") return "/";
  return /^[A-Za-z]:$/.test(folder) ? `${folder}\\` : folder;
}
