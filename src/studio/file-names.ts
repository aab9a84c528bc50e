// Which names files and folders may have that come from elsewhere. Pure.

/** Devices of Windows. */
const DEVICES = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i;
/** What most file systems take, with room for a number. */
const LONGEST_BYTES = 200;

/** Why a name cannot be used, completing "cannot be used: "; undefined where it can. */
export function nameProblem(name: string): string | undefined {
  if (name === "" || name === "." || name === "..") return "it is empty or names a folder";
  if (/[/\\]/.test(name)) return "it has a path in it";
  if (name.startsWith(".")) return "it is hidden, because it begins with a dot";
  if (/[\p{Cc}\p{Cs}]/u.test(name)) return "it has control characters";
  if (/[. ]$/.test(name)) return "it ends in a dot or a space";
  if (DEVICES.test(name)) return "it is the name of a device on Windows";
  if (new TextEncoder().encode(name).length > LONGEST_BYTES) return `it has more than ${LONGEST_BYTES} bytes`;
  return undefined;
}
