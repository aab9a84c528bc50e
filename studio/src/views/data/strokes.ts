// A small drawing as the strokes that it is made of: so that one can be taken back, and drawn at any size.

/** Places are shares of the drawing's side, 0…1. */
export interface Stroke {
  colour: string;
  /** Width of the brush, as a share of the side. */
  width: number;
  points: { x: number; y: number }[];
}

export const PAPER = "#ffffff";

/** Draws all strokes on paper. */
export function paint(canvas: HTMLCanvasElement, strokes: readonly Stroke[]): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const side = canvas.width;
  context.fillStyle = PAPER;
  context.fillRect(0, 0, side, side);
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const { colour, width, points } of strokes) {
    const [start, ...rest] = points;
    if (!start) continue;
    context.strokeStyle = colour;
    context.lineWidth = width * side;
    context.beginPath();
    context.moveTo(start.x * side, start.y * side);
    // A point alone is a dot: a line of no length has round ends.
    for (const { x, y } of rest.length > 0 ? rest : [start]) context.lineTo(x * side, y * side);
    context.stroke();
  }
}
