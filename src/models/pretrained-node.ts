// Reads model folders from disk: float32 weights stay in their safetensors file, half precision is converted in memory.

import { FormatError } from "../errors.js";
import { readModelFolder } from "../formats/diffusers-folder.js";
import { withFile } from "../formats/file-access.js";
import { decodeSafetensorsEntry } from "../formats/safetensors.js";
import { float16ToFloat32 } from "../tensor/float16.js";
import { Tensor } from "../tensor/tensor.js";
import "./clip-tokenizer-files.js";
import { type ModelFolder, registerModelFolderReader } from "./pretrained.js";

registerModelFolderReader(async (dir, request) => {
  const folder = await readModelFolder(dir, request);
  const weights: ModelFolder["weights"] = new Map();
  for (const { path, entries } of folder.weights) {
    await withFile(path, async (file) => {
      for (const [name, { dtype, shape, offset, length }] of entries) {
        if (dtype === "F32") {
          weights.set(name, { shape, range: { path, offset, length } });
          continue;
        }
        if (dtype === "I64") continue; // position_ids of older text encoders: constants that the code knows.
        const decoded = decodeSafetensorsEntry(
          name,
          { dtype, shape, offset, length },
          await file.read(offset, length),
          path,
        );
        if (decoded.dtype === "float16") {
          const values = float16ToFloat32(decoded.data as Uint16Array);
          weights.set(name, { shape, tensor: new Tensor("float32", shape, values) });
        } else if (decoded.dtype === "float32") {
          weights.set(name, { shape, tensor: decoded as Tensor<"float32"> });
        } else {
          throw new FormatError(path, `the weight "${name}" is ${dtype}; weights must be F32, F16 or BF16.`);
        }
      }
    });
  }
  return { source: folder.dir, config: folder.config, weights };
});
