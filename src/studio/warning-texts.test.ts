import { expect, it } from "vitest";
import { type WarnedImage, warningTexts } from "./warning-texts.js";

const fine: WarnedImage = {
  ...{ own: { width: 800, height: 600 }, upscaling: 0.9, lost: undefined, copies: [], caption: "a dog" },
  ...{ isUncaptioned: false, isBlurred: false, isTurned: false, isAnimated: false, isTransparent: false },
};
const textsOf = (image: Partial<WarnedImage>) => warningTexts({ ...fine, ...image }).map(({ text }) => text);

it("says nothing of an image that is as it should be", () => {
  expect(textsOf({})).toEqual([]);
});

it("says what spoils a training, with the figures", () => {
  expect(textsOf({ copies: ["b.png", "c.png"] })).toEqual([
    "The same file as b.png and 1 more: it counts 3 times in an epoch.",
  ]);
  expect(textsOf({ own: { width: 8, height: 9 }, upscaling: 64 / 8 })).toEqual([
    "It has 8×9 pixels and is scaled up 8 times, which blurs it.",
  ]);
  expect(textsOf({ lost: 0.333 })).toEqual(["33 % of it are cut off."]);
  expect(textsOf({ caption: "img 1", isUncaptioned: true })).toEqual([
    'It has no caption: it is trained on its file name, "img 1".',
  ]);
  expect(textsOf({ caption: "" })).toEqual(["Its caption is empty: it is trained without words."]);
});

it("calls an image blurred only where that is not for its size", () => {
  expect(textsOf({ isBlurred: true })).toEqual(["It looks blurred at the size it is trained at."]);
  expect(textsOf({ isBlurred: true, upscaling: 2 })).toHaveLength(1);
});
