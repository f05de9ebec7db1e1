"""The recorder under all recorders, with nothing that is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.runs import rows

from sparserl.errors import NotFiniteError
from sparserl.layers import SparseLinear
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.recorder import Recorder, logged_values, rollout_metrics
from sparserl.recording.run_folder import RunFolder
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import SparseTopology


class Counted(Recorder):
    """Records a count."""

    columns: ClassVar = {"progress": ("global_step", "train/loss"), "topology": TOPOLOGY_COLUMNS}
    steps = 0
    evolver: TopologyEvolver | None = None

    def save_checkpoint(self) -> None: ...

    def save_not_finite(self, error: NotFiniteError) -> Path:
        raise NotImplementedError

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def result(self) -> dict[str, Any]:
        return self._spent()

    def log_models(self, result: Mapping[str, Any]) -> None: ...


class Heard:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.films: list[tuple[int, str, Path]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_video(self, step: int, name: str, path: Path) -> None:
        self.films.append((step, name, path))

    def log_model(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None: ...

    def close(self, summary: Mapping[str, Any]) -> None: ...


def recorder(path: Path, **more: Any) -> Counted:
    path.mkdir(exist_ok=True)
    return Counted(RunFolder(path), identity={}, total_steps=10, show_progress=False, **more)


def test_what_is_defined_goes_to_the_columns_and_to_trackers(tmp_path: Path) -> None:
    own, heard = recorder(tmp_path), Heard()
    own.trackers, own.steps = [heard], 3
    own._log({"train/loss": 0.5, "train/other": 2.0, "cl/bwt": math.nan})
    own._log({"train/loss": math.nan})
    own._track({"eval/return_mean": 1.0})
    found = rows(tmp_path / "progress.csv")
    assert [(row["global_step"], row["train/loss"]) for row in found] == [("3", "0.5"), ("3", "")]
    assert heard.metrics == [(3, {"train/loss": 0.5, "train/other": 2.0}), (3, {}), (3, {"eval/return_mean": 1.0})]


def test_topology_events_are_taken_and_written_once(tmp_path: Path) -> None:
    own = recorder(tmp_path)
    assert own._record_topology() == []
    layer = SparseLinear(SparseTopology(2, 4, np.array([0, 2, 5])), bias=False)
    own.evolver, own.steps = TopologyEvolver({"net": {"net.0": layer}}, None, seed=0), 7
    assert [event.kind for event in own._record_topology()] == ["initial"]
    assert own._record_topology() == []
    assert [(row["global_step"], row["layer"]) for row in rows(tmp_path / "topology.csv")] == [("7", "net.0")]


@pytest.mark.parametrize("is_left", [False, True])
def test_a_film_is_left_where_the_run_is_asked_to_stop(is_left: bool, tmp_path: Path) -> None:
    def film(act: Any, step: int, task: int) -> Path:
        if camera.should_stop():
            raise EvaluationAbandoned
        return Path(f"{step}_{task}.mp4")

    class Camera:
        should_stop: Any = None

        def __call__(self, act: Any, step: int, task: int) -> Path:
            return film(act, step, task)

    camera, heard = Camera(), Heard()
    own = recorder(tmp_path, camera=camera, evaluator=SimpleNamespace(should_stop=None))
    own.trackers, own.stop_requested = [heard], is_left
    own._film(lambda observation: observation, 2)
    assert heard.films == ([] if is_left else [(0, "eval/video", Path("0_2.mp4"))])


def test_clock_and_process_go_on_where_a_checkpoint_was_taken(tmp_path: Path) -> None:
    own = recorder(tmp_path)
    own.steps = 4
    state = own._state()
    assert state["csv_bytes"] == {name: (tmp_path / f"{name}.csv").stat().st_size for name in ("progress", "topology")}
    later = recorder(tmp_path)
    later._load({**state, "elapsed_s": 1000.0, "process": {"cpu_s": 500.0, "memory_peak_bytes": 2**50}})
    spent = later.result()
    assert list(spent) == ["steps", "wall_s", "cpu_s", "memory_peak_bytes", "steps_per_second"]
    assert spent["wall_s"] > 1000
    assert spent["cpu_s"] > 500
    assert spent["memory_peak_bytes"] == 2**50


def test_an_agent_is_asked_for_episodes_and_what_its_logger_says() -> None:
    logger = SimpleNamespace(name_to_value={"train/loss": torch.tensor(0.5), "time/fps": 9.0})
    agent = SimpleNamespace(logger=logger, ep_info_buffer=[{"r": 1.0, "l": 3, "t": 0.1}, {"r": 2.0, "l": 5, "t": 0.2}])
    names = frozenset({"train/loss", "train/other"})
    assert logged_values(agent, names) == {"train/loss": 0.5}
    expected = {"rollout/ep_rew_mean": 1.5, "rollout/ep_len_mean": 4.0, "train/loss": 0.5}
    assert rollout_metrics(agent, names) == expected
    agent.ep_info_buffer = []
    assert rollout_metrics(agent, names) == {"train/loss": 0.5}
