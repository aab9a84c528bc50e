"""Makes test/reference/float8.json: the value of every byte as torch's float8_e4m3fn and float8_e5m2, null for no number.

    python test/parity/make-float8-golden.py
"""

import json
import math
from pathlib import Path

import torch

BYTES = torch.arange(256, dtype=torch.uint8)
TYPES = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
golden = {"torch": torch.__version__}
for name, dtype in TYPES.items():
    values = BYTES.view(dtype).float().tolist()
    golden[name] = [None if math.isnan(v) else str(v) if math.isinf(v) else v for v in values]
Path("test/reference/float8.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
