"""Makes `support` and `oracle` importable, keeps torch on one thread, and begins with the tests that take long.

Tables of addresses are compared with their arrays before each call of a kernel, here and in processes that tests start.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
import torch

TESTS = str(Path(__file__).parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)
torch.set_num_threads(1)
os.environ["SPARSERL_CHECK_TABLES"] = "1"  # before anything imports sparserl


@pytest.fixture
def thread_counts() -> Iterator[None]:
    """Leaves the numbers of threads as they were."""
    before, before_numba = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before)
    numba.set_num_threads(before_numba)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, or at the end one worker has them all while the other one has nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Modules and collected tests stay to the end: without this each `gc.collect` of a test visits them all."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that end runs and look at no picture."""
    from support.runs import leave_undrawn  # it imports sparserl

    leave_undrawn(monkeypatch)
