"""Trains DS-TD3 in Python: a run folder, curves, evaluation, and the same run opened again.

python examples/train_agent.py [STEPS]
"""

import sys

from sparserl import experiment

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000

# What is not said here comes from the preset of the algorithm, then from the schema's defaults.
wish = {
    "algo": "ds_td3",
    "env": "Reacher-v5",
    "total_steps": STEPS,
    "topology": {"density": 0.1},
    "agent": {"learning_starts": min(1_000, STEPS // 5)},
    "eval": {"every_steps": max(1, STEPS // 5)},
}
run = experiment.run(experiment.resolve("train", wish), "runs/reacher")

print(f"connections and biases: {run.result['params_nonzero']:,} of {run.result['params_dense']:,}")
for layer in run.agent.actor.mu:
    print(f"  {layer}")

# In another session, all of it is there again.
run = experiment.open_run("runs/reacher")
evaluation = run.evaluate(10)
print(f"return of ten episodes: {evaluation.return_mean:.1f}")
