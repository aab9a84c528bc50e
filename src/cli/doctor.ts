// fera doctor: what this machine has, what fera would compute with, and what would silently run on the CPU.

import { readFileSync } from "node:fs";
import { cpus, freemem, totalmem } from "node:os";
import { Command } from "commander";
import { backend, compileProbe, type Device, type Fallbacks } from "../runtime/index.js";
import { CHECKED_MODELS, type CheckedModel, currentEngine, memoryText, trainStepFallbacks } from "../training/index.js";
import { flag } from "../training/options/option.js";
import { formatCount } from "./format.js";
import { addOptions, readOptions } from "./options.js";
import "./platform.js";
import { print } from "./printable.js";

const OPTIONS = {
  json: flag("print all of it as JSON"),
};

/** Those that ONNX Runtime's kernels, or half-precision weights, are faster with. */
const TELLING_INSTRUCTIONS = [
  ...["sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"],
  ...["avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "fphp"],
];
/** How a device is called, and what it needs. */
const PROVIDERS: Readonly<Record<Device, string>> = {
  cpu: "CPU",
  webgpu: "WebGPU",
  cuda: "CUDA",
  coreml: "CoreML",
  dml: "DirectML",
  wasm: "WebAssembly",
};

/** All that the command tells. */
export interface Diagnosis {
  versions: Readonly<Record<string, string>>;
  cpu: { model: string; processors: number; instructions: readonly string[] | undefined };
  memory: { totalBytes: number; availableBytes: number; limitBytes?: number };
  /** Offered by ONNX Runtime here; with what came of a first computation there. */
  devices: readonly { device: Device; works: boolean; problem?: string }[];
  chosen: { device: Device; auto: Device; dtype: string; why: string };
  fallbacks: Readonly<Record<string, readonly Fallbacks[]>>;
}

/** The command. */
export function doctorCommand(): Command {
  const command = new Command("doctor").description(
    "Says what this machine has, which device and precision would be used and why, and which operators of a training step " +
      "would run on the CPU on each kind of GPU.",
  );
  addOptions(command, OPTIONS);
  return command.action(async () => {
    const { json } = await readOptions(command, OPTIONS);
    const diagnosis = await diagnose();
    if (json) print(JSON.stringify(diagnosis, undefined, 1));
    else for (const line of described(diagnosis)) print(line);
  });
}

async function diagnose(): Promise<Diagnosis> {
  const devices: { device: Device; works: boolean; problem?: string }[] = [];
  const offered = await backend().devices();
  for (const device of offered) {
    const problem = await compileProbe(device);
    devices.push({ device, works: problem === undefined, ...(problem !== undefined && { problem }) });
  }
  const fallbacks: Record<string, readonly Fallbacks[]> = {};
  for (const name of Object.keys(CHECKED_MODELS) as CheckedModel[]) fallbacks[name] = await trainStepFallbacks(name);
  const { device: _, threads: _t, ...versions } = currentEngine();
  const [first] = cpus();
  const limitBytes = limitOfProcess();
  return {
    versions: { ...versions, node: process.version },
    cpu: { model: first?.model.trim() ?? "unknown", processors: cpus().length, instructions: instructionSets() },
    memory: {
      totalBytes: totalmem(),
      availableBytes: availableBytes(),
      ...(limitBytes !== undefined && { limitBytes }),
    },
    devices,
    chosen: chosen(offered),
    fallbacks,
  };
}

function chosen(offered: readonly Device[]): Diagnosis["chosen"] {
  const auto = offered[0]!;
  const why =
    auto === "cpu"
      ? "the CPU is the default, and --device auto takes it too: CUDA's files are not installed, and no other provider has " +
        "been measured faster"
      : `the CPU is the default; --device auto takes ${PROVIDERS[auto]}, whose files are installed`;
  return { device: "cpu", auto, dtype: "float32", why };
}

/** From the kernel; undefined where it does not tell. */
function instructionSets(): string[] | undefined {
  let text: string;
  try {
    text = readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return undefined;
  }
  const flags = new Set((/^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? "").split(" "));
  return TELLING_INSTRUCTIONS.filter((name) => flags.has(name));
}

/** What a new program could have without others being pushed out. */
function availableBytes(): number {
  try {
    const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
    if (kilobytes !== undefined) return Number(kilobytes) * 1024;
  } catch {
    // Only Linux has the file.
  }
  return freemem();
}

/** Of a container, where it is less than what the machine has. */
function limitOfProcess(): number | undefined {
  const limit = process.constrainedMemory?.() ?? 0;
  return limit > 0 && limit < totalmem() ? limit : undefined;
}

function described({ versions, cpu, memory, devices, chosen, fallbacks }: Diagnosis): string[] {
  const limit =
    memory.limitBytes === undefined ? "" : `, of which this process may take ${memoryText(memory.limitBytes)}`;
  const instructions = cpu.instructions?.join(" ") ?? "not told by this system";
  const lines = [
    `versions  ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}`,
    `cpu       ${cpu.model}, ${cpu.processors} processors`,
    `          ${instructions}`,
    `memory    ${memoryText(memory.totalBytes)}${limit}; available ${memoryText(memory.availableBytes)}`,
    ...devices.map(
      ({ device, works, problem }, i) =>
        `${i === 0 ? "devices " : "        "}  ${device.padEnd(7)} ${works ? "works" : `does not work here: ${problem}`}`,
    ),
    `used      --device ${chosen.device}, --dtype ${chosen.dtype}: ${chosen.why}; float32 is exact, and --dtype float16 or`,
    "          bfloat16 keeps frozen weights in half the memory. --mixed-precision fp16 is for GPUs.",
  ];
  for (const [model, providers] of Object.entries(fallbacks)) {
    lines.push(`A training step of ${model}'s shape, ${formatCount(providers[0]!.nodes)} nodes; on the CPU would run:`);
    for (const { provider, operators } of providers) {
      const listed = operators.map(({ operator, nodes, why }) => {
        const note = why.startsWith("needs") ? ` (${why})` : "";
        return `${operator} ${formatCount(nodes)}${note}`;
      });
      lines.push(`  ${PROVIDERS[provider].padEnd(9)}${listed.length === 0 ? "nothing" : listed.join(", ")}`);
    }
  }
  const [first] = Object.values(fallbacks);
  lines.push("Read from:", ...first!.map(({ provider, source }) => `  ${PROVIDERS[provider].padEnd(9)}${source}`));
  return lines;
}
