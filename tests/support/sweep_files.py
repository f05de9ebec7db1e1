"""What tests of sweep files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SMALL: dict[str, Any] = {
    "base": {"algo": "ds_td3", "env": "InvertedPendulum-v5", "total_steps": 300, "agent": {"learning_starts": 100}},
    "grid": {"topology.density": [0.5, 0.2]},
    "seeds": [3, 5],
}


def sweep_file(folder: Path, **changed: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changed}))
    return path
