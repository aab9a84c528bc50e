// ONNX Runtime's Node binding: the copy that this package carries (vendor/README.md), or one that the project has
// installed, which is how CUDA's files come in. Plain JavaScript, as the worker thread that loads it.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** @typedef {typeof import("onnxruntime-common") & { listSupportedBackends(): { name: string, bundled: boolean }[] }} OnnxRuntime */

const require = createRequire(import.meta.url);
const CARRIED = fileURLToPath(new URL("../../vendor/onnxruntime-node", import.meta.url));

/** Folder of the binding's package. */
export const onnxRuntimeFolder = chooseFolder();

/** ONNX Runtime's version. */
export const onnxRuntimeVersion = /** @type {string} */ (versionIn(onnxRuntimeFolder));

/** Folder of the native files for this platform; libraries of execution providers are found here. */
export const nativeFolder = join(onnxRuntimeFolder, "bin", "napi-v6", process.platform, process.arch);

if (!existsSync(nativeFolder)) {
  throw new Error(
    `ONNX Runtime ${onnxRuntimeVersion} has no Node binding for ${process.platform}/${process.arch}; there are ` +
      `${platforms().join(", ")}. Use one of these, or Node built for another processor where the system runs it.`,
  );
}

/** The binding's exports. */
export const onnxRuntime = /** @type {OnnxRuntime} */ (require(onnxRuntimeFolder));

/**
 * The installed package counts where its minor version is the carried one's: kernels and the numbers they give change
 * between minor versions, and another package may have brought it along.
 */
function chooseFolder() {
  const installed = installedFolder();
  const carried = versionIn(CARRIED);
  if (installed && (!carried || minor(versionIn(installed)) === minor(carried))) return installed;
  if (carried) return CARRIED;
  throw new Error("ONNX Runtime is missing from fera's package. Install fera again; in a checkout, run npm ci.");
}

function installedFolder() {
  try {
    return dirname(require.resolve("onnxruntime-node/package.json"));
  } catch {
    return undefined;
  }
}

/** @param {string} folder @returns {string | undefined} */
function versionIn(folder) {
  const file = join(folder, "package.json");
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).version : undefined;
}

/** @param {string | undefined} version */
function minor(version) {
  return version?.split(".").slice(0, 2).join(".");
}

function platforms() {
  const bin = join(onnxRuntimeFolder, "bin", "napi-v6");
  return readdirSync(bin).flatMap((platform) => readdirSync(join(bin, platform)).map((arch) => `${platform}/${arch}`));
}
