"""An environment with pictures and success: what films and dashboards need, without a graphics driver."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.envs import Array, FunctionEnv


class FilmedEnv(FunctionEnv):
    """`FunctionEnv` whose picture brightens by one at each step; success is an even number of steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, render_mode: str | None = None, horizon: int = 5) -> None:
        super().__init__(horizon=horizon)
        self.render_mode = render_mode

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        *rest, info = super().step(action)
        return (*rest, {**info, "success": self.elapsed % 2 == 0})  # type: ignore[return-value]

    def render(self) -> Array:  # type: ignore[override]
        return np.full((16, 16, 3), 40 * self.elapsed, np.uint8)
