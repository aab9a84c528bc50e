import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeFolder } from "../../../test/support/data-folder.js";
import { readCaptionMetadata } from "./caption-metadata.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-metadata-"));
});
afterAll(() => rm(root, { recursive: true }));

async function read(file: string, content: string | Uint8Array, column?: string) {
  const repeats: string[] = [];
  const dir = await writeFolder(root, { [file]: content });
  const captions = await readCaptionMetadata(dir, file, column, (image, before, now) =>
    repeats.push(`${image} ${before.line} ${now.line}`),
  );
  return { texts: Object.fromEntries([...captions].map(([image, { text }]) => [image, text])), repeats };
}

describe("readCaptionMetadata", () => {
  it("reads lines of JSON in any encoding that has a mark, and reports an image that is named again", async () => {
    const lines = '{"file_name":"a.png","text":" Füße "}\r\n\r\n{"file_name":"b.png","text":"犬","score":1}\r\n';
    const expected = { texts: { "sub/a.png": "Füße", "sub/b.png": "犬" }, repeats: [] };
    expect(await read("sub/metadata.jsonl", lines)).toEqual(expected);
    expect(await read("sub/metadata.jsonl", Buffer.from(`\uFEFF${lines}`, "utf16le"))).toEqual(expected);
    const again = await read("metadata.jsonl", `${lines}{"file_name":"x/../a.png","text":"again"}`);
    expect(again.texts["a.png"]).toBe("again");
    expect(again.repeats).toEqual(["a.png 1 4"]);
  });

  it("reads comma-separated values, quoted ones with commas and line breaks too", async () => {
    const content = 'text,file_name,n\r\n"a ""big"" cat,\r\nasleep",a.png,1\r\n\r\n,b.png,\r\nlast,c.png,';
    const { texts } = await read("metadata.csv", content);
    expect(texts).toEqual({ "a.png": 'a "big" cat,\r\nasleep', "b.png": "", "c.png": "last" });
    expect((await read("metadata.csv", "\uFEFFfile_name,text\n")).texts).toEqual({});
  });

  it.each([
    ["metadata.jsonl", '{"file_name":"a.png","text":"x"}\n{', /line 2 is not valid JSON: "\{"/],
    ["metadata.jsonl", `"${"x".repeat(1e6)}`, /line 1 is not valid JSON: "\\"x{199}…" \(1000001 characters\)\.$/],
    ["metadata.jsonl", '{"file_name":"a.png"}', /line 1 must have a "file_name" and a "text"/],
    ["metadata.jsonl", "null", /line 1 must have/],
    ["metadata.jsonl", Buffer.from('{"file_name":"ü"}', "latin1"), /is not valid UTF-8/],
    [
      "metadata.jsonl",
      JSON.stringify({ file_name: "a.png", text: "x".repeat(1e6) }),
      /"a\.png" has 1000000 characters/,
    ],
    [
      "metadata.csv",
      "file,label\na.png,x",
      /must name the columns file_name and text \(or .*\); got \["file","label"\]/,
    ],
    ["metadata.csv", "file_name,text\na.png", /line 2 has 1 fields; the first line names 2/],
    ["metadata.csv", 'file_name,text\na.png,x\nb.png,"y', /line 3: a quotation mark is out of place/],
    ["metadata.csv", 'file_name,text\na.png,x "y" z', /line 2: a quotation mark/],
  ])("refuses a malformed %s by its line: %s", async (file, content, message) => {
    await expect(read(file, content)).rejects.toThrow(message);
  });

  it("takes the caption from caption or prompt where there is no text, or from the column asked for", async () => {
    const line = (values: object) => JSON.stringify({ file_name: "a.png", ...values });
    const textOf = async (values: object, column?: string) =>
      (await read("metadata.jsonl", line(values), column)).texts["a.png"];
    expect(await textOf({ prompt: "p", caption: "c" })).toBe("c");
    expect(await textOf({ prompt: "p", text: null })).toBe("p");
    expect(await textOf({ text: "t", description: "d" }, "description")).toBe("d");
    expect((await read("metadata.csv", "file_name,prompt\na.png,p\n")).texts).toEqual({ "a.png": "p" });
    await expect(textOf({ text: "t" }, "description")).rejects.toThrow(
      /line 1 must have a "file_name" and a "description"/,
    );
    await expect(textOf({ label: "t" })).rejects.toThrow(
      /"text" \(or "caption", "prompt"; another is named by captionColumn\)/,
    );
    await expect(read("metadata.csv", "file_name,text\na.png,x", "words")).rejects.toThrow(/file_name and words; got/);
  });
});
