"""Runs of agents that observe something else than one vector: Dicts, stacked frames, images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.cut_runs import cut_off, resume
from support.envs import DictEnv, ImageEnv, SpacesOnly
from support.runs import FAST, TINY, leave_undrawn, same_run, train

from sparserl.agents.networks.sparse_cnn import layers_of_images
from sparserl.cli import main
from sparserl.experiment.opened_agent_run import TrainedAgent
from sparserl.layers.linear import linear
from sparserl.recording.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn", "envs")
PARTS = (*FAST, "--env", "Parts-v0", "--wrappers.frame-stack", "3", "--eval.episodes", "1")


IMAGES = (*FAST, "--env", "Image-v0", "--eval.episodes", "1", "--total-steps", "70", "--topology.update-interval", "10")
FLOATS = gym.spaces.Box(0, 1, (36, 36, 3))
SMALL = gym.spaces.Box(0, 255, (35, 40, 3), np.uint8)
ENVS: dict[str, Any] = {
    "Parts-v0": lambda: DictEnv(horizon=17),
    "Image-v0": ImageEnv,
    "Floats-v0": lambda: SpacesOnly(FLOATS),
    "Small-v0": lambda: SpacesOnly(SMALL),
}


@pytest.fixture(autouse=True, scope="module")
def envs() -> Iterator[None]:
    for name, made in ENVS.items():
        gym.register(name, entry_point=made)
    yield
    for name in ENVS:
        gym.registry.pop(name)


def test_a_run_on_stacked_dicts_resumes_exactly_and_its_features_have_names(tmp_path: Path, capsys: Any) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, *PARTS) == 0
    cut_off("agent", cut, ["train", *TINY, *PARTS, "--run-dir", str(cut)])
    assert resume("agent", cut) == 0
    same_run(whole, cut)
    capsys.readouterr()
    assert main(["inspect", "--run", str(whole), "--episodes", "1", "--json"]) == 0
    inputs = json.loads(capsys.readouterr().out)["networks"]["actor"]["inputs"]
    parts = ("arm 0", "arm 1", "goal")
    ages = ("", ", 1 step ago", ", 2 steps ago")
    assert {one["name"] for one in inputs} == {f"{part}{age}" for part in parts for age in ages}
    assert main(["export", "--run", str(whole), "--format", "safetensors", "--out", str(tmp_path / "policy")]) == 0


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, envs: None) -> Path:
    """A run of `ds_td3` on images."""
    path = tmp_path_factory.mktemp("images") / "seen"
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        assert train(path, *IMAGES) == 0
    return path


def test_a_run_on_images_resumes_exactly(seen: Path, tmp_path: Path, capsys: Any) -> None:
    cut = tmp_path / "cut"
    cut_off("agent", cut, ["train", *TINY, *IMAGES, "--run-dir", str(cut)])
    assert resume("agent", cut) == 0
    same_run(seen, cut)
    result = json.loads((seen / "result.json").read_text())
    assert result["topology_events"] > 0
    # Three convolutions of 36 x 36 x 3 images, a layer to 512 features, and two layers of 12; two critics share theirs.
    of_images = (192 * 32 + 32) + (512 * 64 + 64) + (576 * 64 + 64) + (64 * 512 + 512)
    of_actor, of_critic = ((n + 1) * 12 + 13 * 12 + 13 for n in (512, 513))
    assert result["params_dense"] == 2 * of_images + of_actor + 2 * of_critic
    assert main(["eval", "--run", str(seen), "--episodes", "1"]) == 0


@pytest.mark.parametrize("words", [("--algo", "sac"), ("--algo", "ds_sac", "--agent.n-critics", "3", "--n-envs", "2")])
def test_other_agents_see_images_too(words: tuple[str, ...], tmp_path: Path) -> None:
    given = [*IMAGES[:-2]] if words[1] == "sac" else [*IMAGES]
    assert train(tmp_path / "run", *given, *words) == 0
    assert train(tmp_path / "on", "--from", str(tmp_path / "run"), "--total-steps", "50") == 0


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_a_policy_that_sees_images_is_exported(kind: str, seen: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["export", "--run", str(seen), "--format", kind, "--out", str(tmp_path / "policy")]) == 0
    said = capsys.readouterr().out
    assert "36 x 36 x 3 - 32 - 64 - 64 - 512 - 12 - 12 - " in said
    [difference] = re.findall(r"differs from the agent by\W+([\d.e-]+) at most", said)
    assert float(difference) < 1e-4


def test_pixels_are_looked_at(seen: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    words = ["inspect", "--run", str(seen), "--episodes", "1", "--checkpoint", "last"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["networks"]
    agent = TrainedAgent(RunFolder.open(seen), "last")
    pixels, n_action = 3 * 36 * 36, agent.agent.action_space.shape[0]  # type: ignore[index]  # a Box
    assert [len(said[group]["inputs"]) for group in ("actor", "critic")] == [pixels, pixels + n_action]
    inputs = {one["name"]: one for one in said["actor"]["inputs"]}

    # The derivative by differences, in the states that were visited.
    observations, _ = agent.visited(0, 1)
    images = torch.from_numpy(observations.transpose(0, 3, 1, 2) / 255)
    actor = agent.agent.actor  # type: ignore[attr-defined]

    def act(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return actor.network(actor.features_extractor(images))

    for channel, row, column in ((0, 20, 20), (2, 0, 35), (1, 17, 3)):
        change = torch.zeros_like(images)
        change[:, channel, row, column] = 1e-2
        expected = ((act(images + change) - act(images - change)).abs() / 2e-2).mean(0).sum().item()
        found = inputs[f"channel {channel}, row {row}, column {column}"]
        assert found["attribution"] == pytest.approx(expected, rel=0.05, abs=1e-5)

    # Patches of 8 x 8 start at every 4th pixel, up to 28: a corner is in one of them, what is inside in up to four.
    kernel = linear(actor.features_extractor.cnn[0].kernel)
    degrees = np.bincount(kernel.index.col, minlength=192).reshape(3, 8, 8)  # type: ignore[union-attr]  # sparse
    assert inputs["channel 1, row 0, column 0"]["degree"] == degrees[1, 0, 0]
    assert inputs["channel 2, row 4, column 0"]["degree"] == degrees[2, 4, 0] + degrees[2, 0, 0]
    assert inputs["channel 0, row 5, column 6"]["degree"] == degrees[0][np.ix_((5, 1), (6, 2))].sum()
    assert main([*words, "--out", str(tmp_path / "pixels.png")]) == 0
    printed = capsys.readouterr().out
    assert "attribution by channel: " in printed
    assert (tmp_path / "pixels.png").read_bytes().startswith(b"\x89PNG")


OF_OTHERS = {
    "td3": "--agent.learning-starts 10 --agent.batch-size 4 --agent.buffer-size 50",
    "ds_ppo": "--agent.n-steps 16 --agent.batch-size 16 --wrappers.normalize-observations none",
}


@pytest.mark.parametrize("algo", ["ds_td3", *OF_OTHERS])
def test_a_run_on_images_is_pruned_to_a_run_that_other_commands_open(
    algo: str, seen: Path, tmp_path: Path, capsys: Any
) -> None:
    run, out = seen, tmp_path / "pruned"
    if algo in OF_OTHERS:
        run = tmp_path / "run"
        words = f"--algo {algo} --env Image-v0 --total-steps 32 --agent.net-arch 12 12 {OF_OTHERS[algo]}".split()
        assert main(["train", *words, "--eval.episodes", "1", "--no-progress", "--run-dir", str(run)]) == 0
    capsys.readouterr()
    given = [
        "prune",
        "--run",
        str(run),
        "--density",
        "0.05",
        "--checkpoint",
        "last",
        "--episodes",
        "1",
        "--out",
        str(out),
        "--json",
    ]
    assert main(given) == 0
    said = json.loads(capsys.readouterr().out)
    of_images = [192 * 32, 512 * 64, 576 * 64, 64 * 512]
    of_actor = [512 * 12, 12 * 12, 12 * ImageEnv().action_space.shape[0]]  # type: ignore[index]  # a Box
    kept = round(0.05 * sum(of_images)) + round(0.05 * sum(of_actor))
    outputs = 32 + 64 + 64 + 512 + 12 + 12 + of_actor[-1] // 12
    assert said["after"]["policy_parameters"] == kept + outputs < said["before"]["policy_parameters"]
    assert main(["eval", "--run", str(out), "--episodes", "1"]) == 0
    assert main(["export", "--run", str(out), "--out", str(tmp_path / "policy")]) == 0
    assert main(["train", "--from", str(out), "--total-steps", "64", "--run-dir", str(tmp_path / "on")]) == 0
    before, after = (TrainedAgent(RunFolder.open(path), "last").agent.networks["actor"] for path in (run, out))
    for name, layer in layers_of_images(after.features_extractor).items():  # type: ignore[arg-type]
        whole, kept = linear(layers_of_images(before.features_extractor)[name]), linear(layer)  # type: ignore[arg-type]
        flat = kept.flat(np.arange(kept.weights.numel()))
        places = whole.flat(np.arange(whole.weights.numel()))
        weights = dict(zip(places.tolist(), whole.weights.flatten().tolist(), strict=True))
        assert [weights[place] for place in flat.tolist()] == kept.weights.flatten().tolist()
        rest = [abs(weights[place]) for place in weights.keys() - set(flat.tolist())]
        assert max(rest) <= kept.weights.abs().min().item(), "the largest of each layer stay"
        assert torch.equal(whole.bias, kept.bias)  # type: ignore[arg-type]  # there are biases


REFUSED = {
    "train --env Floats-v0": "images are of uint8, from 0 to 255",
    "train --env Small-v0": "images must be at least 36 x 36, got 35 x 40",
    "train --env Image-v0 --wrappers.permute": "needs vectors as observations",
    "train --env Image-v0 --wrappers.frame-stack 3": "needs vectors as observations",
    "train --env Image-v0 --agent.buffer-size 900000000 --total-steps 900000000": "of it for the replay buffer",
    "train --env Image-v0 --agent.batch-size 90000000": "of it for convolutions (--agent.batch-size)",
    "export --run {seen} --format c": "images is not written as C; take --format onnx or safetensors",
    "prune --run {seen} --density 0.1 --by fisher": "pruned by weights, not by fisher: use lamp, global or uniform",
    "prune --run {seen} --density 0.99": "is pruned to less, got 0.99; the closest is",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_images_cannot_be_used_for_is_refused_in_one_line(words: str, seen: Path, capsys: Any) -> None:
    assert main([word.format(seen=seen) for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert REFUSED[words] in error
    assert error.count("\n") == 1
