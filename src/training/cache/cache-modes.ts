// The ways to keep what was encoded.

export const CACHE_MODES = ["disk", "memory", "none"] as const;

/** How encoded images or captions are kept. */
export type CacheMode = (typeof CACHE_MODES)[number];
