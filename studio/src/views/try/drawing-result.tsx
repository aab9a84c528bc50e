// A drawing: one picture with its routing, or a grid of them; each opened large, saved, or drawn again.

import { useEffect, useState } from "preact/hooks";
import type { DrawnImage, GridAxis } from "../../../../src/studio/protocol.js";
import { RoutingCharts } from "../../charts/routing-charts.js";
import { Wipe } from "../../parts/wipe.js";
import { attempt, backend } from "../../store.js";
import { formOf, requestOf, settingsLine } from "./draw-form.js";
import { adapters, cancel, type Drawing, form } from "./drawings.js";
import { LargePicture } from "./large-picture.js";
import { GRID_OPTIONS } from "./value-list.js";

/** A place of a grid: a picture, and the same without adapters where that was asked for. */
interface Cell {
  with?: DrawnImage;
  without?: DrawnImage;
}

export function DrawingResult({ drawing }: { drawing: Drawing }) {
  const { request, images, isOver, done, total, activity, error, job } = drawing;
  const cells = new Map<string, Cell>();
  for (const image of images) {
    const key = `${image.x},${image.y}`;
    cells.set(key, { ...cells.get(key), [image.withoutAdapters ? "without" : "with"]: image });
  }
  return (
    <article class="panel stack drawing" aria-label={`Drawing of ${request.prompt}`} aria-busy={!isOver}>
      <div class="row">
        <h2 class="grow">{request.prompt === "" ? "(empty prompt)" : request.prompt}</h2>
        {!isOver && (
          <>
            <progress max={Math.max(total, 1)} value={done} aria-label="Progress of the drawing" />
            <span class="muted facts">{activity ?? `${images.length} drawn`}</span>
            <button type="button" onClick={() => void cancel(job)}>
              Cancel
            </button>
          </>
        )}
      </div>
      {error !== undefined && (
        <p class="problem" role="alert">
          {error}
        </p>
      )}
      {isOver && images.length === 0 && error === undefined && <p class="muted">Cancelled before the first picture.</p>}
      {request.grid ? (
        <GridTable drawing={drawing} cells={cells} />
      ) : (
        <Single drawing={drawing} cell={cells.get("0,0")} />
      )}
    </article>
  );
}

function Single({ drawing, cell }: { drawing: Drawing; cell: Cell | undefined }) {
  if (!cell) return undefined;
  const image = cell.with ?? cell.without!;
  return (
    <div class="single">
      <PictureFigure drawing={drawing} cell={cell} />
      <div class="stack">
        {image.routes.map(({ adapter, route }) => (
          <RoutingCharts key={adapter} trace={route} of={adapter} isSmall />
        ))}
        {image.routes.length === 0 && !image.withoutAdapters && drawing.request.adapters.length > 0 && (
          <p class="muted">These adapters have no router: they act alike at every timestep.</p>
        )}
      </div>
    </div>
  );
}

function GridTable({ drawing, cells }: { drawing: Drawing; cells: ReadonlyMap<string, Cell> }) {
  const { x, y } = drawing.request.grid!;
  const columns = x?.values ?? [""];
  const rows = y?.values ?? [""];
  return (
    <div class="grid-scroll">
      <table class="grid">
        <caption class="visually-hidden">
          {[x && `across: ${nameOf(x)}`, y && `down: ${nameOf(y)}`].filter(Boolean).join(", ")}
        </caption>
        {x && (
          <thead>
            <tr>
              {y && <td />}
              {columns.map((value) => (
                <th key={value} scope="col">
                  <span class="muted">{nameOf(x)}</span> {value}
                </th>
              ))}
            </tr>
          </thead>
        )}
        <tbody>
          {rows.map((value, row) => (
            <tr key={value}>
              {y && (
                <th scope="row">
                  <span class="muted">{nameOf(y)}</span> {value}
                </th>
              )}
              {columns.map((at, column) => (
                <td key={at}>
                  <PictureFigure drawing={drawing} cell={cells.get(`${column},${row}`)} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const nameOf = ({ option }: GridAxis): string => GRID_OPTIONS[option].label;

function PictureFigure({ drawing, cell }: { drawing: Drawing; cell: Cell | undefined }) {
  const [isLarge, setLarge] = useState(false);
  const image = cell?.with ?? cell?.without;
  const url = useDrawnUrl(image?.id);
  const otherUrl = useDrawnUrl(cell?.with && cell.without?.id);
  if (!image || url === undefined) return <span class="missing" />;
  const line = settingsLine(drawing.request, image, adapters.value);
  const title = requestOf(drawing.request, image).prompt;
  return (
    <figure class="picture">
      {otherUrl === undefined ? (
        <button type="button" class="open" aria-label={`Open large: ${title}, ${line}`} onClick={() => setLarge(true)}>
          <img src={url} alt={`${title}, ${line}`} width={image.width} height={image.height} />
        </button>
      ) : (
        <Wipe before={{ url: otherUrl, label: "without" }} after={{ url, label: "with adapters" }} title={title} />
      )}
      <figcaption>
        <p class="muted settings-line">{line}</p>
        <div class="row">
          {otherUrl !== undefined && (
            <button type="button" onClick={() => setLarge(true)}>
              Large
            </button>
          )}
          <a
            class="button"
            href={url}
            download={`fera-${image.seed}-${image.id.replace(/[^\w-]/g, "").slice(0, 12)}.png`}
          >
            Save
          </a>
          <button
            type="button"
            onClick={() => {
              form.value = formOf(form.value, drawing.request, image);
            }}
          >
            Use these settings
          </button>
        </div>
      </figcaption>
      {isLarge && <LargePicture image={image} url={url} title={title} line={line} onClose={() => setLarge(false)} />}
    </figure>
  );
}

function useDrawnUrl(id: string | undefined): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    if (id === undefined) return setUrl(undefined);
    let isCurrent = true;
    void attempt(() => backend().drawnImageUrl(id)).then((found) => isCurrent && setUrl(found));
    return () => {
      isCurrent = false;
    };
  }, [id]);
  return url;
}
