// In place of re2js, which is as large as all of the page: patterns of layers by the browser's own regular expressions. In a
// tab they are typed by who trains there, or stand in adapters that were made there; none is somebody else's.

/** What fera takes of re2js. */
export class RE2JS {
  private constructor(private readonly expression: RegExp) {}

  /** @throws {SyntaxError} If it is no regular expression, or one that re2js would refuse. */
  static compile(pattern: string): RE2JS {
    if (/\(\?<?[=!]|\\[1-9]|\\k</.test(pattern)) throw new SyntaxError("look-around or a back-reference");
    return new RE2JS(new RegExp(`^(?:${pattern})$`, "su"));
  }

  /** Whether it is the whole of a text. */
  matches(text: string): boolean {
    return this.expression.test(text);
  }
}
