"""Makes test/reference/nf4.safetensors: weights as bitsandbytes keeps them in 4 bits.

Run from the repository root, with torch, bitsandbytes, numpy and safetensors installed:

    python test/parity/make-nf4-golden.py

`weight` [9, 128] float32; `codes` [576] int32, two codes of four bits each, the first one in the upper half; `absmax` [18] float32,
one per block of 64 values in row-major order; `dequantized` [9, 128] float32. One block is all zeros, one holds a value far
larger than its others. Rows are whole blocks: of others, bitsandbytes on CPUs (0.50.2) mixes up the blocks when it
widens them.
"""

from importlib.metadata import version
from pathlib import Path

import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file

TARGET = Path("test/reference/nf4.safetensors")
BLOCK = 64


def main():
    torch.manual_seed(0)
    weight = 0.05 * torch.randn(9, 128)
    blocks = weight.view(-1, BLOCK)
    blocks[3] = 0
    blocks[5, 7] = 4
    packed, state = F.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
    tensors = {
        "weight": weight,
        "codes": packed.flatten().to(torch.int32),
        "absmax": state.absmax.float().contiguous(),
        "dequantized": F.dequantize_4bit(packed, state).float().contiguous(),
    }
    save_file(tensors, TARGET, metadata={name: version(name) for name in ("torch", "bitsandbytes")})


if __name__ == "__main__":
    main()
