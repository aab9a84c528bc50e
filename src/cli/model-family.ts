// Which family a model belongs to, by what tells it apart.

/** Features of the text states that a family's UNet attends to. */
const FAMILIES = new Map([
  [768, "Stable Diffusion 1.x"],
  [1024, "Stable Diffusion 2.x"],
  [1280, "Stable Diffusion XL refiner"],
  [2048, "Stable Diffusion XL"],
]);

/** The family whose UNet attends to so many text features; those features where no family does. */
export function familyOf(textFeatures: number | undefined): string | undefined {
  if (textFeatures === undefined) return undefined;
  const family = FAMILIES.get(textFeatures);
  return family ? `${family} (${textFeatures} text features)` : `not known (${textFeatures} text features)`;
}

/** Whether a layer's name, with dots or underscores, is that of a cross-attention's keys or values. */
export const attendsToText = (name: string): boolean => /attn2[._](?:processor[._])?to_[kv](?![a-z])/.test(name);
