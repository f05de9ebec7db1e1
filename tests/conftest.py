"""Makes `support` and `oracle` importable from every test, and keeps torch on one thread."""

import sys
from pathlib import Path

import torch

TESTS = str(Path(__file__).parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)
torch.set_num_threads(1)
