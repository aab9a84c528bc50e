// The options that say which model runs, and where.

import { WEIGHT_TYPES } from "../../models/index.js";
import { DEVICES } from "../../runtime/index.js";
import { choice, integer, text } from "./option.js";

/** Devices of ONNX Runtime in Node; `wasm` is the browser's. */
const NODE_DEVICES = ["auto", ...DEVICES.filter((device) => device !== "wasm")] as const;

export const RUNTIME_OPTIONS = {
  device: choice("where the model runs", NODE_DEVICES).withDefault("cpu").changesNothing(),
  threads: integer("threads of the CPU; by default all", { min: 1, max: 1024 }).changesNothing(),
};

/** Where a model comes from, beside `--model` itself. A token comes from HF_TOKEN only: it has no place in a history. */
export const MODEL_OPTIONS = {
  // A resumed run compares the weights themselves.
  variant: text("weights saved under this variant, such as fp16, where the model has them", "NAME").changesNothing(),
  modelConfig: text(
    "for a --model that is one file: folder or hub id of a pipeline in diffusers' layout that has what the file lacks: " +
      "configuration, tokenizers, models",
    "MODEL",
  ).changesNothing(),
  revision: text("branch, tag or commit of a model from the hub", "NAME").changesNothing(),
  dtype: choice(
    "how frozen weights are kept: float16 and bfloat16 take half the memory; int8: large layers of the denoiser, T5 and Qwen3 as 8-bit " +
      "integers, faster on CPUs with VNNI or AMX; nf4: these in 4 bits, an eighth of the memory; auto: as their files have them",
    WEIGHT_TYPES,
  ).withDefault("float32"),
  ...RUNTIME_OPTIONS,
};

export const MODEL_HELP =
  "a pipeline: folder in diffusers' layout, single .safetensors checkpoint, or hub id (OWNER/NAME)";
