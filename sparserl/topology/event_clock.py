"""When groups of layers have their events: the next update at which each is due, and what it still waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparserl.topology.rewire import RewireRule


class EventClock:
    """The clocks of groups that step at some updates and not at others.

    Args:
        groups: Their names.
        rule: Says when the first event is due; None: never.
    """

    def __init__(self, groups: Iterable[str], rule: RewireRule | None):
        self._due: dict[str, int | None] = dict.fromkeys(groups, rule.first_update if rule else None)
        self._batches = dict.fromkeys(self._due, 0)
        self._stepped: set[str] = set()  # groups that have done all for an event at this update

    def begin_update(self) -> None:
        """At each update, before any group steps."""
        self._stepped.clear()

    def is_stopped(self, group: str) -> bool:
        """Whether a group has no event any more."""
        return self._due[group] is None

    def is_due(self, group: str, update: int) -> bool:
        """Whether a step of the group at this update has something to follow it."""
        due = self._due[group]
        return due is not None and update >= due

    def is_last_batch(self, group: str, rule: RewireRule) -> bool:
        """Whether an event would wait for no batch beyond the one of the step to come."""
        return self._batches[group] + 1 == rule.gradient_batches

    def waits_for_batches(self, group: str, rule: RewireRule) -> bool:
        """Counts the update that just ended; whether the event waits for the batches of more."""
        self._batches[group] += 1
        return self._batches[group] != rule.gradient_batches

    def have_all_stepped(self, group: str, together: Sequence[str], *, gathering: bool) -> bool:
        """Notes that a group has stepped at this update; whether all have that share its event.

        Otherwise, while batches are gathered, the next step's batch will take the place of this one's.
        """
        self._stepped.add(group)
        if self._stepped.issuperset(together):
            return True
        self._batches[group] -= gathering
        return False

    def restart(self, groups: Iterable[str], due: int | None) -> None:
        """After an event of groups: the next is due at update `due`, None: never."""
        for group in groups:
            self._batches[group], self._due[group] = 0, due

    def set_due(self, group: str, due: int | None) -> None:
        """The next event of a group is due at update `due`, None: never; batches that it has gathered count."""
        self._due[group] = due

    def follow(self, rule: RewireRule, update: int) -> None:
        """Goes on by another rule from an update; groups that are stopped stay so."""
        first = rule.first_update
        for group, due in self._due.items():
            if due is not None:
                self._due[group] = first if update < first else next_due(rule, update)

    def state_dict(self) -> dict[str, Any]:
        """When groups are due, and the batches that they have gathered."""
        return {"due": dict(self._due), "batches": dict(self._batches)}

    def is_state_of(self, state: Mapping[str, Any]) -> bool:
        """Whether a state, in whatever else the mapping holds, is of these groups."""
        return set(state["due"]) == set(self._due)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._due, self._batches = dict(state["due"]), dict(state["batches"])


def next_due(rule: RewireRule, update: int) -> int:
    """The update of the first event after one at `update`.

    Example:
        >>> next_due(RewireRule(first_update=2, update_interval=10), 12)
        22
    """
    since = update - rule.first_update
    return rule.first_update + (since // rule.update_interval + 1) * rule.update_interval
