// What messages say of a file: its size in words, and what its first bytes show it to be.

/** First bytes that {@link kindOfFile} looks at. */
export const FILE_KIND_BYTES = 19;

const text = (word: string): number[] => [...word].map((letter) => letter.charCodeAt(0));

/** First bytes of files that people have lying beside models, or get in their place. */
const KINDS: readonly (readonly [start: readonly number[], kind: string])[] = [
  [[0x89, ...text("PNG")], "a PNG image"],
  [[0xff, 0xd8, 0xff], "a JPEG image"],
  [text("GIF8"), "a GIF image"],
  [text("RIFF"), "a RIFF file (a WebP image, or sound)"],
  [text("GGUF"), "a GGUF model"],
  [text("%PDF"), "a PDF document"],
  [[0x50, 0x4b, 3, 4], "a zip archive; where torch.save wrote it, name it .pt"],
  [[0x1f, 0x8b], "a gzip archive"],
  [text("7z"), "a 7-Zip archive"],
  [text("Rar!"), "a RAR archive"],
  [[0x89, ...text("HDF")], "an HDF5 file (Keras weights)"],
  [text("version https://git"), "a Git LFS pointer; fetch the file itself with git lfs pull"],
  [text("<!DOCTYPE"), "a web page; the download was not the file"],
  [text("<!doctype"), "a web page; the download was not the file"],
  [text("<html"), "a web page; the download was not the file"],
];

/**
 * Completes "is …".
 *
 * @param start - The first {@link FILE_KIND_BYTES} bytes, fewer only if the file is shorter.
 * @returns Undefined where the bytes say nothing.
 */
export function kindOfFile(start: Uint8Array): string | undefined {
  // The header's length, 8 bytes of which the last are 0, then its "{".
  if (start[8] === 0x7b && start[5] === 0 && start[6] === 0 && start[7] === 0) {
    return "a safetensors file; name it .safetensors";
  }
  return KINDS.find(([magic]) => startsWith(start, magic))?.[1];
}

/** Whether bytes begin with others. */
export function startsWith(bytes: Uint8Array, magic: readonly number[]): boolean {
  return bytes.length >= magic.length && magic.every((byte, i) => bytes[i] === byte);
}

/** 12_345_678 → "12.3 MB". */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 100 ? value.toPrecision(3) : value.toFixed(0)} ${units[unit]}`;
}
