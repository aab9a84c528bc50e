import { describe, expect, it } from "vitest";
import { cardsInView, gridShape, placeOf } from "./grid-window.js";

const SIZE = { minWidth: 200, height: 290, gap: 10 };

describe("gridShape", () => {
  it("fills the width with as many columns as fit", () => {
    const shape = gridShape(640, 7, SIZE);
    expect(shape).toEqual({ columns: 3, cardWidth: (640 - 20) / 3, pitch: 300, height: 890, gap: 10 });
    expect(placeOf(shape, 4)).toEqual({ left: shape.cardWidth + 10, top: 300 });
  });

  it("has one column where not even one card fits", () => {
    expect(gridShape(120, 2, SIZE)).toMatchObject({ columns: 1, cardWidth: 120 });
  });

  it("is empty without cards", () => {
    expect(gridShape(640, 0, SIZE).height).toBe(0);
  });
});

describe("cardsInView", () => {
  const count = 10_000;
  const shape = gridShape(640, count, SIZE);

  it("shows the same few cards wherever the window is", () => {
    expect(cardsInView(shape, count, 0, 600, 1)).toEqual({ first: 0, end: 9 });
    expect(cardsInView(shape, count, 300_000, 600, 1)).toEqual({ first: 2997, end: 3009 });
  });

  it("covers the window to the pixel", () => {
    const { first, end } = cardsInView(shape, count, 299, 2, 0);
    expect([first, end]).toEqual([0, 6]);
  });

  it("ends with the last card", () => {
    expect(cardsInView(shape, count, 1e9, 600, 1)).toEqual({ first: count, end: count });
    expect(cardsInView(shape, 4, 0, 600, 1)).toEqual({ first: 0, end: 4 });
  });
});
