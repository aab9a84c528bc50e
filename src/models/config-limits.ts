// How large the numbers of a configuration may be. A file is not to be trusted with sizes: a list is made of each count, and a
// power of two of each number of resolutions. All limits lie far above any published model's numbers.

import { z } from "zod";

/** Channels, features, tokens of a vocabulary. */
export const width = z
  .int()
  .positive()
  .max(2 ** 20);

/** Layers or blocks in a row; 0 where a model may have none. */
export const depth = z.int().min(0).max(1000);

/** Latent or image pixels along a side. */
export const side = z
  .int()
  .positive()
  .max(2 ** 16);

/** Resolutions, each half as wide as the one before. */
export const MAX_LEVELS = 16;
