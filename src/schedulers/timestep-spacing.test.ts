import { expect, it } from "vitest";
import { roundHalfEven, spacedTimesteps } from "./timestep-spacing.js";

const base = { steps: 4, trainTimesteps: 1000, offset: 0 };

it("lays timesteps out as the table of arXiv:2305.08891", () => {
  expect(spacedTimesteps("test", { ...base, spacing: "leading" })).toEqual([750, 500, 250, 0]);
  expect(spacedTimesteps("test", { ...base, spacing: "leading", offset: 1 })).toEqual([751, 501, 251, 1]);
  expect(spacedTimesteps("test", { ...base, spacing: "trailing" })).toEqual([999, 749, 499, 249]);
  expect(spacedTimesteps("test", { ...base, spacing: "linspace" })).toEqual([999, 666, 333, 0]);
});

it("keeps fractions of linspace when asked to", () => {
  const timesteps = spacedTimesteps("test", { ...base, steps: 3, spacing: "linspace", round: false });
  expect(timesteps).toEqual([999, 499.5, 0]);
});

it("refuses an offset that leaves the schedule", () => {
  expect(() => spacedTimesteps("test", { ...base, steps: 1000, spacing: "leading", offset: 1 })).toThrow(
    /steps_offset=1 the first timestep would be 1000/,
  );
});

it("rounds halves to even", () => {
  expect([0.5, 1.5, 2.5, 2.4, 2.6, 499.5].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3, 500]);
});
