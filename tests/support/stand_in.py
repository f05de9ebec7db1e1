"""A program that stands for a sweep's worker: a run that is done at once, unless `orders.txt` beside it says otherwise.

- `fail s3`: runs with the seed 3 fail.
- `wait`: what has begun waits until the order is gone.
- `nan`: the return is no number.

Runs that have no such file take the order of the environment. The return is the density plus the seed. Each call is
noted beside the runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-S", "-E", __file__)
"""What starts it; without site packages, which cost time."""
ORDER = "STAND_IN_ORDER"
"""In the environment."""
PATIENCE_S = 60.0


def give_order(out: Path, order: str = "") -> None:
    """Says what runs in a folder shall do from now on; empty to be done at once."""
    (out / "orders.txt").write_text(order)


def calls(out: Path) -> list[list[str]]:
    """The words of each call for a run in a folder."""
    path = out / "calls.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(words: list[str]) -> None:
    path, config = Path(words[1]), json.load(sys.stdin)
    with path.with_name("calls.txt").open("a") as file:
        file.write(json.dumps(words) + "\n")
    orders = path.with_name("orders.txt")

    def order() -> str:
        return orders.read_text() if orders.exists() else os.environ.get(ORDER, "")

    seed = config["seed"]
    if order() == f"fail s{seed}":
        print("first")
        sys.exit("sparserl: it broke")
    (path / "checkpoints" / "step-000000001").mkdir(parents=True, exist_ok=True)
    (path / "progress.csv").write_text("global_step,x\n7,1\n")
    end = time.monotonic() + PATIENCE_S
    while order() == "wait" and time.monotonic() < end:
        time.sleep(0.01)
    value = float("nan") if order() == "nan" else config["topology"]["density"] + seed
    (path / "result.json").write_text(json.dumps({"return_last10": value, "seed": seed, "matrix": [[1]]}))
    print("trained")
    (path / "DONE").touch()


if __name__ == "__main__":
    main(sys.argv[1:])
