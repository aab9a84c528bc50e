"""Makes test/reference/learning-rates.json: learning rates by step of diffusers' schedules.

Run from the repository root, with torch and diffusers installed:

    python test/parity/make-learning-rate-golden.py

REX (rate (1 - p) / (1 - p/2), p the progress after the warm-up; Chen et al. 2021, arXiv:2107.04197) is not among them: it is
tested by its formula.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers.optimization import get_scheduler

TARGET = Path("test/reference/learning-rates.json")
RATE = 1e-3
STEPS = 40
CASES = [
    ("constant", "constant", 0, {}),
    ("constant", "constant_with_warmup", 7, {}),
    ("linear", "linear", 0, {}),
    ("linear", "linear", 7, {}),
    ("cosine", "cosine", 7, {}),
    ("cosine-restarts", "cosine_with_restarts", 7, {"num_cycles": 3}),
    ("cosine-restarts", "cosine_with_restarts", 0, {"num_cycles": 1}),
    ("polynomial", "polynomial", 7, {"power": 2.0}),
    ("polynomial", "polynomial", 0, {"power": 0.5}),
]


def rates(name: str, warmup: int, options: dict) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS, **options)
    found = []
    for _ in range(STEPS + 5):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


cases = [
    {"schedule": name, "diffusers": theirs, "warmupSteps": warmup, **options, "rates": rates(theirs, warmup, options)}
    for name, theirs, warmup, options in CASES
]
versions = {name: version(name) for name in ("torch", "diffusers")}
content = {"script": "test/parity/make-learning-rate-golden.py", "versions": versions}
TARGET.write_text(json.dumps(content | {"learningRate": RATE, "totalSteps": STEPS, "cases": cases}, indent=1) + "\n")
