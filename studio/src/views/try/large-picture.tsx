// A picture as large as the window has room, with its routing.

import { useEffect, useRef } from "preact/hooks";
import type { DrawnImage } from "../../../../src/studio/protocol.js";
import { RoutingCharts } from "../../charts/routing-charts.js";

interface Props {
  image: DrawnImage;
  url: string;
  title: string;
  line: string;
  onClose(): void;
}

export function LargePicture({ image, url, title, line, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="large-picture" aria-label={title} onClose={onClose}>
      <div class="stack">
        <div class="row">
          <h2 class="grow">{title}</h2>
          <button type="button" onClick={() => dialog.current?.close()}>
            Close
          </button>
        </div>
        <img src={url} alt={title} />
        <p class="muted">{line}</p>
        {image.routes.map(({ adapter, route }) => (
          <RoutingCharts key={adapter} trace={route} of={adapter} />
        ))}
      </div>
    </dialog>
  );
}
