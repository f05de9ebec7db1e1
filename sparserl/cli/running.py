"""What `train` and `continual` do with a command line that was read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from sparserl.experiment.runs import begin, go_on
from sparserl.experiment.training import Shown, Source, carry_out
from sparserl.recording.run_lock import only_writer
from sparserl.recording.trackers import JobType


def carry_out_command(name: JobType, parsed: tuple[Any, str | None], arguments: Sequence[str], shown: Shown) -> int:
    """Begins a run or goes on with one.

    Args:
        name: Of the sub-command.
        parsed: What the command line says, and the preset that the run starts from.
        arguments: The command line.
        shown: Prints a result.

    Returns:
        Exit status.
    """
    command, preset = parsed
    source = Source(command.config, getattr(command, "data_dir", None), getattr(command, "download", False))
    if command.resume is not None:

        def begun(step: int) -> None:
            print(f"resuming {command.resume} at step {step}")

        how: dict[str, Any] = {"show_progress": command.progress, "shown": shown}
        go_on(command.resume, command.from_step, source, command=name, begun=begun, **how)
        return 0
    config = command.run
    training = begin(config, source)
    if command.dry_run:
        print(yaml.safe_dump(config.plain(), sort_keys=False), end="")
        return 0
    folder = training.create_folder(command.run_dir, shlex.join(["sparserl", name, *arguments]))
    print(f"{config.name} seed {config.seed}, {config.threads} thread(s), preset {preset}")
    print("\n".join([*training.about, f"run folder {folder.path}"]))
    with only_writer(folder.path):
        carry_out(training, folder, show_progress=command.progress, shown=shown)
    return 0
