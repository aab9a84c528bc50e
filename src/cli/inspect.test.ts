import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { SD1_LAYOUT, singleFileOf } from "../../test/support/single-file.js";
import { FeRAModel, readFeRAAdapter, writePlainLora } from "../adapters/index.js";
import { FeraError } from "../errors.js";
import { UNet2DConditionModel } from "../models/index.js";
import { encodeSafetensors, readSafetensors, writeSafetensors, writeTorch } from "../storage/index.js";
import { float32ToFloat16 } from "../tensor/float16.js";
import { type Tensor, tensor, zeros } from "../tensor/tensor.js";
import { describePath } from "./inspect.js";

let dir: string;
const at = (...parts: string[]) => join(dir, ...parts);
const linesOf = async (path: string) => (await describePath(path)).join("\n");

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-inspect-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera inspect tells", () => {
  it("what is assumed of a .pt, its family's sizes, and its gates", async () => {
    const text = await linesOf("test/reference/unet-sd15/fera_output.pt");
    expect(text).toMatch(/FeRA adapter, PyTorch state dict\n +rank 4, 3 experts, 3 bands\n.*24 layers/);
    expect(text).toMatch(/family not known \(24 text features\)/);
    expect(text).toMatch(/no configuration in the file; assumed\n +alpha 1,/);
    const rows = text.match(/(all energy in band \d|energy spread evenly)( +0\.\d{3}){3}/g)!;
    expect(rows).toHaveLength(4);
    for (const row of rows) {
      const gates = row.match(/0\.\d{3}/g)!.map(Number);
      expect(gates.reduce((sum, gate) => sum + gate)).toBeCloseTo(1, 2);
    }
  });

  it.each([
    ["uniform", /router uniform[\s\S]*gates 1\/3 each, whatever the image/],
    ["gates-are-energies", /all energy in band 1 +1\.000 +0\.000 +0\.000\n/],
    ["timestep", /gates \(from noise to image\).*\n +timestep 999( +0\.\d{3}){3}\n[\s\S]*timestep 0( +0\.\d{3}){3}\n/],
  ] as const)("the gates of router %s", async (router, expected) => {
    const unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
    const path = at(`${router}.safetensors`);
    await new FeRAModel(unet, { router, targetModules: ["to_q"] }).saveAdapters(path);
    const text = await linesOf(path);
    expect(text).toMatch(/FeRA adapter, safetensors/);
    expect(text).toMatch(expected);
  });

  it("the family and the parts of a checkpoint in one file", async () => {
    const unet = "model.diffusion_model";
    const tensors = new Map<string, Tensor>([
      [`${unet}.input_blocks.0.0.weight`, zeros([320, 9, 3, 3])],
      [`${unet}.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight`, zeros([320, 768])],
      ["first_stage_model.decoder.conv_in.weight", zeros([4])],
      ["cond_stage_model.transformer.text_model.embeddings.position_ids", zeros([1, 77], "int64")],
    ]);
    await writeSafetensors(at("v1.safetensors"), tensors);
    const text = await linesOf(at("v1.safetensors"));
    expect(text).toMatch(/family Stable Diffusion 1\.x \(768 text features\)\n.*inpainting/);
    expect(text).toMatch(/diffusion model +271,680 parameters.*\n +autoencoder +4 .*\n +text encoder +77 /);
  });

  it("rank, alpha, targets and family of kohya's LoRA, of the text encoder's layers too", async () => {
    const unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";
    const encoder = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    const tensors = new Map<string, Tensor>();
    for (const [layer, rank, input] of [
      [unet, 8, 1024],
      [encoder, 4, 64],
    ] as const) {
      tensors.set(`${layer}.lora_down.weight`, zeros([rank, input]));
      tensors.set(`${layer}.lora_up.weight`, zeros([64, rank]));
      tensors.set(`${layer}.alpha`, tensor(Float32Array.of(2), []));
    }
    await writeSafetensors(at("kohya.safetensors"), tensors, { ss_base_model_version: "sd_v2" });
    const text = await linesOf(at("kohya.safetensors"));
    expect(text).toMatch(
      /plain LoRA, kohya's names; safetensors\n.*1 layer of the UNet.*, 1 layer of the text encoder/,
    );
    expect(text).toMatch(/rank 4 to 8, alpha 2\n +targets attn2_to_k ×1, self_attn_q_proj ×1\n/);
    expect(text).toMatch(/family Stable Diffusion 2\.x[\s\S]*ss_base_model_version sd_v2/);
  });

  it("whether a LoRA of other programs can be loaded, and what of it is not used", async () => {
    const golden = "test/reference/lora-files/sd";
    const counted = await linesOf(`${golden}/cloneofsimo.safetensors`);
    expect(counted).toMatch(/36 layers of the UNet, 8 layers of the text encoder[\s\S]*learned tokens <s1>\n/);
    expect(counted).toMatch(/fera can load it.*\. The file also holds 1 learned token \(<s1>\), which is not loaded/);
    expect(await linesOf(`${golden}/peft`)).toMatch(/rank 2 to 4, alpha as its configuration says[\s\S]*can load it/);
    const metadata = await linesOf(`${golden}/diffusers-metadata.safetensors`);
    expect(metadata).toMatch(/rank 4, alpha as its configuration says/);
    expect(await linesOf(`${golden}/bare.safetensors`)).toMatch(/rank 2, no alpha in the file: programs take the rank/);
    await writeSafetensors(at("loha.safetensors"), { "lora_unet_x.hada_w1_a": zeros([2, 2]) });
    expect(await linesOf(at("loha.safetensors"))).toMatch(
      /LoHa \(LyCORIS\)[\s\S]*fera cannot load it: .*lacks hada_w1_b/,
    );
    const magnitudes = await linesOf(`${golden}/kohya-dora.safetensors`);
    expect(magnitudes).toMatch(/DoRA \(LoRA with.*[\s\S]*fera can load it/);
  });

  it("which gates were frozen in what fera wrote, in every format", async () => {
    const adapter = await readFeRAAdapter("test/reference/unet-sdxl/fera_output.pt");
    const gates = [0.2, 0.5, 0.3];
    await writePlainLora(at("lora.safetensors"), adapter, gates, { to: "kohya" });
    await writePlainLora(at("folder"), adapter, gates, { to: "diffusers" });
    await writePlainLora(at("peft"), adapter, gates, { to: "peft" });
    for (const name of ["lora.safetensors", "folder", "peft"]) {
      expect(await linesOf(at(name))).toMatch(/FeRA adapter with 3 experts, gates frozen at 0\.200, 0\.500, 0\.300/);
    }
    expect(await linesOf(at("peft"))).toMatch(/PEFT adapter, peft_type LORA, r 12, lora_alpha 12/);
    expect(await linesOf(at("folder"))).toMatch(/diffusers' names.*\n.*layers of the UNet/);
  });

  it("names and shapes of tensors that it does not know, without control characters", async () => {
    await writeTorch(at("plain.pt"), new Map([["weight", zeros([2, 3])]]));
    expect(await linesOf(at("plain.pt"))).toMatch(/no LoRA.*\n +1 tensor, 6 parameters, 24 B, F32\n +weight \[2,3\]/);
    await writeSafetensors(at("escape.safetensors"), new Map([["a\u001b[2Jb\u202e", zeros([1])]]));
    expect(await linesOf(at("escape.safetensors"))).toContain("a\\u{1b}[2Jb\\u{202e} [1]");
  });
});

