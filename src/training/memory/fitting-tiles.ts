// Chooses the tiles in which an autoencoder encodes or decodes within a limit. Node only.

import type { Autoencoder } from "../../models/autoencoder.js";
import type { TilingDirection } from "../../models/autoencoder-kl/autoencoder-tiling.js";

/** Sides in latent pixels, the largest first: in smaller ones too little of the image is seen at once. */
const SIDES = [96, 64, 48, 32, 24, 16] as const;
/** Of a tile that the next one covers, too. */
const OVERLAP = 0.25;

/** What was chosen. */
export interface FittingTiles {
  /** Side in image pixels; undefined where all is done at once. */
  side: number | undefined;
  bytes: number;
}

/**
 * Sets the largest tiles with which some work fits, or none where it fits without. Where nothing does, the smallest are set.
 *
 * @param side - Largest side of the images, in pixels: larger tiles are none.
 * @param bytesOf - What the work takes as the autoencoder is set now.
 */
export async function setFittingTiles(
  vae: Autoencoder,
  direction: TilingDirection,
  { side, fits, bytesOf }: { side: number; fits: (bytes: number) => boolean; bytesOf: () => Promise<number> },
): Promise<FittingTiles> {
  vae.disableTiling(direction);
  let last: FittingTiles = { side: undefined, bytes: await bytesOf() };
  for (const latentSide of SIDES) {
    if (fits(last.bytes)) return last;
    const tileSampleMinSize = latentSide * vae.downscale;
    if (tileSampleMinSize >= side) continue;
    vae.enableTiling({ tileSampleMinSize, tileOverlapFactor: OVERLAP, direction });
    last = { side: tileSampleMinSize, bytes: await bytesOf() };
  }
  return last;
}

/** For people. */
export const tilesNote = ({ side }: FittingTiles): string | undefined =>
  side === undefined ? undefined : `in tiles of ${side} pixels`;
