// What a plan does not know yet, as it follows from runs.

/** Thrown and caught while a plan is made: something must be run first, which the message names. */
export class NotYet extends Error {}

/** Of each thing what is asked; where some are not known yet, that is said when all have been asked for. */
export function askAll<Thing, Answer>(things: readonly Thing[], ask: (thing: Thing) => Answer): Answer[] {
  let unknown: NotYet | undefined;
  const answers = things.flatMap((thing) => {
    try {
      return [ask(thing)];
    } catch (reason) {
      if (!(reason instanceof NotYet)) throw reason;
      unknown = reason;
      return [];
    }
  });
  if (unknown) throw unknown;
  return answers;
}
