"""The agent of a run of `sparserl train` as a checkpoint has it, with an environment behind the wrappers of then."""

from __future__ import annotations

from typing import Any

from sparserl.agents.agent_state import restore_modules
from sparserl.envs import load_wrapper_state
from sparserl.errors import CheckpointError
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.resuming import restoring
from sparserl.experiment.run_config import located_config, run_config
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import BEST, FINAL, RunFolder, WhichCheckpoint, last_checkpoint, step_in
from sparserl.recording.whole_checkpoints import check_step, whole_steps


class RestoredAgent:
    """What a checkpoint of a run has learned, to act and not to learn.

    Args:
        folder: Of the run.
        which: The best policy by evaluation, or the last.

    Attributes:
        config: Of the run, with the paths of its files.
        state: The checkpoint.
        env: One of its environments.
        agent: The agent, with an empty replay buffer.

    Raises:
        ConfigError: If it is another kind of run.
        CheckpointError: If the checkpoint is missing or damaged.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint):
        self.config = located_config(run_config(folder), folder)
        self.state = checkpoint.load(folder.checkpoints / BEST) if which == "best" else last_state(folder)
        name_modules([self.config.env], folder.path)
        self.env = self.config.make_env()
        self.agent = self.config.make_agent(self.env, acts_only=True)
        with restoring():
            restore_modules(self.agent, self.state["modules"], ["policy"])
            load_wrapper_state(self.env, self.state["wrappers"])


def last_state(folder: RunFolder) -> dict[str, Any]:
    """The last policy: of a finished run its final one, otherwise that of the newest full checkpoint."""
    path, has_best = last_checkpoint(folder), (folder.checkpoints / BEST).exists()
    if path is None:
        raise CheckpointError(
            f"{folder.path} has no full checkpoint yet{'; try --checkpoint best' if has_best else ''}"
        )
    is_final = path.name == FINAL
    try:
        state = checkpoint.load(path)
        if not is_final:
            check_step(path, state)
    except CheckpointError as error:
        older = [] if is_final else [step for step in whole_steps(folder) if step != step_in(path)]
        ways = ["try --checkpoint best"] if has_best else []
        ways += [f"--resume with --from-step {older[-1]} goes back to one that is whole"] if older else []
        raise CheckpointError("; ".join([str(error), *ways])) from None
    return state
