"""Makes `support` and `oracle` importable, keeps torch on one thread, and begins with the tests that take long."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numba
import pytest
import torch

TESTS = Path(__file__).parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))
torch.set_num_threads(1)
CHECKED = (
    *("agents/test_ds_sac.py", "agents/test_ds_td3.py", "agents/test_one_call.py", "agents/test_repeated_updates.py"),
    *("continual/strategies", "contract/test_agents.py", "contract/test_copies.py"),
    *("sparserl/kernels", "sparserl/layers", "sparserl/topology"),
)
"""In whose tests tables of addresses are compared with their arrays before each call of a kernel."""


@pytest.fixture(scope="module", autouse=True)
def checked_tables(request: pytest.FixtureRequest) -> Iterator[None]:
    """All else calls the same kernels in the same ways, and takes up to a third longer with it."""
    with pytest.MonkeyPatch.context() as patch:
        if any(request.path.is_relative_to(TESTS / place) for place in CHECKED):
            patch.setattr("sparserl.kernels.tables.CHECKED", True)
        yield


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


@pytest.fixture
def option_envs() -> Iterator[None]:
    """Those that the kinds of `support.option_kinds` name."""
    from support.envs import ChoiceEnv, FunctionEnv

    names = ("Tiny-v0", "Other-v0", "Choices-v0")
    for name, made in zip(names, (FunctionEnv, FunctionEnv, ChoiceEnv), strict=True):
        gym.register(name, entry_point=made, kwargs={"horizon": 17})
    yield
    for name in names:
        gym.registry.pop(name)


@pytest.fixture(scope="module")
def option_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files that they name."""
    from support.option_kinds import write_files

    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder
