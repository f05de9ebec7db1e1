"""Meta-World's tasks as environments of Gymnasium, one id each, whose episodes a seed repeats.

Decides what Meta-World leaves open: where placements come from, which observations are declared, what belongs to the
exact state. Independent of sequences. Meta-World is an extra: nothing imports it before an id of it is used.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, cached_property
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from numpy.lib.array_utils import byte_bounds

from sparserl.envs.simulation_state import Array, NotCapturable, buffer_arrays
from sparserl.errors import ConfigError
from sparserl.extras import how_to_install

NAMESPACE = "Meta-World"
EPISODE_STEPS = 500
"""Meta-World's own horizon."""

# What resets edit in the compiled model: where the furniture stands and where the goal is drawn.
_EDITED = ("body_pos", "site_pos")
_VALUES = (bool, int, float, str, type(None), np.generic, np.ndarray)


@cache
def register_tasks() -> None:
    """Registers `Meta-World/<task>`, for example `Meta-World/hammer-v3`, for all tasks of the installed Meta-World.

    Raises:
        ConfigError: If it is not installed.
    """
    if importlib.util.find_spec("metaworld") is None:
        raise ConfigError(f"Meta-World is not installed; {how_to_install('metaworld')} brings it")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    for task in ALL_V3_ENVIRONMENTS:
        gym.register(
            f"{NAMESPACE}/{task}",
            entry_point="sparserl.envs.tasks.meta_world:make_task",
            kwargs={"task": task},
            max_episode_steps=EPISODE_STEPS,
        )


def make_task(task: str, *, render_mode: str | None = None) -> MetaWorldTask:
    """One task, without the time limit that `make_env` puts around it.

    Args:
        task: Meta-World's name of it, e.g. `"hammer-v3"`.
        render_mode: As in `make_env`.
    """
    return _task_class(task)(render_mode=render_mode)


@cache
def _task_class(task: str) -> type[MetaWorldTask]:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    theirs = ALL_V3_ENVIRONMENTS[task]
    return type(theirs.__name__, (MetaWorldTask, theirs), {"__module__": __name__})


class MetaWorldTask(MujocoEnv):
    """What all tasks have in common; each is a subclass of this and of Meta-World's own class.

    Dynamics, actions (three of the hand, one of the gripper), rewards (its second version, 0 to 10 per step) and
    `info["success"]` (1.0 in a step that leaves the task solved, else 0.0; it ends nothing) are those of Meta-World.
    Different are:

    - Placements of goal and objects are drawn anew at every reset, by the generator that `reset(seed=...)` seeds.
      Meta-World ignores that seed and draws one of 50.
    - All tasks have one observation space: 39 features, of which the last three are the goal, here without bounds.
      Meta-World declares that they are zero, shows them, and in steps clips them to bounds of the task.
    - The time limit is Gymnasium's alone.
    - MuJoCo 3.17 and later, where equality constraints have one more number.

    Source:
        Meta-World (Yu et al. 2020), `SawyerXYZEnv` of version 3.1.1.
    """

    max_path_length = sys.maxsize

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode, reward_function_version="v2")  # type: ignore[call-arg]
        self.seeded_rand_vec = True
        self._partially_observable = False
        self._set_task_called = True
        # The rest of an exact state: the model, spaces, tables of constants.
        self._parts = {name: value for name, value in vars(self).items() if not isinstance(value, _VALUES)}

    @cached_property
    def sawyer_observation_space(self) -> gym.spaces.Box:
        """The declared space; Meta-World clips the observation of every step to it."""
        theirs = super().sawyer_observation_space  # type: ignore[misc]
        low, high = theirs.low.copy(), theirs.high.copy()
        low[-3:], high[-3:] = -np.inf, np.inf
        return gym.spaces.Box(low, high, dtype=np.float64)

    def reset_mocap_welds(self) -> None:
        """As Meta-World's; a number that it does not know keeps its default."""
        welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
        self.model.eq_data[welds, :11] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)

    def touching_object(self, object_geom_id: int) -> bool:
        """As Meta-World's, without a Python object per contact: half of the time of a step of push-v3."""
        contact = self.data.contact
        with_object = (contact.geom == object_geom_id).any(axis=1)
        pads = (self.data.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
        rows = (contact.efc_address[with_object & (contact.geom == pad).any(axis=1)] for pad in pads)
        return all(self.data.efc_force[row].sum() > 0.0 for row in rows)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Draws new placements."""
        gym.Env.reset(self, seed=seed)
        self._freeze_rand_vec = False
        observation, info = super().reset()
        return observation, info

    def reset_model(self) -> Array:
        """Keeps what was drawn: Meta-World calls this twice per reset, to find the furniture at its place."""
        observation: Array = super().reset_model()
        self._freeze_rand_vec = True
        return observation

    def state_dict(self) -> dict[str, Any]:
        """The attributes that resets and steps change, and what resets edit in the model."""
        state = {f"attribute.{name}": self._described(getattr(self, name)) for name in self._changing()}
        return state | {f"model.{name}": getattr(self.model, name) for name in _EDITED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a state of the same task."""
        for name in self._changing():
            delattr(self, name)
        vars(self).update(self._parts)
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if kind == "model":
                getattr(self.model, name)[...] = value
            else:
                setattr(self, name, self._made(value))

    def _changing(self) -> list[str]:
        """Names of attributes; `capture_state` saves the generator, and `spec` is Gymnasium's."""
        rest = ("_parts", "spec", "_np_random", "_np_random_seed")
        return [
            name
            for name, value in vars(self).items()
            if name not in rest and not (name in self._parts and value is self._parts[name])
        ]

    def _described(self, value: Any) -> Any:
        """The value; of an array that Meta-World took from the simulation without copying, a view."""
        if isinstance(value, np.generic):
            return np.asarray(value)
        if not isinstance(value, np.ndarray) or _is_of_numpy(value):
            return value
        first, end = byte_bounds(value)
        for name, array in buffer_arrays(self.data).items():
            start, stop = byte_bounds(array)
            if start <= first and end <= stop and value.shape == array.shape[1:]:
                return {"view_of": name, "row": (first - start) // array.strides[0]}
        raise NotCapturable("an attribute is a view of something that is not a row of the simulation's arrays")

    def _made(self, value: Any) -> Any:
        """The opposite of `_described`."""
        if isinstance(value, dict):
            return getattr(self.data, value["view_of"])[value["row"]]
        return value[()] if isinstance(value, np.ndarray) else value


def _is_of_numpy(array: Array) -> bool:
    """Whether NumPy holds the memory of an array."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base is None
