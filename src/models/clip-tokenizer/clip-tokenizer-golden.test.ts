// Token ids against transformers': test/parity/make-clip-tokenizer-golden.py.

import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import "../../storage/node.js";
import { FileStorage } from "../../storage/file-storage.js";
import { CLIPTokenizer } from "./clip-tokenizer.js";
import { readClipTokenizer } from "./clip-tokenizer-folder.js";

const TARGET = "test/reference/clip-tokenizer";

interface Expected {
  prompts: string[];
  padded_prompts: number[];
  folders: Record<
    string,
    { pad: number; max_length: number; ids: number[][]; padded: number[][]; overflow: (string | null)[] }
  >;
}

const expected = JSON.parse(await readFile(`${TARGET}/expected.json`, "utf8")) as Expected;

describe.each(Object.entries(expected.folders))("the tokenizer folder %s", (name, golden) => {
  const folder = name === "icons" ? "assets/icons/tokenizer" : `${TARGET}/${name}`;

  it(`gives transformers' ids for all ${expected.prompts.length} prompts`, async () => {
    const files = await readClipTokenizer(new FileStorage(folder), "");
    const endless = new CLIPTokenizer({ ...files, config: { ...files.config, model_max_length: 1000 } });
    const different = expected.prompts.flatMap((prompt, index) => {
      const { ids, length } = endless.encode(prompt);
      const ours = ids.slice(0, length).join(" ");
      const theirs = golden.ids[index]!.join(" ");
      return ours === theirs ? [] : [{ prompt, ours, theirs }];
    });
    expect(different).toEqual([]);
    expect(expected.prompts.length).toBeGreaterThan(200);
  });

  it("cuts, pads and reports what did not fit as transformers and diffusers do", async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(folder, { subfolder: "" });
    expect(tokenizer.padTokenId).toBe(golden.pad);
    expect(tokenizer.maxLength).toBe(golden.max_length);
    for (const [index, prompt] of expected.padded_prompts.map((chosen) => expected.prompts[chosen]!).entries()) {
      const { ids, overflow } = tokenizer.encode(prompt);
      expect(ids).toEqual(golden.padded[index]);
      expect(overflow ?? null).toBe(golden.overflow[index]);
    }
  });
});
