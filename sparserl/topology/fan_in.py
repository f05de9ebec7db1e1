"""As many connections into every neuron, or of each few inputs: which neurons keep any, and what else goes for that.

Pure functions of a view of the layer and of what its drop criterion chose. Where new connections grow is decided by the
grow criterion, whose best positions `block_scores.highest` then takes for each neuron by itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparserl.errors import TopologyError
from sparserl.topology.block_scores import Score, highest
from sparserl.topology.structure import NOTHING, LayerView, Slots

FAN_INS = {"free": None, "constant": None, "of_four": 4, "of_eight": 8}
"""Whether outputs are to have as many connections, and of how many consecutive inputs, where not of all."""


def constant_fan_in(
    view: LayerView, dropped: Slots, salient_share: float, score: Score, inputs: int | None = None
) -> LayerView:
    """The view with the number of connections that each output is to have after the event.

    Or that each so many consecutive inputs of an output are to have, which the following then calls an output.

    All outputs that keep any have as many, or one more where that leaves connections over: those with more salient
    connections, the first of equals. Salient are the connections that the drop leaves and as many positions as it
    takes, of highest score for growth. An output with fewer than `salient_share` of the mean fan-in is left without
    connections until a later event finds as many salient ones; so many outputs stay that no fan-in exceeds the inputs.

    Args:
        view: The layer.
        dropped: Slots that the drop criterion chose.
        salient_share: gamma of the paper, in [0, 1); with 0 every output stays.
        score: Of the grow criterion.
        inputs: How many count together, a divisor of those of the layer; all if None.

    Raises:
        TopologyError: If a learner has frozen connections, closed neurons or blocks of the layer.

    Source:
        Lasby et al. 2024 (SRigL), section 3.2, and its code, where what rounding leaves is not given out, and one
        output more than needed stays.
    """
    if view.constraint is not None:
        raise TopologyError("a constant fan-in cannot be kept where a learner freezes connections or closes positions")
    topology, width = view.topology, inputs or view.topology.n_in
    rows = topology.size // width
    wanted = highest(view, NOTHING, dropped.size, score) if salient_share > 0.0 else NOTHING
    salient = np.bincount(np.union1d(np.delete(topology.flat, dropped), wanted) // width, minlength=rows)
    by_salience = np.argsort(-salient, kind="stable")
    needed = 0 if salient_share == 0.0 else max(1, int(salient_share * topology.nnz / rows))
    fewest = max(1, -(-topology.nnz // width))
    staying = by_salience[: max(fewest, np.count_nonzero(salient >= needed))]
    fan_in = np.zeros(rows, np.int64)
    fan_in[staying] = topology.nnz // staying.size
    fan_in[staying[: topology.nnz % staying.size]] += 1
    return replace(view, fan_in=fan_in)


def without_ablated(view: LayerView) -> LayerView:
    """The view with weights 0 into outputs that are to have no connections, so that their connections go first."""
    assert view.fan_in is not None
    return replace(view, values=np.where(view.fan_in[view.fan_in_rows] > 0, view.values, 0.0))


def beyond_fan_in(view: LayerView, dropped: Slots) -> Slots:
    """`dropped`, and the smallest |weights| of each output beyond its fan-in to be; among equals the lower slot.

    Source:
        Lasby et al. 2024 (SRigL), code; there which ones of an output go is arbitrary.
    """
    assert view.fan_in is not None
    kept = np.delete(np.arange(view.topology.nnz), dropped)
    outputs = view.fan_in_rows[kept]
    order = np.lexsort((-kept, -np.abs(view.values[kept]), outputs))
    rank = np.arange(kept.size) - np.searchsorted(outputs, outputs)  # sorted already: of the slots of one output
    return np.union1d(dropped, kept[order][rank >= view.fan_in[outputs]])
