"""Who owns the connections of a layer: tasks, all of them together, nobody."""

from __future__ import annotations

import pytest

from sparserl.continual.shared.usage import ConnectionUsage


@pytest.mark.parametrize(
    ("owned", "shared", "owners"),
    [
        ((3, 2), 0, {"0": 3, "1": 2}),
        ((), 7, {"shared": 7}),
        ((), 0, {"shared": 0}),
        ((3, 2), 4, {"0": 3, "1": 2, "shared": 4}),  # as in nispa: what leads to plastic units is everyone's
    ],
)
def test_owners_are_all_that_is_used(owned: tuple[int, ...], shared: int, owners: dict[str, int]) -> None:
    usage = ConnectionUsage("network.0", owned, 0, 20, 4, 0, shared=shared)
    assert usage.owners == owners
    assert sum(usage.owners.values()) == usage.used == 20 - usage.free
