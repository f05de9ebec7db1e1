"""A classifier of 402,000 neurons, dense 160 GB, is trained, rewired, evaluated and stored in less than 1 GB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# As in tests/sparserl/layers/test_truly_sparse.py: address space is bound, so that nothing of n x n can be made.
SCRIPT = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig
import sklearn.model_selection, sklearn.preprocessing

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (4 << 30),) * 2)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
n, rng = 200_000, np.random.default_rng(0)
x = rng.standard_normal((600, 2000), dtype=np.float32)
sequence = table_sequence(Table("wide", x, np.arange(600) % 2, ("a", "b")), test_share=0.98, seed=0)
training = {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "constant_decay": 2e-4}
config = FitLearnerConfig(hidden=(n, n), dropout=0.3, epochs=2, batch_size=2, **training)
topology = TopologyConfig("set", epsilon=(4.0, 4.0, 4.0), output_layer="sparse")

def learner():
    return FitLearner(sequence, config, topology, seed=0)

whole = learner()
steps = whole.train()
losses = [next(steps).loss for _ in range(7)]
folder = Path(sys.argv[1])
checkpoint.save(folder, {"learner": whole.state_dict()})
score = whole.evaluate(whole.only_task.test)
after = [next(steps).loss for _ in range(3)]
nnz = [layer.nnz for layer in list(whole.network)[:2]]
del whole, steps
resumed = learner()
resumed.load_state_dict(checkpoint.load(folder)["learner"])
steps = resumed.train()
print(json.dumps({
    "nnz": nnz, "losses": losses,
    "same": resumed.evaluate(resumed.only_task.test) == score and [next(steps).loss for _ in range(3)] == after,
    "growth": status("VmHWM") - before,
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_follows_the_connections(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "checkpoint")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["nnz"] == [4 * 202_000, 4 * 400_000]
    assert all(0 < loss < 5 for loss in found["losses"])
    assert found["same"]
    # 24 bytes a connection for weight, gradient, momentum and both orders; the rest are events and what they remember.
    assert found["growth"] < 1e9
