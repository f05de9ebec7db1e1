"""trackio as a sink for metrics: local files that it shows in the browser, without an account or a network."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.json_text import json_text
from sparserl.recording.run_folder import write_atomically

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables by which trackio is told to send metrics away."""
NAME_FILE = "trackio_name.txt"
"""In the run folder: what the run is called at trackio."""
LATEST_FILE = "trackio_latest.json"
"""In the run folder: the latest rows. trackio writes them within half a second, and a process may be killed before."""
LATEST_ROWS = 64
"""More than are logged in that time."""


@dataclass(frozen=True)
class TrackioConfig:
    """Where `--track trackio` writes metrics."""

    project: str = "sparserl"
    """Project name."""


class TrackioTracker:
    """Writes to trackio under the metric names of `METRICS`, with `global_step` as its step.

    Everything stays in trackio's folder (TRACKIO_DIR, or its usual one), unless its own variables name a Space or a
    server. A run that goes on is appended to its earlier part: what is stored of a step already is not stored again,
    and what an earlier process logged and trackio lost with it is.

    Args:
        config: Names.
        folder: Run folder; it keeps the name of the run there.
        name: Run name, with the seed; numbered where the project has one of this name.
        group: Name of the runs that differ in the seed alone.
        run_config: The resolved config, nested.
        resumed: Whether an earlier process of the run was tracked.

    Raises:
        ConfigError: If trackio is not installed or cannot write.
    """

    def __init__(
        self,
        config: TrackioConfig,
        *,
        folder: Path,
        name: str,
        group: str,
        run_config: Mapping[str, Any],
        resumed: bool = False,
    ):
        if not any(os.environ.get(variable) for variable in ELSEWHERE):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would ask who is logged in
        try:
            import trackio as library  # takes a while, and most runs do not track
        except ImportError:
            raise ConfigError(f"trackio is not installed; {how_to_install('trackio')} brings it") from None
        trackio: Any = library  # half of which has no types
        self._trackio, self._project, self._step = trackio, config.project, 0
        named = folder / NAME_FILE
        self._stored: dict[int, set[str]] = defaultdict(set)
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST_ROWS)
        self._latest_file = folder / LATEST_FILE
        try:
            if resumed and named.exists():
                self._name = named.read_text().strip()
                for row in trackio.SQLiteStorage.get_logs(config.project, self._name):
                    self._stored[row["step"]].update(row)
            else:
                self._name = _free(name, trackio.SQLiteStorage.get_runs(config.project))
            with contextlib.redirect_stdout(io.StringIO()):  # it says what we say in `close`
                self._run = trackio.init(
                    project=config.project,
                    name=self._name,
                    group=group,
                    config=dict(run_config),
                    resume="allow" if resumed else "never",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        except Exception as error:  # its own, of its database, of its folder
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(f"trackio did not start ({reason}); without --track trackio the run needs none") from None
        write_atomically(named, self._name + "\n")
        if resumed:
            for row in _rows(self._latest_file):
                self.log(row["step"], row["metrics"])
                self._stored[row["step"]].update(row["metrics"])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`."""
        self._step = step
        new = {name: value for name, value in metrics.items() if name not in self._stored.get(step, ())}
        if new:
            self._run.log(new, step=step)
            self._latest.append({"step": step, "metrics": new})
            write_atomically(self._latest_file, json_text([*self._latest]) + "\n")

    def log_video(self, step: int, name: str, path: Path) -> None:
        """Nothing: it is in the run folder."""

    def log_model(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Nothing: it is in the run folder."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Records what numbers the result has, at the last step, waits until all is written, and says how to look."""
        numbers = {
            f"result/{name}": value
            for name, value in summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.log(self._step, numbers)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(RuntimeError):  # it was ended already
            self._trackio.finish()
        print(f"tracked as {self._name}: trackio show --project {shlex.quote(self._project)}")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The latest rows of an earlier process, without what is no number; none if there is no such file."""
    try:
        rows = json.loads(path.read_text())
        return [{**row, "metrics": {name: v for name, v in row["metrics"].items() if v is not None}} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, or the first of `...__2`, `...__3`, ... that no run has: trackio finds runs by their name."""
    names = {*taken}
    candidate, number = name, 1
    while candidate in names:
        number += 1
        candidate = f"{name}__{number}"
    return candidate
