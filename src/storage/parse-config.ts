// Configurations as files have them, read strictly against a schema.

import type { z } from "zod";
import { ConfigError, quoted, shortened } from "../errors.js";

/**
 * Reads a configuration strictly: what the schema does not know, or fixes to another value, is refused by name.
 *
 * @param source - The file, for messages.
 * @throws {ConfigError} That names the option, what came and what is supported.
 */
export function parseConfig<Schema extends z.ZodType>(
  schema: Schema,
  config: unknown,
  source: string,
): z.output<Schema> {
  const known = config as Record<string, unknown>;
  const cleaned = Object.fromEntries(Object.entries(known).filter(([key]) => !key.startsWith("_")));
  const parsed = schema.safeParse(cleaned);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 5).map((issue) => {
    if (issue.code === "unrecognized_keys") {
      const listed = issue.keys.map((key) => `${shortened(key)}=${quoted(cleaned[key])}`);
      return `unsupported option ${listed.join(", ")}`;
    }
    const path = issue.path.join(".");
    const came = issue.path.reduce<unknown>(
      (value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key],
      cleaned,
    );
    return `${path}: ${issue.message}; got ${quoted(came)}`;
  });
  throw new ConfigError(`${source}: ${problems.join("; ")}.`);
}
