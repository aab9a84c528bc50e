// Sizes in bytes, in words.

/** 12_345_678 → "12.3 MB". */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 100 ? value.toPrecision(3) : value.toFixed(0)} ${units[unit]}`;
}
