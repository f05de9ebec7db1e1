"""Which tasks own the connections of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHARED = "shared"
"""Owner of connections that all tasks use and change."""


@dataclass(frozen=True)
class ConnectionUsage:
    """Which tasks use the connections of one layer after a task.

    Attributes:
        layer: Full name, e.g. `network.0`.
        owned: Connections that belong to each task so far.
        frozen: Connections that later tasks cannot change.
        size: Connections of the dense layer.
        neurons: Output neurons of the layer.
        reserved: Output neurons that later tasks cannot connect to.
        shared: Connections that all tasks use and change.
    """

    layer: str
    owned: tuple[int, ...]
    frozen: int
    size: int
    neurons: int
    reserved: int
    shared: int = 0

    @property
    def owners(self) -> dict[str, int]:
        """Task -> connections that are its; `SHARED` -> those of all tasks, if there are any or none of tasks."""
        owned = {str(task): count for task, count in enumerate(self.owned)}
        return owned | ({SHARED: self.shared} if self.shared or not owned else {})

    @property
    def used(self) -> int:
        """Connections that belong to a task."""
        return sum(self.owned) + self.shared

    @property
    def free(self) -> int:
        """Connections that do not exist or belong to no task."""
        return self.size - self.used

    def record(self) -> dict[str, Any]:
        """As `result.json` says it, without the name."""
        kept = {name: getattr(self, name) for name in ("free", "frozen", "size", "neurons", "reserved")}
        return {"connections_per_task": self.owners, **kept}
