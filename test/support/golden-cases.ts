// The cases of a file of golden values. Runs in browsers too.

/**
 * The cases that a reference file's metadata names, each with its settings.
 *
 * @param count - How many there are: a file that has lost some would let a test pass without comparing them.
 */
export function goldenCases(metadata: Readonly<Record<string, string>>, count: number) {
  const cases = Object.entries(metadata).map(([name, text]) => ({ name, settings: JSON.parse(text) }));
  if (cases.length !== count) throw new Error(`the reference file has ${cases.length} cases; ${count} were written.`);
  return cases;
}
