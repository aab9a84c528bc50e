// An image of a set, and over it the part that is trained on, what lies outside dimmed.

import { useEffect, useState } from "preact/hooks";
import type { DataSetImage } from "../../../../src/studio/protocol.js";
import { useImageUrl } from "../../parts/use-image-url.js";
import { reconnections } from "../../store.js";

interface Props {
  dataSet: string;
  image: DataSetImage;
  /** Of the picture that is fetched, at most. */
  side: number;
  showsCrop: boolean;
}

const percent = (share: number): string => `${100 * share}%`;

export function CropPreview({ dataSet, image, side, showsCrop }: Props) {
  const { name, originalWidth, originalHeight, crop } = image;
  const { url, error } = useImageUrl(dataSet, name, side);
  const [isBroken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [url, reconnections.value]);
  if (error !== undefined || isBroken) return <p class="broken">{error ?? "This picture cannot be shown."}</p>;
  return (
    <div
      class="picture"
      style={{
        "--aspect": String(originalWidth / originalHeight),
        aspectRatio: `${originalWidth} / ${originalHeight}`,
      }}
    >
      {url !== undefined && (
        <img src={url} alt={name} loading="lazy" decoding="async" draggable={false} onError={() => setBroken(true)} />
      )}
      {showsCrop && (
        <span
          class="crop"
          data-crop={name}
          style={{
            left: percent(crop.left),
            top: percent(crop.top),
            width: percent(crop.width),
            height: percent(crop.height),
          }}
        />
      )}
    </div>
  );
}

/** The crop in words. */
export function describeCrop({ crop, width, height, originalWidth, originalHeight }: DataSetImage): string {
  const share = crop.width * crop.height;
  const part = share > 0.995 ? "Trained on whole" : `${Math.round(100 * share)} % of it are trained on`;
  return `${part}, at ${width}×${height} of ${originalWidth}×${originalHeight} pixels.`;
}
