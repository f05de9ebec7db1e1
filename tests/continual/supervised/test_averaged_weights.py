"""`fit` with averaged SGD: the network answers with averages, and goes on with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.fits import fit, fit_learner, result_of

from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.errors import ConfigError
from sparserl.experiment import open_run


def test_it_answers_with_the_mean_of_its_weights_since_averaging_began() -> None:
    """Weights of dense biases exist all the time: the average is the mean from the second step on."""
    learner = fit_learner(optimizer="asgd", average_after=1, epochs=3, validation_share=0.2)
    bias: Any = learner.network[-1].bias
    kept = [bias.detach().clone() for step in learner.train() if step.epoch >= 1]
    with learner.optimizer.averaged():  # type: ignore[attr-defined]  # it is that
        answers = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    torch.testing.assert_close(answers[f"{len(learner.network) - 1}.bias"], torch.stack(kept[1:]).mean(dim=0))
    other = fit_learner(optimizer="asgd", average_after=1)
    other.load_answering(learner.state_dict())
    for name, tensor in other.network.state_dict().items():
        assert torch.equal(tensor, answers[name])
    test = learner.only_task.test
    assert learner.evaluate(test) == other.evaluate(test)
    assert torch.equal(learner.member_probabilities(test), other.member_probabilities(test))
    assert torch.equal(bias, kept[-1])  # the weights themselves are left as they were


def test_the_last_checkpoint_of_a_run_answers_as_it_did(tmp_path: Path) -> None:
    flags = ("--learner.optimizer", "asgd", "--learner.learning-rate", "0.5", "--density", "0.5")
    assert fit(tmp_path / "run", *flags) == 0
    run: Any = open_run(tmp_path / "run", checkpoint="last")
    result = result_of(tmp_path / "run")
    assert run.evaluate()["test"].loss == pytest.approx(result["loss_test"])
    assert result["accuracy_test"] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average_after": 2}, "learner.average_after 2 has no effect on adam: set learner.optimizer asgd"),
        (
            {"optimizer": "asgd", "epochs": 4, "average_after": 4},
            "averages would begin after the last of 4 epochs: lower learner.average_after 4 to at most 3",
        ),
        (
            {"optimizer": "asgd", "momentum": 0.5},
            "learner.momentum 0.5 has no effect on asgd; it is for sgd",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitLearnerConfig(**options)
