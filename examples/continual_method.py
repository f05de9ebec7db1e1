"""A continual method of one's own, beside fine-tuning and replay: classifiers that learn digits two by two.

    python examples/continual_method.py [EPOCHS]

On the command line: sparserl continual --method examples.continual_method:FrozenFeatures --own.tasks 2
"""

import sys
from dataclasses import dataclass

from sparserl import continual
from sparserl.continual import Options, Strategy


@dataclass(frozen=True)
class FrozenOptions(Options):
    """Options of `FrozenFeatures`."""

    tasks: int = 1
    """After how many tasks hidden layers stay as they are."""


class FrozenFeatures(Strategy):
    """Hidden layers learn from the first tasks alone; later ones train the output layer.

    It keeps nothing beside the network, so there is no state to save; one that does returns it from `state_dict`.
    """

    Options = FrozenOptions

    def before_step(self, learner, group):
        if learner.task >= self.options.tasks:
            *hidden, _ = learner.network
            for layer in hidden:
                for parameter in layer.parameters():
                    parameter.grad = None


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    learner = {"hidden": [100, 100], "epochs": epochs}
    for method, options in (("naive", {}), (FrozenFeatures, {"tasks": 2}), ("replay", {"samples": 100})):
        result = continual.run("split_digits", learner, method, options=options, seed=0)
        name = method if isinstance(method, str) else method.__name__
        print(f"{name:<15} accuracy {result.average:.3f}, forgotten {result.forgetting:.3f}")
