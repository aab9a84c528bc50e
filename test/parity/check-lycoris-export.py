"""Checks that PEFT and LyCORIS load what fera writes of LoKr and LoHa, and compute what fera does.

Run from the repository root after `npm run build`, with torch, diffusers, peft, lycoris-lora and safetensors installed:

    python test/parity/check-lycoris-export.py

fera draws an adapter of each kind on the tiny UNet of test/reference/unet-sd15, writes it as a file and as a folder, and
predicts; PEFT loads the folder, LyCORIS's modules the file.
"""

import subprocess
import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import PeftModel
from safetensors.torch import load_file

SOURCE = Path("test/reference/unet-sd15")
TOLERANCE = 2e-4
DRAW = """
import { AdapterModel, Generator, LoHaConfig, LoKrConfig, UNet2DConditionModel, randn, readSafetensors, writeSafetensors } from "fera";
const [folder] = process.argv.slice(1);
const unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15/unet");
const { tensors } = await readSafetensors("test/reference/unet-sd15/expected.safetensors");
const layers = { alpha: 3, targetModules: ["to_q", "conv1", "proj_in", "downsamplers.0.conv"] };
const kinds = {
  lokr: new LoKrConfig({ ...layers, rank: 1, factor: 4, rankPattern: { conv1: 2 }, alphaPattern: { "attn1.to_q": 1 } }),
  both: new LoKrConfig({ ...layers, rank: 1, decomposeBoth: true, useTucker: true }),
  whole: new LoKrConfig({ ...layers, rank: 2, fullMatrix: true }),
  loha: new LoHaConfig({ ...layers, rank: 2, rankPattern: { conv1: 3 } }),
};
const outputs = {};
for (const [name, config] of Object.entries(kinds)) {
  const model = await AdapterModel.create(unet, config);
  for (const [key, { data, shape }] of model.parameters) {
    const drawn = randn(shape, { generator: new Generator(key.length) }).data;
    for (let i = 0; i < data.length; i++) data[i] = 0.4 * drawn[i];
  }
  await model.saveAdapters(`${folder}/${name}`);
  await model.saveAdapters(`${folder}/${name}.safetensors`);
  const [latents, timesteps, encoderHiddenStates] = ["latents", "timesteps", "encoder_hidden_states"].map((key) => tensors.get(key));
  outputs[name] = await model.predict({ latents, timesteps, encoderHiddenStates });
  await model.dispose();
}
await writeSafetensors(`${folder}/outputs.safetensors`, new Map(Object.entries(outputs)));
process.exit(0);
"""


def fresh() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(SOURCE / "unet").eval()


def run(model: torch.nn.Module) -> torch.Tensor:
    batch = load_file(SOURCE / "expected.safetensors")
    with torch.no_grad():
        return model(batch["latents"], batch["timesteps"], encoder_hidden_states=batch["encoder_hidden_states"]).sample


def with_lycoris(path: Path) -> UNet2DConditionModel:
    unet = fresh()
    state = load_file(path)
    used = set()
    for name, module in list(unet.named_modules()):
        prefix = f"lora_unet_{name.replace('.', '_')}."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not own:
            continue
        kind = LohaModule if "hada_w1_a" in own else LokrModule
        values = [own.get(key) for key in kind.weight_list]
        with torch.no_grad():
            adapter = kind.make_module_from_state_dict(prefix[:-1], module, *values)
        adapter.apply_to()
        unet.add_module(prefix[:-1], adapter)
        used |= {prefix + key for key in own}
    assert used == set(state)
    return unet


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["node", "--input-type=module", "-e", DRAW, folder], check=True)
        for name, expected in load_file(f"{folder}/outputs.safetensors").items():
            programs = {
                "peft": PeftModel.from_pretrained(fresh(), f"{folder}/{name}").base_model.model,
                "lycoris": with_lycoris(Path(folder) / f"{name}.safetensors"),
            }
            for program, model in programs.items():
                error = ((run(model) - expected).norm() / expected.norm()).item()
                print(f"{name} by {program}: {error:.1e}")
                assert error < TOLERANCE


if __name__ == "__main__":
    main()