describe("fera inspect tells of a LoRA", () => {
  const layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";

  it.each(["float32", "float16"] as const)("its alpha, which is %s", async (dtype) => {
    const alpha = dtype === "float32" ? tensor([2], []) : tensor(float32ToFloat16(Float32Array.of(2)), [], "float16");
    const tensors = new Map<string, Tensor>([
      [`${layer}.lora_down.weight`, zeros([8, 768], dtype)],
      [`${layer}.lora_up.weight`, zeros([320, 8], dtype)],
      [`${layer}.alpha`, alpha],
    ]);
    await writeSafetensors(at("alpha.safetensors"), tensors);
    expect(await linesOf(at("alpha.safetensors"))).toMatch(/rank 8, alpha 2\n/);
  });

  it("that it is a DoRA, and whose names it has", async () => {
    const tensors = new Map([
      [`${layer}.lora_down.weight`, zeros([8, 768])],
      [`${layer}.lora_up.weight`, zeros([320, 8])],
      [`${layer}.dora_scale`, zeros([320, 1])],
      ["stray", zeros([1])],
    ]);
    await writeSafetensors(at("dora.safetensors"), tensors);
    const text = await linesOf(at("dora.safetensors"));
    expect(text).toMatch(/: DoRA .*, kohya's names; safetensors\n/);
    expect(text).not.toMatch(/: plain LoRA/);
    expect(text).toMatch(/1 tensor of no layer: stray/);
    await writeSafetensors(
      at("numbers.safetensors"),
      { "unet:0:down": zeros([1, 320]), "unet:0:up": zeros([320, 1]), "<s1>": zeros([768]) },
      { "<s1>": "<embed>" },
    );
    expect(await linesOf(at("numbers.safetensors"))).toMatch(/plain LoRA, cloneofsimo's names[\s\S]*tokens <s1>/);
  });
});

describe("whether fera can load a model is what loading it would say", () => {
  const TINY = "test/reference/pipeline-tiny";
  let copy: string;

  beforeEach(async () => {
    copy = at(`pipeline${Math.random()}`);
    await cp(TINY, copy, { recursive: true });
  });

  const change = async (file: string, values: object) => {
    const old = JSON.parse(await readFile(join(copy, file), "utf8"));
    await writeFile(join(copy, file), JSON.stringify({ ...old, ...values }));
  };

  it("of a pipeline as it is, and of its models", async () => {
    expect(await linesOf(copy)).toMatch(/\n {2}fera can load it$/);
    for (const part of ["unet", "vae", "text_encoder"])
      expect(await linesOf(join(copy, part))).toMatch(/fera can load it/);
  });

  it.each([
    ["vae/config.json", { latents_mean: [0, 0, 0, 0] }, /cannot load it: .*latents_mean/],
    [
      "unet/config.json",
      { in_channels: 9 },
      /cannot load it: .*"conv_in\.weight" is \[\d+,4,3,3\].*needs \[\d+,9,3,3\]/,
    ],
    ["unet/config.json", { cross_attention_dim: 25 }, /cannot load it: .*attn2\.to_k/],
    ["text_encoder/config.json", { vocab_size: 10 }, /cannot load it: .*token_embedding/],
  ])("with another %s: %j", async (file, values, message) => {
    await change(file, values);
    const text = await linesOf(copy);
    expect(text).toMatch(message);
    expect(text).not.toMatch(/can load it/);
  });

  it("of a folder without weights, or with a weight too many", async () => {
    const file = join(copy, "unet/diffusion_pytorch_model.safetensors");
    const { tensors } = await readSafetensors(file);
    await writeSafetensors(file, tensors.set("extra", zeros([1])));
    expect(await linesOf(copy)).toMatch(/cannot load it: .*does not use: "extra"/);
    await rm(file);
    const text = await linesOf(copy);
    expect(text).toMatch(/unet +UNet2DConditionModel +no weights/);
    expect(text).toMatch(/cannot load it: .*unet: has no diffusion_pytorch_model\.safetensors/);
  });

  it("of one that has its weights as a variant only, which it names", async () => {
    for (const part of ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]) {
      await rename(join(copy, `${part}.safetensors`), join(copy, `${part}.fp16.safetensors`));
    }
    const text = await linesOf(copy);
    expect(text).toMatch(/unet +UNet2DConditionModel +[\d,]+ +[\d.]+ kB +F32, fp16/);
    expect(text).toMatch(/variant fp16 of text_encoder, unet, vae/);
    expect(text).toMatch(/cannot load it: .*\n +try --variant fp16/);
    const asked = (await describePath(copy, { variant: "fp16" })).join("\n");
    expect(asked).toMatch(/\n {2}fera can load it$/);
  });

  it("of one with a scheduler that fera does not have: it is loaded and trained, and sampled with another", async () => {
    await change("model_index.json", { scheduler: ["diffusers", "DEISMultistepScheduler"] });
    const scheduler = { _class_name: "DEISMultistepScheduler", algorithm_type: "deis", solver_order: 2 };
    await change("scheduler/scheduler_config.json", scheduler);
    const text = await linesOf(copy);
    expect(text).toMatch(/fera can load it\n +to sample, it needs another scheduler .*DEISMultistepScheduler/);
    expect(text).not.toMatch(/cannot be trained/);
    await change("scheduler/scheduler_config.json", { beta_schedule: "laplace" });
    expect(await linesOf(copy)).toMatch(/it cannot be trained: .*beta_schedule="laplace"/);
  });

  it("of one whose weights are pickled: as far as can be told without reading them", async () => {
    const file = join(copy, "unet/diffusion_pytorch_model");
    await writeTorch(`${file}.bin`, (await readSafetensors(`${file}.safetensors`)).tensors);
    await rm(`${file}.safetensors`);
    const text = await linesOf(copy);
    expect(text).toMatch(/unet +UNet2DConditionModel +pickled/);
    expect(text).toMatch(/fera can load it\n +some weights are pickled: their names and shapes are compared only/);
    expect(await linesOf(join(copy, "unet"))).toMatch(
      /pickled weights\n[\s\S]*its weights are pickled: compared only when/,
    );
  });

  it("of a model of a class that it does not have", async () => {
    await change("unet/config.json", { _class_name: "QwenImageTransformer2DModel" });
    expect(await linesOf(join(copy, "unet"))).toMatch(/fera has no model of this class; it has UNet2DConditionModel, /);
  });

  it("of a checkpoint in one file", async () => {
    const file = join(copy, "one.safetensors");
    await writeSafetensors(file, await singleFileOf(TINY, SD1_LAYOUT));
    // Its configuration is taken to be the real model's.
    expect(await linesOf(file)).toMatch(/fera cannot load it: .*token_embedding\.weight" is/);
  });

  it("of a transformer alone in a file, with and without the folder that has the rest", async () => {
    const file = "test/reference/single-file/flux.safetensors";
    const alone = await linesOf(file);
    expect(alone).toMatch(/family FLUX\.1\n +part +parameters, size, type\n +transformer /);
    expect(alone).toMatch(
      /fera cannot load it: .*heads have 12 features.*\n +for images and training, give --model-config/,
    );
    const lines = await describePath(file, { config: "test/reference/pipelines/flux" });
    expect(lines.join("\n")).toMatch(/fera can load it/);
  });
});

describe("fera inspect ends with a message for", () => {
  it.each([
    ["an image", "picture.safetensor", "\x89PNG\r\n\x1a\n0000", /is a PNG image/],
    ["a pickle", "model.ckpt", "\x80\x02}q\x00.", /bare Python pickle, which could execute anything/],
    ["a pointer of Git LFS", "lfs.bin", "version https://git-lfs.github.com/spec/v1\n", /Git LFS pointer/],
    ["an empty file", "empty.bin", "", /is an empty file/],
    ["a lone JSON file", "lone.json", '{ "rank": 4 }', /seems to be JSON\. Name the folder/],
    ["anything else", "noise.bin", "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x10", /of a kind that is not known here/],
    ["a pipeline of nothing", "null/model_index.json", "null", /model_index\.json: must hold a JSON object/],
    ["a model of nothing", "list/config.json", "[]", /config\.json: must hold a JSON object/],
    ["an adapter of nothing", "three/adapter_config.json", "3", /adapter_config\.json: must hold a JSON object/],
    ["a folder without weights", "bare/adapter_config.json", "{}", /adapter_model\.safetensors: .*no such file/],
    ["a folder of images", "photos/cat.jpg", "", /holds cat\.jpg\. Images to train on .*--data/],
    ["a file that is missing", "gone/there.txt", "", /there is no such file or folder/],
  ])("%s", async (_, name, content, message) => {
    const path = at("odd", name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, Buffer.from(content, "latin1"));
    const target = name.endsWith(".txt") ? join(path, "below") : name.includes("/") ? dirname(path) : path;
    const error = await describePath(target).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FeraError);
    expect((error as Error).message).toMatch(message);
  });

  it("a training's checkpoint whose header lies", async () => {
    for (const [i, state] of ["null", "{", '{"step":1e999}', '{"step":3,"fingerprint":[]}'].entries()) {
      await writeSafetensors(at(`liar${i}.safetensors`), new Map([["a", zeros([1])]]), { fera_checkpoint: state });
      await expect(describePath(at(`liar${i}.safetensors`))).rejects.toThrow(
        /liar\d\.safetensors: its fera_checkpoint/,
      );
    }
  });

  it("any damage to a file, if it does not describe what is left", async () => {
    const adapter = await readFeRAAdapter("test/reference/unet-sd15/fera_output.pt");
    const small = new Map([...adapter.state].slice(0, 6));
    const whole = encodeSafetensors(small, { fera_config: "{}" });
    const path = at("damaged.safetensors");
    let seed = 1;
    for (let trial = 0; trial < 60; trial++) {
      const bytes = trial % 3 === 0 ? whole.slice(0, Math.floor((whole.length * trial) / 60)) : whole.slice();
      for (let i = 0; i < 4 && bytes.length > 0; i++) {
        seed = (seed * 48271) % 2147483647;
        bytes[seed % Math.min(bytes.length, 700)] = seed >> 8;
      }
      await writeFile(path, bytes);
      const error = await describePath(path).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (error !== undefined) expect(error, `trial ${trial}`).toBeInstanceOf(FeraError);
    }
  });
});
