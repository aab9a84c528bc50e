"""Makes test/reference/flow-names.json: how diffusers turns the original checkpoints of flow transformers into its own.

Run from the repository root, with torch, diffusers and safetensors installed; it needs no network:

    python test/parity/make-flow-names-golden.py

The original names are written down here from the modules of the original code. Every row of every tensor holds its own
number, so that the rows of what diffusers' converters give tell where they came from. Per family the file holds the
transformer's configuration, and of every tensor of diffusers' [name, original name, first row, rows], where rows is
"swapped" if the halves stand in the other order and null where the tensor is taken whole. FLUX.1's converter has the width of
the real model written into it; it runs here with that of the tiny one.
"""

import inspect
import json
import re
from pathlib import Path

import diffusers
import torch
from diffusers.loaders import single_file_utils

PIPELINES = Path("test/reference/pipelines")
FAMILIES = {
    "FluxTransformer2DModel": ("flux", "convert_flux_transformer_checkpoint_to_diffusers"),
    "SD3Transformer2DModel": ("stable-diffusion-3", "convert_sd3_transformer_checkpoint_to_diffusers"),
    "Flux2Transformer2DModel": ("flux2-klein", "convert_flux2_transformer_checkpoint_to_diffusers"),
    "ZImageTransformer2DModel": ("z-image", "convert_z_image_transformer_checkpoint_to_diffusers"),
}
Shapes = dict[str, tuple[int, ...]]


def with_width(function, width: int, namespace: dict):
    """diffusers' function with the tiny model's width in place of FLUX.1's 3072."""
    source = re.sub(r"\b3072\b", str(width), inspect.getsource(function))
    source = re.sub(r"\b12288\b", str(4 * width), source)
    scope = dict(namespace)
    exec(source, scope)  # noqa: S102
    return scope[function.__name__]


def converter(family: str, config: dict):
    function = getattr(single_file_utils, FAMILIES[family][1])
    if family != "FluxTransformer2DModel":
        return function
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return with_width(function, width, vars(single_file_utils))


def config_of(family: str) -> dict:
    return json.loads((PIPELINES / FAMILIES[family][0] / "transformer/config.json").read_text())


