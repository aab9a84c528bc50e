// Where the cards of a long grid lie, and which of them are near the window: only those are in the page.

/** Sizes in pixels. */
export interface CardSize {
  /** The narrowest that a card gets. */
  minWidth: number;
  height: number;
  gap: number;
}

/** A grid of equal cards. */
export interface GridShape {
  columns: number;
  cardWidth: number;
  /** From one row's top to the next one's. */
  pitch: number;
  /** Of the whole grid. */
  height: number;
  gap: number;
}

/** Fits cards into a width. */
export function gridShape(width: number, count: number, { minWidth, height, gap }: CardSize): GridShape {
  const columns = Math.max(1, Math.floor((width + gap) / (minWidth + gap)));
  const rows = Math.ceil(count / columns);
  return {
    columns,
    cardWidth: Math.max(0, (width - gap * (columns - 1)) / columns),
    pitch: height + gap,
    height: Math.max(0, rows * (height + gap) - gap),
    gap,
  };
}

/** Where a card lies in its grid. */
export function placeOf({ columns, cardWidth, gap, pitch }: GridShape, index: number): { left: number; top: number } {
  return { left: (index % columns) * (cardWidth + gap), top: Math.floor(index / columns) * pitch };
}

/**
 * Cards in view, and `spare` rows before and after them.
 *
 * @param top - The window's upper edge, in pixels below the grid's.
 * @returns From `first`, up to `end` without it.
 */
export function cardsInView(
  { columns, pitch }: GridShape,
  count: number,
  top: number,
  viewHeight: number,
  spare: number,
): { first: number; end: number } {
  const firstRow = Math.floor(top / pitch) - spare;
  const endRow = Math.ceil((top + viewHeight) / pitch) + spare;
  const within = (index: number) => Math.min(count, Math.max(0, index));
  return { first: within(firstRow * columns), end: within(endRow * columns) };
}
