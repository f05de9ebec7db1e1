"""What tests of tune files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SMALL: dict[str, Any] = {
    "base": {"algo": "ds_td3", "env": "InvertedPendulum-v5", "total_steps": 300, "agent": {"learning_starts": 100}},
    "space": {"topology.density": {"low": 0.2, "high": 1}},
    "seeds": [0, 2],
}


def tune_file(folder: Path, **changed: Any) -> Path:
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changed}))
    return path


DENSITY = "topology.density"
