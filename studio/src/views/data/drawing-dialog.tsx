// A pad to draw a small picture for a set, where none is at hand.

import { useEffect, useRef, useState } from "preact/hooks";
import { attempt, backend, studio, tell } from "../../store.js";
import { addFiles, chosen, load } from "./data-state.js";
import { paint, type Stroke } from "./strokes.js";

const COLOURS: readonly (readonly [string, string])[] = [
  ...([
    ["black", "#1c2026"],
    ["red", "#d7263d"],
    ["orange", "#f28c28"],
    ["yellow", "#f7d038"],
  ] as const),
  ...([
    ["green", "#2e9e5b"],
    ["blue", "#2667c9"],
    ["violet", "#8a4fbf"],
    ["brown", "#7a4a2a"],
  ] as const),
  ...([["white", "#ffffff"]] as const),
];
/** Pixels of the picture that is made. */
const SIDE = 256;

export function DrawingDialog({ onClose }: { onClose(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [strokes, setStrokes] = useState<readonly Stroke[]>([]);
  const [colour, setColour] = useState<string>(COLOURS[0]![1]);
  const [width, setWidth] = useState(0.06);
  const [caption, setCaption] = useState("");
  const [isAdding, setAdding] = useState(false);
  const current = studio.value?.dataSets.find(({ id }) => id === chosen.value);
  const target = current?.isWritable ? { id: current.id } : { label: "drawings" };

  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  useEffect(() => {
    if (canvas.current) paint(canvas.current, strokes);
  }, [strokes]);

  const placeOf = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const begin = (event: PointerEvent) => {
    if (event.button !== 0) return;
    canvas.current!.setPointerCapture(event.pointerId);
    setStrokes((known) => [...known, { colour, width, points: [placeOf(event)] }]);
  };
  const go = (event: PointerEvent) => {
    if (!canvas.current!.hasPointerCapture(event.pointerId)) return;
    const place = placeOf(event);
    setStrokes((known) => {
      const last = known.at(-1);
      return last ? [...known.slice(0, -1), { ...last, points: [...last.points, place] }] : known;
    });
  };
  const undo = () => setStrokes((known) => known.slice(0, -1));

  const add = async (event: Event) => {
    event.preventDefault();
    setAdding(true);
    const blob = await new Promise<Blob | null>((resolve) => canvas.current!.toBlob(resolve, "image/png"));
    const file = blob && new File([blob], `drawing-${Date.now()}.png`, { type: "image/png" });
    const result = file ? await addFiles(target, [file]) : undefined;
    setAdding(false);
    const name = result?.added[0];
    if (!result || name === undefined) return;
    if (caption.trim() !== "") {
      await attempt(() => backend().setCaption(result.set, name, caption.trim()));
      await load();
    }
    tell(`Added to ${current?.isWritable ? current.label : "drawings"}.`);
    setStrokes([]);
  };

  return (
    <dialog
      ref={dialog}
      class="drawing-dialog"
      aria-label="Draw a picture"
      onClose={onClose}
      onKeyDown={(event) => {
        if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.target instanceof HTMLInputElement) return;
        event.preventDefault();
        undo();
      }}
    >
      <form class="stack" onSubmit={(event) => void add(event)}>
        <h2>Draw a picture</h2>
        <canvas
          ref={canvas}
          width={SIDE}
          height={SIDE}
          aria-label="Drawing, for mouse, pen or finger"
          onPointerDown={begin}
          onPointerMove={go}
        />
        <fieldset class="plain row swatches">
          <legend class="visually-hidden">Colour</legend>
          {COLOURS.map(([name, value]) => (
            <label key={value} class="swatch" style={{ background: value }} title={name}>
              <input
                type="radio"
                name="colour"
                aria-label={name}
                checked={colour === value}
                onChange={() => setColour(value)}
              />
            </label>
          ))}
          <input
            type="color"
            aria-label="Another colour"
            value={colour}
            onInput={(event) => setColour(event.currentTarget.value)}
          />
        </fieldset>
        <div class="row">
          <label class="brush">
            Brush
            <input
              type="range"
              min={0.01}
              max={0.25}
              step={0.01}
              value={width}
              onInput={(event) => setWidth(event.currentTarget.valueAsNumber)}
            />
          </label>
          <button type="button" disabled={strokes.length === 0} onClick={undo}>
            Undo
          </button>
          <button type="button" disabled={strokes.length === 0} onClick={() => setStrokes([])}>
            Clear
          </button>
        </div>
        <label>
          Caption
          <input
            type="text"
            value={caption}
            placeholder="a red house"
            onInput={(event) => setCaption(event.currentTarget.value)}
          />
        </label>
        <div class="row">
          <button type="button" onClick={() => dialog.current?.close()}>
            Close
          </button>
          <button type="submit" class="primary" disabled={strokes.length === 0 || isAdding}>
            Add to {current?.isWritable ? current.label : "a new set, drawings"}
          </button>
        </div>
      </form>
    </dialog>
  );
}
