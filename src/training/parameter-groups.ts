// Learning rates by group: a factor for every trained tensor whose name fits a pattern.

import { ConfigError, quoted } from "../errors.js";
import { isOfText } from "./text/text-encoders.js";

/** What groups are made from. */
export interface ParameterGroups {
  /** `PATTERN=FACTOR` each; the last that fits a name counts. */
  blockLr?: readonly string[] | undefined;
  /** Of FeRA's router. Default 1. */
  routerLr?: number;
  /** Of what is trained of text encoders. Default 1. */
  textFactor?: number;
}

/** Begins the names of the tensors of FeRA's router. */
const ROUTER = "router.";

/**
 * Factors on the learning rate by the name of a trained tensor.
 *
 * A pattern fits where it is a part of the name between dots (`up_blocks.1` fits `up_blocks.1.attentions.0.to_q.up`, not
 * `up_blocks.10…`); `*` stands for any text. Factor 0 freezes.
 *
 * @param names - Of the trained tensors.
 * @returns Undefined where every factor is 1.
 * @throws {ConfigError} If a group cannot be read, fits no name, or leaves nothing to train.
 */
export function rateFactors(
  names: Iterable<string>,
  { blockLr = [], routerLr = 1, textFactor = 1 }: ParameterGroups,
): ((name: string) => number) | undefined {
  const groups = blockLr.map(parseGroup);
  const all = [...names];
  for (const { pattern, expression } of groups) {
    if (all.some((name) => expression.test(name))) continue;
    throw new ConfigError(
      `blockLr: ${quoted(pattern)} fits the name of no trained tensor; there are ${all.slice(0, 3).map(quoted).join(", ")} …`,
    );
  }
  if (routerLr !== 1 && !all.some((name) => name.startsWith(ROUTER))) {
    throw new ConfigError("routerLr: this adapter has no router that is trained; leave it out.");
  }
  const factors = new Map(
    all.map((name) => {
      const group = groups.findLast(({ expression }) => expression.test(name));
      return [
        name,
        (group?.factor ?? 1) * (name.startsWith(ROUTER) ? routerLr : 1) * (isOfText(name) ? textFactor : 1),
      ];
    }),
  );
  const values = [...factors.values()];
  if (values.every((factor) => factor === 1)) return undefined;
  if (values.every((factor) => factor === 0)) {
    throw new ConfigError("blockLr, routerLr: every factor is 0, so that nothing would be trained.");
  }
  return (name) => factors.get(name) ?? 1;
}

function parseGroup(text: string): { pattern: string; factor: number; expression: RegExp } {
  const match = /^(.+)=([^=]+)$/.exec(text);
  const factor = Number(match?.[2]?.trim() || Number.NaN);
  if (!match || !Number.isFinite(factor) || factor < 0) {
    throw new ConfigError(`blockLr: must be PATTERN=FACTOR with a factor of 0 or more; got ${quoted(text)}.`);
  }
  const pattern = match[1]!.trim();
  const source = pattern
    .split("*")
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"))
    .join(".*");
  return { pattern, factor, expression: new RegExp(`(^|\\.)${source}($|\\.)`) };
}
