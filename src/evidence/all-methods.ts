// The methods of all parts together.

import { HYPOTHESES } from "./hypotheses.js";
import { ABLATIONS, METHODS, type Method } from "./methods.js";

/** Every method that any part has. */
export const ALL_METHODS: readonly Method[] = [
  ...METHODS,
  ...Object.values(ABLATIONS).flat(),
  ...HYPOTHESES.map(({ method }) => method),
];
