"""The text of a model card: what a run learned, how well, how large it is and how to use it, for the Hugging Face Hub.

Decides what a card says and in which words. Independent of how a run is opened and of where a card goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from sparserl.export import ExportedPolicy, PolicyLayer
from sparserl.metrics.bootstrap import Estimate, interval, resample
from sparserl.metrics.statistics import LEVEL_PERCENT
from sparserl.recording.metrics_table import AGENTS, SEQUENCES, Kind
from sparserl.seeding import stream

OF_RESULT: dict[Kind, dict[str, tuple[str, str]]] = {
    "train": {},
    "continual": {
        "acc": ("accuracy", "mean accuracy on all tasks at the end"),
        "bwt": ("backward_transfer", "backward transfer"),
        "forgetting_final": ("forgetting", "forgetting at the end"),
    },
    "continual_rl": {
        "acc": ("mean_reward", "mean return over all tasks at the end"),
        "bwt": ("backward_transfer", "backward transfer of returns"),
        "forgetting_final": ("forgetting", "forgetting of returns at the end"),
    },
    "fit": {
        "accuracy_test": ("accuracy", "accuracy on the test samples"),
        "loss_test": ("loss", "loss on the test samples"),
    },
}
"""Kind of run -> key of `result.json` -> type of the metric at the Hub, and what it is in words."""
OF_BEST = {"accuracy_test": "accuracy_test_best", "loss_test": "loss_test_best"}
"""Key of `result.json` of the last network -> of the best one, where they are two."""


@dataclass(frozen=True)
class Measured:
    """A number that a card says.

    Attributes:
        type: Of the metric at the Hub.
        text: In words.
        estimate: With its interval; NaN ends where there is none.
        deviation: Standard deviation over what the value is a mean of; None where it is no mean.
    """

    type: str
    text: str
    estimate: Estimate
    deviation: float | None = None

    @property
    def for_the_hub(self) -> str | float:
        """Its value in the front matter: of returns `mean +/- deviation`, as the Hub's leaderboards read it."""
        value = self.estimate.value
        return value if self.deviation is None else f"{value:.2f} +/- {self.deviation:.2f}"

    @property
    def row(self) -> list[str]:
        """Of the table of results."""
        low, high = self.estimate.low, self.estimate.high
        between = "" if math.isnan(low) else f"{_number(low)} to {_number(high)}"
        return [self.text, _number(self.estimate.value), between]


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        kind: Of the run.
        name: Of the run, without the seed.
        task: What it learned: an env, a task sequence, a data set.
        method: How: algorithm, or continual method, with the algorithm where it has one.
        topology: Topology method.
        seed: Of the run.
        step: At which the checkpoint was taken.
        which: Of its checkpoints, `last` or `best`.
        measured: What it reached.
        result: Of `result.json`.
        versions: Of `versions.json`.
        policies: File name without its ending -> policy that is beside the card.
        c_functions: Of these, prototype of the C function, where there is a header.
        notes: What is missing, and why.
    """

    kind: Kind
    name: str
    task: str
    method: str
    topology: str
    seed: int
    step: int
    which: str
    measured: Sequence[Measured]
    result: Mapping[str, Any]
    versions: Mapping[str, Any]
    policies: Mapping[str, ExportedPolicy]
    c_functions: Mapping[str, str]
    notes: Sequence[str] = ()

    @property
    def params_nonzero(self) -> int:
        """Parameters that exist, of all tasks together."""
        stored = self.result.get("params_nonzero")
        return int(self.result["params_nonzero_per_task"][-1] if stored is None else stored)

    @property
    def topologies(self) -> list[str]:
        """The topology method; none where a continual method brings its own connections into dense networks."""
        return [] if self.topology == "dense" and not self.is_dense else [self.topology]

    @property
    def is_of_classes(self) -> bool:
        """Whether it tells the classes of a table apart."""
        return self.kind == "fit" and self.result.get("accuracy_test") is not None

    @property
    def is_dense(self) -> bool:
        """Whether every connection exists."""
        return bool(self.params_nonzero == self.result["params_dense"])


def of_episodes(returns: Sequence[float]) -> Measured:
    """Mean return of evaluation episodes, with the bootstrap interval over them; none of a single one."""
    values, n = np.array(returns), len(returns)
    drawn = values[resample(n, stream(0, "card"))].mean(axis=1)
    low, high = interval(drawn, LEVEL_PERCENT) if n > 1 else (math.nan, math.nan)
    estimate = Estimate(float(values.mean()), low, high)
    text = f"mean return of {n} evaluation episode{'s' * (n > 1)}"
    return Measured("mean_reward", text, estimate, float(values.std()) if n > 1 else None)


def of_result(kind: Kind, result: Mapping[str, Any], which: str = "last") -> list[Measured]:
    """What `result.json` says of a run that is measured as a whole, or of its best checkpoint where it has two; what is
    undefined is left out."""
    keys = OF_BEST if which == "best" else {}
    return [
        Measured(type, text, Estimate(float(result[keys.get(key, key)]), math.nan, math.nan))
        for key, (type, text) in OF_RESULT[kind].items()
        if result.get(keys.get(key, key)) is not None
    ]


def model_card(facts: CardFacts) -> str:
    """The card, as Markdown below YAML."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = [_head(facts), _results(facts), _size(facts), _use(facts), _training(facts)]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    is_agent = facts.kind in AGENTS
    what = "reinforcement-learning" if is_agent else "tabular-classification" if facts.is_of_classes else "other"
    tags = ["sparserl", *(["reinforcement-learning", "deep-reinforcement-learning"] if is_agent else [])]
    tags += ["sparse"] * (not facts.is_dense) + ["continual-learning"] * (facts.kind in SEQUENCES)
    metrics = [
        {"type": one.type, "name": one.text, "value": one.for_the_hub, "verified": False} for one in facts.measured
    ]
    of_task = {"task": {"type": what, "name": what}, "dataset": {"name": facts.task, "type": facts.task}}
    return {
        "library_name": "sparserl",
        **({"pipeline_tag": what} if is_agent else {}),
        "tags": list(dict.fromkeys([*tags, *facts.task.split(", "), *facts.method.split(" with "), *facts.topologies])),
        **({"model-index": [{"name": facts.name, "results": [{**of_task, "metrics": metrics}]}]} if metrics else {}),
    }


