#!/usr/bin/env bash
# Makes the virtual environment of the bench's baseline: the newest PyTorch and diffusers that pip finds.
#
#     bench/baseline/setup.sh [FOLDER]        default: runs/bench/baseline
#
# pip's own settings (PIP_INDEX_URL and others) choose the source, for example one with CPU builds of PyTorch.
# torch.compile needs a C++ compiler besides.
set -euo pipefail

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
folder="${1:-$repository/runs/bench/baseline}"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --upgrade torch diffusers accelerate safetensors numpy
"$folder/bin/python" -c 'import diffusers, torch; print("torch", torch.__version__, "diffusers", diffusers.__version__)'
