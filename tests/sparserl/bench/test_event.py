"""Windows with and without a topology event."""

from __future__ import annotations

import pytest
from support.envs import FunctionEnv

from sparserl.agents import DSTD3
from sparserl.bench.contenders import Entry, give_replay, make, random_replay
from sparserl.bench.event import SCHEDULE, WINDOW, EventTiming, time_events


@pytest.mark.parametrize("method", ["set", "ds_td3"])
def test_every_layer_rewires_in_every_other_window(method: str) -> None:
    agent = make(Entry("ds_td3", 0.5), FunctionEnv(), 16, 0, method=method, **SCHEDULE)
    give_replay(agent, random_replay(FunctionEnv(), 0))
    assert isinstance(agent, DSTD3)
    agent.evolver.events.clear()
    seen = []

    def clock() -> float:
        seen.append({(event.layer, event.update) for event in agent.evolver.events})
        return float(agent._n_updates)

    timings = time_events(agent, 10, [1], rounds=2, clock=clock)
    for start, middle, end in zip(seen[::3], seen[1::3], seen[2::3], strict=True):
        assert {layer for layer, _ in middle - start} == set(agent.evolver.layers), "an event of each layer"
        assert {update % (2 * WINDOW) for _, update in middle - start} == {1, 2}, "early, so that what follows is timed"
        assert end == middle, "and none in the window that follows"
    assert timings[1].with_event == timings[1].without == (WINDOW, WINDOW)
    assert timings[1].warm_up_s == 2 * WINDOW


def test_an_event_is_the_difference_of_its_windows() -> None:
    timing = EventTiming(with_event=(0.5, 0.7, 0.6), without=(0.4, 0.4, 0.4), warm_up_s=9.0)
    found = timing.summary(interval=1000)
    assert found["update_ms"]["median"] == pytest.approx(100.0)
    assert found["event_ms"]["per_round"] == pytest.approx([100.0, 300.0, 200.0])
    assert found["event_ms"]["median"] == pytest.approx(200.0)
    assert found["share"] == pytest.approx(200.0 / (1000 * 100.0 + 200.0))
    assert found["warm_up_s"] == 9.0