def transformer_of(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(diffusers, family).from_config(config_of(family)).eval()


def dense(shapes: Shapes, name: str, rows: int, columns: int, bias: bool) -> None:
    shapes[f"{name}.weight"] = (rows, columns)
    if bias:
        shapes[f"{name}.bias"] = (rows,)


def flux(config: dict, second: bool) -> Shapes:
    head = config["attention_head_dim"]
    width, bias = config["num_attention_heads"] * head, not second
    shapes: Shapes = {}
    layer = lambda name, rows, columns: dense(shapes, name, rows, columns, bias)  # noqa: E731
    time = config["timestep_guidance_channels"] if second else 256
    layer("img_in", width, config["in_channels"])
    layer("txt_in", width, config["joint_attention_dim"])
    for name, columns in (
        ("time_in", time),
        *((("vector_in", config["pooled_projection_dim"]),) if not second else ()),
        *((("guidance_in", time),) if config["guidance_embeds"] else ()),
    ):
        layer(f"{name}.in_layer", width, columns)
        layer(f"{name}.out_layer", width, width)
    mlp = int(width * (config["mlp_ratio"] if second else 4))
    wide = 2 * mlp if second else mlp
    for i in range(config["num_layers"]):
        for stream in ("img", "txt"):
            block = f"double_blocks.{i}.{stream}"
            layer(f"{block}_attn.qkv", 3 * width, width)
            layer(f"{block}_attn.proj", width, width)
            layer(f"{block}_mlp.0", wide, width)
            layer(f"{block}_mlp.2", width, mlp)
            if not second:
                layer(f"{block}_mod.lin", 6 * width, width)
            for norm in ("query_norm", "key_norm"):
                shapes[f"{block}_attn.norm.{norm}.scale"] = (head,)
    for i in range(config["num_single_layers"]):
        block = f"single_blocks.{i}"
        layer(f"{block}.linear1", 3 * width + wide, width)
        layer(f"{block}.linear2", width, width + mlp)
        if not second:
            layer(f"{block}.modulation.lin", 3 * width, width)
        for norm in ("query_norm", "key_norm"):
            shapes[f"{block}.norm.{norm}.scale"] = (head,)
    if second:
        for name, count in (("double_stream_modulation_img", 6), ("double_stream_modulation_txt", 6)):
            layer(f"{name}.lin", count * width, width)
        layer("single_stream_modulation.lin", 3 * width, width)
    layer("final_layer.linear", config["in_channels"], width)
    layer("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes


def sd3(config: dict) -> Shapes:
    head, layers, patch = config["attention_head_dim"], config["num_layers"], config["patch_size"]
    width = config["num_attention_heads"] * head
    shapes: Shapes = {"pos_embed": (1, config["pos_embed_max_size"] ** 2, width)}
    layer = lambda name, rows, columns: dense(shapes, name, rows, columns, True)  # noqa: E731
    shapes["x_embedder.proj.weight"] = (width, config["in_channels"], patch, patch)
    shapes["x_embedder.proj.bias"] = (width,)
    layer("context_embedder", config["caption_projection_dim"], config["joint_attention_dim"])
    for name, columns in (("t_embedder", 256), ("y_embedder", config["pooled_projection_dim"])):
        layer(f"{name}.mlp.0", width, columns)
        layer(f"{name}.mlp.2", width, width)
    for i in range(layers):
        dual, last = i in config["dual_attention_layers"], i == layers - 1
        for stream in ("x_block", "context_block"):
            block, text = f"joint_blocks.{i}.{stream}", stream == "context_block"
            for attention in ("attn", "attn2") if dual and not text else ("attn",):
                layer(f"{block}.{attention}.qkv", 3 * width, width)
                for norm in ("ln_q", "ln_k"):
                    shapes[f"{block}.{attention}.{norm}.weight"] = (head,)
                if not (text and last):
                    layer(f"{block}.{attention}.proj", width, width)
            layer(f"{block}.adaLN_modulation.1", (9 if dual and not text else 2 if text and last else 6) * width, width)
            if not (text and last):
                layer(f"{block}.mlp.fc1", 4 * width, width)
                layer(f"{block}.mlp.fc2", width, 4 * width)
    layer("final_layer.linear", patch * patch * config["out_channels"], width)
    layer("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes


def z_image(config: dict) -> Shapes:
    """What is not renamed is taken from diffusers' own model."""
    shapes: Shapes = {}
    width = config["dim"]
    renamed = {
        "all_x_embedder.2-1.": "x_embedder.",
        "all_final_layer.2-1.": "final_layer.",
        ".to_out.0.": ".out.",
        ".norm_q.": ".q_norm.",
        ".norm_k.": ".k_norm.",
    }
    for name, tensor in transformer_of("ZImageTransformer2DModel").state_dict().items():
        if ".attention.to_q." in name:
            shapes[name.replace("to_q", "qkv")] = (3 * width, width)
        elif not re.search(r"\.attention\.to_[kv]\.", name):
            for new, old in renamed.items():
                name = name.replace(new, old)
            shapes[name] = tuple(tensor.shape)
    return shapes


def originals(family: str) -> Shapes:
    """Names and shapes of the original checkpoint."""
    config = config_of(family)
    if family == "SD3Transformer2DModel":
        return sd3(config)
    if family == "ZImageTransformer2DModel":
        return z_image(config)
    return flux(config, family.startswith("Flux2"))


def pairs(family: str) -> list[list]:
    names, checkpoint, number = {}, {}, 0
    for name, shape in originals(family).items():
        rows = shape[0]
        ids = torch.arange(number, number + rows, dtype=torch.float64)
        names |= {number + row: (name, row) for row in range(rows)}
        checkpoint[name] = ids.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
        number += rows
    shapes = originals(family)
    state = {name: tensor.shape for name, tensor in transformer_of(family).state_dict().items()}
    converted = converter(family, config_of(family))(dict(checkpoint))
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == {k: tuple(s) for k, s in state.items()}
    found = []
    for name, tensor in converted.items():
        ids = tensor.reshape(tensor.shape[0], -1)[:, 0].long().tolist()
        original, first = names[ids[0]]
        assert all(names[each][0] == original for each in ids)
        if ids == list(range(ids[0], ids[0] + len(ids))):
            whole = len(ids) == shapes[original][0]
            found.append([name, original, 0 if whole else first, None if whole else len(ids)])
        else:
            half = len(ids) // 2
            assert ids == ids[half:][:0] + list(range(ids[0], ids[0] + half)) + list(range(ids[0] - half, ids[0]))
            found.append([name, original, 0, "swapped"])
    assert {original for _, original, *_ in found} == shapes.keys()
    return found


def main() -> None:
    golden = {"versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}}
    for family in FAMILIES:
        golden[family] = {"config": config_of(family), "names": pairs(family)}
        print(family, len(golden[family]["names"]))
    Path("test/reference/flow-names.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