def _head(facts: CardFacts) -> str:
    stored, dense = facts.params_nonzero, facts.result["params_dense"]
    topology = "".join(f"topology method `{name}`, " for name in facts.topologies)
    size = (
        f"Dense networks of {dense:,} parameters, trained with sparserl, seed {facts.seed}."
        if facts.is_dense
        else f"Truly sparse networks, trained with sparserl: {stored:,} parameters of the {dense:,} of dense ones "
        f"({stored / dense:.1%}), {topology}seed {facts.seed}. A connection that does not "
        "exist is neither stored nor multiplied, in training as in use."
    )
    return f"# {facts.method} on {facts.task}\n\n{size}"


def _results(facts: CardFacts) -> str:
    rows = [["measured", "value", f"{LEVEL_PERCENT} % interval"], *(one.row for one in facts.measured)]
    said = f"The {facts.which} checkpoint (step {facts.step:,}) of one run."
    if any(not math.isnan(one.estimate.low) for one in facts.measured):
        said += " The interval is over episodes of this run; it does not say how far runs with other seeds lie apart."
    if facts.which == "best" and facts.kind == "train":
        said += " It was chosen by these very episodes, so their mean is higher than that of new ones would be."
    return f"## Results\n\n{_table(rows)}\n\n{said}"


def _size(facts: CardFacts) -> str:
    parts = ["## Size"]
    for name, policy in facts.policies.items():
        rows = [["layer", "outputs x inputs", "connections", "density", "before", "after"]]
        for index, layer in enumerate(policy.all_layers):
            size = layer.n_out * layer.n_in
            shape = f"{layer.n_out:,} x {layer.n_in:,}"
            share = f"{layer.values.size / size:.1%}"
            rows.append([str(index), shape, f"{layer.values.size:,}", share, *_around(policy, layer)])
        parts.append(f"`{name}`:\n\n{_table(rows)}")
    rows = [["networks that were trained", ""], ["parameters", f"{facts.params_nonzero:,}"]]
    for key, text in (
        ("params_dense", "of dense ones"),
        ("bytes_parameters", "bytes of parameters"),
        ("bytes_indices", "bytes of indices"),
        ("flops_train", "FLOPs of training"),
        ("steps", "steps"),
        ("cpu_s", "CPU seconds"),
    ):
        if facts.result.get(key) is not None:
            value = facts.result[key]
            rows.append([text, f"{value:.3g}" if key == "flops_train" else f"{value:,.0f}"])
    return "\n\n".join([*parts, _table(rows)])


def _around(policy: ExportedPolicy, layer: PolicyLayer) -> tuple[str, str]:
    """What stands before and after the product of a layer, in words."""
    before = ""
    if layer.norm is not None:
        normalised = f"normalised (epsilon {layer.norm.epsilon:g}), " if layer.norm.epsilon else ""
        before = f"{normalised}times scale plus shift"
    after = [] if layer.added is None else [f"plus level {layer.added}"]
    if layer is not policy.layers[-1] and layer.is_activated:
        after.append(policy.activation)
    return before, ", ".join(after)


def _use(facts: CardFacts) -> str:
    parts = [
        "## Use",
        "This folder is a run of sparserl: download it, then",
        *([f"```\nsparserl eval --run FOLDER --checkpoint {facts.which}\n```"] if facts.kind in AGENTS else []),
        f'```python\nfrom sparserl.experiment import open_run\n\nrun = open_run("FOLDER", "{facts.which}")\n'
        "run.evaluate()\n```",
    ]
    for name, policy in facts.policies.items():
        reads = f"reads {policy.shape[0]} numbers" if len(policy.shape) == 1 else f"reads images of {policy.shape}"
        acts = f" to the range from `low` to `high`, {policy.n_out} actions" if policy.ranges else ": the highest acts"
        parts.append(
            f"`{name}.safetensors` is the policy alone, to be used without sparserl. It {reads}, observations "
            f"{policy.about['observations']}. Of layer i it has `layer<i>.values` and `.bias`, of a sparse one "
            "`.row_ptr` and `.col` too (CSR, outputs x inputs), and where its inputs are scaled `.scale` and `.shift`. "
            "The table above says what comes before and after; level 0 is the observation, level i + 1 what comes of "
            f"layer i. In the end outputs are {policy.ending}{acts}."
        )
    for name, function in facts.c_functions.items():
        parts.append(f"`{name}.h` is the same in C99 without any library: `{function}`.")
    return "\n\n".join([*parts, *facts.notes])


def _training(facts: CardFacts) -> str:
    known = {name: version for name, version in facts.versions.items() if version is not None and name != "dirty"}
    command = "fit" if facts.kind == "fit" else "train" if facts.kind == "train" else "continual"
    return f"## Training\n\n```\nsparserl {command} --config config.yaml\n```\n\nrepeats it. It ran with\n\n" + _table(
        [["what", "version"], *([name, str(version)] for name, version in known.items())]
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first row is the head."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
