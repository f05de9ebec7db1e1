"""What runs have in common that differ in the seed alone."""

from __future__ import annotations

from typing import Any

import pytest

from sparserl.recording.settings import BOOKKEEPING, group_name, settings

CONFIG: dict[str, Any] = {**dict.fromkeys(BOOKKEEPING, 1), "agent": {"tau": 0.5, "net": {"arch": [1, 2]}}, "env": "E"}


def test_settings_are_all_but_bookkeeping() -> None:
    assert settings(CONFIG) == {"agent.tau": "0.5", "agent.net.arch": "[1, 2]", "env": "E"}


@pytest.mark.parametrize("key", BOOKKEEPING)
def test_a_group_has_all_seeds(key: str) -> None:
    assert group_name("E__td3", CONFIG | {key: 2}) == group_name("E__td3", CONFIG)


def test_a_group_has_no_other_settings() -> None:
    others = [CONFIG, CONFIG | {"agent": {"tau": 0.1, "net": {"arch": [1, 2]}}}, CONFIG | {"total_steps": 5}]
    groups = {group_name("E__td3", config) for config in others}
    assert len(groups) == len(others)
    assert all(name.startswith("E__td3__") for name in groups)
