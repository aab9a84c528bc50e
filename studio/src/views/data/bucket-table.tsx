// How many images are trained at each size.

import { useState } from "preact/hooks";
import type { DataSetView } from "../../../../src/studio/protocol.js";
import { query, setQuery } from "./data-state.js";

export function TrainedSizes({ shown }: { shown: DataSetView | undefined }) {
  const { resolution, bucket } = query.value;
  // Kept apart until it is whole: the set may be read anew, and drawn, while somebody types.
  const [typed, setTyped] = useState<string | undefined>(undefined);
  const most = Math.max(1, ...(shown?.buckets ?? []).map(({ images }) => images));
  return (
    <section class="panel stack sizes" aria-labelledby="sizes-title">
      <h2 id="sizes-title">Trained at</h2>
      <label>
        Resolution in pixels
        <input
          type="number"
          min={8}
          max={4096}
          step={8}
          value={typed ?? resolution}
          onInput={(event) => setTyped(event.currentTarget.value)}
          onChange={(event) => {
            const side = event.currentTarget.valueAsNumber;
            if (Number.isInteger(side) && side >= 8 && side <= 4096) setQuery({ resolution: side });
            setTyped(undefined);
          }}
        />
      </label>
      <label class="tick">
        <input
          type="checkbox"
          checked={bucket}
          onChange={(event) => setQuery({ bucket: event.currentTarget.checked })}
        />
        Each at the shape nearest to its own (buckets)
      </label>
      {shown && shown.buckets.length > 0 && (
        <table>
          <caption class="visually-hidden">Images by the size that they are trained at</caption>
          <thead>
            <tr>
              <th scope="col">Size</th>
              <th scope="col">Images</th>
              <td />
            </tr>
          </thead>
          <tbody>
            {shown.buckets.map(({ width, height, images }) => (
              <tr key={`${width}×${height}`}>
                <th scope="row">
                  {width}×{height}
                </th>
                <td>{images}</td>
                <td class="bar-cell" aria-hidden="true">
                  <span class="bar-of" style={{ width: `${(100 * images) / most}%` }} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
