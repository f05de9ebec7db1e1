"""What every option of `sparserl train`, `continual` and `fit` may be set to, and where it must arrive.

An option that is in a config and in no batch of its kind fails a test; give it a value other than its default in the
file of its kind.
"""

from __future__ import annotations

from support.classifier_options import OF_FIT, classifier_batches, fit_batches
from support.off_policy_options import CROSSQ, CROSSQ_PROBES, OF_VALUES, QUANTILES, agent_batches, residual_blocks
from support.on_policy_options import on_policy_batches
from support.option_kinds import ON_POLICY, Batch, of_agent
from support.task_options import tasks_batches
from support.topology_options import topology_batches
from support.train_options import train_batches

ORIGIN = {"origin.run": "FOLDER/run", "origin.checkpoint": "best"}
"""The networks of a run that has the config of the kind."""
OF_PRUNED = tuple(f"topology.{name}" for name in ("method", "density", "epsilon", "allocation", "output_layer"))
BATCHES: list[Batch] = [
    *train_batches("ds_td3"),
    Batch("ds_td3", "origin", ORIGIN),
    Batch("ds_td3", "pruned", {"origin.prune_by": "lamp"}, {**ORIGIN, "topology.density": 0.3}, {}, OF_PRUNED),
    *(
        batch
        for algo in ("ds_sac", "td3", "sac")
        for batch in agent_batches(algo, algo.removeprefix("ds_"), alone=True)
    ),
    Batch("ds_tqc", "agent", QUANTILES, {}, {name: of_agent(name.partition(".")[2]) for name in list(QUANTILES)[1:]}),
    Batch("ds_crossq", "agent", CROSSQ, {}, CROSSQ_PROBES),
    Batch("ds_dqn", "agent", OF_VALUES, {}, {name: of_agent(name.partition(".")[2]) for name in OF_VALUES}),
    residual_blocks("ds_dqn", [64, 64]),
    *(batch for algo in ON_POLICY for batch in on_policy_batches(algo)),
    *classifier_batches(),
    *fit_batches(),
    *topology_batches("moving classifier"),
    *(batch for batch in topology_batches("moving fit") if batch.name not in OF_FIT),
    *(batch for algo in ("ds_sac", "ds_td3") for batch in tasks_batches(algo)),
]
