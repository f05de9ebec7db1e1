"""Records the training of a network on one table: how good it is after each epoch, checkpoints, its best network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparserl.continual.supervised.classifier_recorder import ClassifierRecorder
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.objectives import Score
from sparserl.continual.supervised.task_learner import Step
from sparserl.metrics import ensemble
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.metrics.cost import (
    bytes_indices,
    bytes_optimizer,
    bytes_parameters,
    connections,
    layer_costs,
    params_dense,
    params_nonzero,
    params_used,
)
from sparserl.recording import checkpoint
from sparserl.recording.metrics_table import columns
from sparserl.recording.run_folder import BEST, full_checkpoints
from sparserl.recording.state_structure import Each

EVAL_COLUMNS = ("global_step", "epoch", "part", "accuracy", "loss", "samples")
LOGS = {"eval": EVAL_COLUMNS, "progress": columns("fit"), "topology": TOPOLOGY_COLUMNS}
"""CSV logs of a run and their columns; `part` is `validation` or `test`."""


class FitRecorder(ClassifierRecorder):
    """Records one run of a `FitLearner`; arguments as of `ClassifierRecorder`.

    Attributes:
        test: On test samples after each epoch, before the first one too.
    """

    columns = LOGS
    learner: FitLearner

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.test: list[Score] = []

    # What happens at an event.

    def _on_start(self) -> None:
        self._evaluate(0)

    def _on_step(self, step: Step) -> None:
        learner = self.learner
        ends_epoch = step.batch + 1 == step.batches
        if ends_epoch:
            self._check_network()  # before anything is made of it
            self._evaluate(step.epoch + 1)
        if ends_epoch or self._log_is_due(step):
            of_step = {"train/epoch": step.epoch, **step.losses}
            rate = {"train/learning_rate": learner.optimizer.param_groups[0]["lr"]}
            self._log(
                {**of_step, **rate, **self._of_gradients(), **(self._scores() if ends_epoch else {}), **self._cost()}
            )
        self._save_if_due()
        shown = {"epoch": f"{step.epoch + 1}/{step.epochs}", **step.shown}
        score = learner.score or (self.test[-1] if self.test else None)
        if score is not None and score.accuracy is not None:
            shown["accuracy"] = f"{score.accuracy:.1%}"
        self.progress.show(learner.steps, shown)

    def _on_task_end(self, task: int) -> None:
        del task
        self._check_network()
        self.save_checkpoint()

    def _evaluate(self, epoch: int) -> None:
        learner, task = self.learner, self.learner.only_task
        self.test.append(learner.evaluate(task.test))
        scores = {"test": (self.test[-1], task.test)}
        if learner.score is not None and task.validation is not None:
            scores["validation"] = learner.score, task.validation
        self.logs["eval"].write(
            [
                {
                    "global_step": learner.steps,
                    "epoch": epoch,
                    "part": part,
                    "accuracy": score.accuracy,
                    "loss": score.loss,
                    "samples": len(samples),
                }
                for part, (score, samples) in scores.items()
            ]
        )
        best = learner.best
        if best is not None and best.epoch == epoch:
            at = {"global_step": best.step, "epoch": best.epoch}
            state = {**at, "data": self._data, "network": dict(best.network)}
            checkpoint.save(self.folder.checkpoints / BEST, state)

    def _scores(self) -> dict[str, float]:
        """Metrics of the epoch that is over."""
        scores = {"test": self.test[-1], "validation": self.learner.score}
        known = {part: score for part, score in scores.items() if score is not None}
        of_parts = {f"fit/{name}_{part}": getattr(known[part], name) for part in known for name in ("accuracy", "loss")}
        of_parts = {name: value for name, value in of_parts.items() if value is not None}
        return {**of_parts, "fit/connections": connections([self.learner.network])}

    def _cost(self) -> dict[str, float]:
        of_network = {"cost/params_nonzero": params_nonzero([self.learner.network])}
        return {"cost/flops_train": self.learner.flops.total, **of_network, **self._timing()}

    def _of_ensemble(self) -> dict[str, Any]:
        """How good the members of an ensemble are, alone and together, on test samples."""
        learner, test = self.learner, self.learner.only_task.test
        if learner.ensemble is None:
            return {}
        members = learner.member_probabilities(test).numpy()
        together, labels = members.mean(axis=0), test.labels
        return {
            "ensemble": {
                "accuracy_test": ensemble.accuracy(together, labels),
                "accuracies_test": [ensemble.accuracy(member, labels) for member in members],
                "accuracies_validation": [member.score.accuracy for member in learner.ensemble.members],
                "epochs": [member.epoch for member in learner.ensemble.members],
                "disagreement": ensemble.disagreement(members),
                "kl_divergence": ensemble.divergence(members),
                "calibration_error": ensemble.calibration_error(together, labels),
                "calibration_errors": [ensemble.calibration_error(member, labels) for member in members],
                "negative_log_likelihood": ensemble.negative_log_likelihood(together, labels),
                "negative_log_likelihoods": [ensemble.negative_log_likelihood(member, labels) for member in members],
            }
        }

    # What a checkpoint holds of it.

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "test": [[score.accuracy, score.loss] for score in self.test]}

    def _expected(self) -> dict[str, Any]:
        return {**super()._expected(), "test": Each([0.0, 0.0])}

    def _load(self, recorder: Mapping[str, Any]) -> None:
        super()._load(recorder)
        self.test = [Score(*numbers) for numbers in recorder["test"]]

    def log_models(self, result: Mapping[str, Any]) -> None:
        """As `Recorder`: the best network, if there is one, and the last checkpoint, with their test scores."""
        paths = {"final": full_checkpoints(self.folder)[-1]}
        if self.learner.best is not None:
            paths[BEST] = self.folder.checkpoints / BEST
        for name, path in paths.items():
            measure = "accuracy_test" if result["accuracy_test"] is not None else "loss_test"
            reached = result[f"{measure}_best" if name == BEST else measure]
            metadata = {"global_step": checkpoint.load(path)["global_step"], measure: reached}
            for tracker in self.trackers:
                tracker.log_model(name, path, metadata)

    # Result.

    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost, once training is over."""
        learner = self.learner
        network, best, score = learner.network, learner.best, learner.score
        costs = layer_costs(network)
        exist, dense = connections([network]), sum(cost.weights_dense for cost in costs)
        test = self.test[-1]
        of_best = None if best is None else self.test[best.epoch]
        return {
            "accuracy_test": test.accuracy,
            "loss_test": test.loss,
            "accuracy_validation": None if score is None else score.accuracy,
            "loss_validation": None if score is None else score.loss,
            "accuracy_test_best": None if of_best is None else of_best.accuracy,
            "loss_test_best": None if of_best is None else of_best.loss,
            "accuracy_validation_best": None if best is None else best.score.accuracy,
            "epoch_best": None if best is None else best.epoch,
            "epochs": len(self.test) - 1,
            "stopped": "patience" if learner.stopped else "all epochs",
            "connections": exist,
            "connections_dense": dense,
            "density": exist / dense,
            "layers": [cost.weights for cost in costs],
            "params_nonzero": params_nonzero([network]),
            "params_used": params_used([network]),
            "params_dense": params_dense([network]),
            "flops_train": learner.flops.total,
            "bytes_parameters": bytes_parameters([network]),
            "bytes_indices": bytes_indices([network]),
            "bytes_optimizer": bytes_optimizer([learner.optimizer]),
            **self._of_ensemble(),
            **self._spent(),
            "table": learner.sequence.record,
        }
