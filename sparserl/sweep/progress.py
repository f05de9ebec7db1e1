"""What tasks of a sweep on Ray say while they train; it imports nothing, so that its process begins soon."""

from __future__ import annotations


class Progress:
    """The step of each run that has begun, by id."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def post(self, id: str, step: int) -> None:
        """A run has reached a step."""
        self._steps[id] = step

    def steps(self) -> dict[str, int]:
        """All that was said."""
        return self._steps
