"""Hidden neurons of little incoming strength lose all connections into them, and the network gets ever sparser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.neuron_strength import incoming_strength, weak_outputs
from sparserl.topology.rewire import exchange


@dataclass(frozen=True)
class ImportancePruning:
    """When, and how many; called before the last step of an epoch, which the topology's own event may follow.

    That event does not refill what is taken here, so the number of connections falls. A layer never loses all.

    Attributes:
        share: Quantile of the strengths of a layer's neurons that have connections, in (0, 1).
        every: Epochs from one time to the next.
        after: Epochs before the first time.

    Source:
        Curci et al. 2021, "Truly sparse neural networks at scale", and its code: a quantile of .2 every 10 epochs after
        the 200th.

    Known differences from that code: the quantile is of neurons that have connections, so each time takes some more; it
    comes a gradient step earlier; the output layer, whose neurons are classes, keeps its connections.
    """

    share: float
    every: int
    after: int

    def __call__(self, evolver: TopologyEvolver, epoch: int, output: str) -> None:
        """Takes what is due in an epoch.

        Args:
            evolver: Of the network.
            epoch: The present one, from 1.
            output: Full name of the output layer.
        """
        if epoch <= self.after or epoch % self.every:
            return
        for name, layer in evolver.layers.items():
            if name == output:
                continue
            view = layer.view()
            outputs = view.topology.outputs
            connected = np.bincount(outputs, minlength=view.topology.n_out) > 0
            slots = np.flatnonzero(weak_outputs(incoming_strength(view), connected, self.share)[outputs])
            if slots.size:
                evolver.apply(name, exchange(view.topology, slots, np.empty(0, np.int64)), "importance")
