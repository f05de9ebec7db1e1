"""Memory follows the number of connections: a layer whose dense form would take 160 GB trains in less than 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The bound on address space is what refuses a tensor or array of n_in x n_out entries even if it is never touched:
# with one byte an entry it would be 40 GB. Resident memory is read from /proc because ru_maxrss outlives `exec`.
SCRIPT = """
import json, resource, sys
import numpy as np, torch
from sparserl.layers import SparseEnsemble, SparseMLP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (4 << 30),) * 2)
n, nnz = 200_000, 1_000_000
for name, empty in [("torch", torch.empty), ("numpy", np.empty)]:
    try:
        empty((n, n), dtype=torch.bool if name == "torch" else bool)
        sys.exit(f"the bound on memory does not hold for {name}")
    except (MemoryError, RuntimeError):
        pass

mlp, other = (SparseMLP.random([8, n, n, 4], [1.0, nnz / n**2, 0.01], seed=0, name=name) for name in ("net", "other"))
wide = mlp[1]
optimizer = torch.optim.Adam(mlp.parameters())
layers = {"net.1": wide, "net.2": mlp[2]}
rule = RewireRule("signed_magnitude", "random", drop_fraction=0.3, update_interval=1, first_update=1)
evolver = TopologyEvolver({"net": layers}, rule, seed=0)
for name, layer in layers.items():
    evolver.follow(name, OptimizerMoments(optimizer, layer.values))
x, losses, moved = torch.randn(4, 8), [], 0.0
for update in (1, 2):
    evolver.begin_update(update)
    before = wide.values.detach().clone()
    optimizer.zero_grad()
    loss = (mlp(x) - 1.0).square().mean()
    loss.backward()
    optimizer.step()
    moved = max(moved, (wide.values.detach() - before).abs().max().item())
    losses.append(loss.item())
    evolver.end_update("net")
wide.topology.check_valid()
events = [event for event in evolver.events if event.layer == "net.1"]
gradient = wide.values.grad
ensemble = SparseEnsemble([SparseMLP(list(network)[1:]) for network in (mlp, other)])
x = torch.randn(20, n, requires_grad=True)
torch.stack(list(ensemble(x))).square().sum().backward()
print(json.dumps({
    "peak": status("VmHWM"), "losses": losses, "moved": moved,
    "nnz": [event.nnz for event in events], "kinds": [event.kind for event in events], "grown": events[-1].grown,
    "moments": optimizer.state[wide.values]["exp_avg"].numel(), "gradient": gradient,
    "joined": ensemble.joined is not None,
    "pulled": [(tensor.grad != 0).sum().item() for tensor in (x, wide.values, other[1].values)],
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_million_of_forty_billion_connections_train_within_2_gb() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    result = json.loads(process.stdout)
    assert result["peak"] < 2 * 10**9
    assert result["nnz"] == [1_000_000] * 3
    assert result["kinds"] == ["initial", "rewire", "rewire"]
    assert result["grown"] > 250_000
    assert result["moments"] == 1_000_000
    assert result["gradient"] is None  # of the connections before the event
    assert result["moved"] > 0
    assert result["joined"]
    assert min(result["pulled"]) > 1000
    assert result["losses"][1] < result["losses"][0]
