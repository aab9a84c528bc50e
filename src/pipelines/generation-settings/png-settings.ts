// Settings in PNG files: under "parameters" as A1111 reads them, under "prompt" as ComfyUI does, and under "fera" to the
// letter.

import { readPngTexts, withPngTexts } from "../../images/png-text.js";
import { comfyGraph, parseComfyGraph } from "./comfy-graph.js";
import { parametersText, parseParametersText } from "./parameters-text.js";
import { asciiJson, type FoundSettings, type GenerationSettings, parseSettingsJson, settingsJson } from "./settings.js";

const KEYWORDS = { fera: "fera", a1111: "parameters", comfyUI: "prompt" } as const;

/**
 * A copy of a PNG file that says what it was made with, to fera itself, to A1111's web UI and to ComfyUI. Everything in
 * `settings` can be read by anyone who gets the file.
 *
 * @throws {FormatError} If it is no PNG file.
 */
export function withGenerationSettings(png: Uint8Array, settings: GenerationSettings): Uint8Array {
  return withPngTexts(png, [
    { keyword: KEYWORDS.a1111, text: parametersText(settings) },
    { keyword: KEYWORDS.comfyUI, text: asciiJson(comfyGraph(settings)) },
    { keyword: KEYWORDS.fera, text: settingsJson(settings) },
  ]);
}

/**
 * What a PNG file says it was made with: by fera, A1111's web UI and what writes like it, or ComfyUI; the first of these
 * that is there.
 *
 * @param source - Names the file in messages.
 * @returns Undefined where it says nothing.
 * @throws {FormatError} If it is no PNG file, damaged, or says it in a way that is none.
 */
export function readGenerationSettings(png: Uint8Array, source = "PNG file"): FoundSettings | undefined {
  const texts = new Map(readPngTexts(png, source).map(({ keyword, text }) => [keyword, text]));
  const own = texts.get(KEYWORDS.fera);
  if (own !== undefined) return parseSettingsJson(own, source);
  const parameters = texts.get(KEYWORDS.a1111);
  if (parameters !== undefined) return parseParametersText(parameters);
  const graph = texts.get(KEYWORDS.comfyUI);
  return graph === undefined ? undefined : parseComfyGraph(graph);
}
