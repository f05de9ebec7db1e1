"""What an update did, kept so that the next one does it again without working it out again.

At the sizes of an agent, Python that looks up layers, checks addresses and lists steps takes as long as the arithmetic.
While an update is recorded, whatever does something in Python that belongs to *every* update (draws noise, reads a
learning rate) says so with `each_time`, and whatever took something for granted says so with `relies_on` or `only_if`.
Reading a number makes the recording one that cannot be repeated, since what follows may depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter, getitem, is_
from typing import Any, Generic, TypeVar

import torch

from sparserl.kernels import tables

T = TypeVar("T")
Condition = Callable[[], bool]
MOST = 8
"""Recordings of one agent, of updates that differ by turns."""


class Recording:
    """What an update did, in order, and when that can be done again."""

    def __init__(self) -> None:
        self.acts: list[Callable[[], object]] = []
        self.turns: list[Condition] = []
        self.is_repeatable = True
        self.conditions: dict[Hashable, Condition] = {}
        self.tensors: dict[int, torch.Tensor] = {}
        self.trained: dict[int, torch.Tensor] = {}
        self.items: dict[tuple[int, Hashable], tuple[Mapping[Any, Any], Hashable]] = {}

    def seal(self) -> None:
        """Takes note of how everything is that it relies on."""
        self._tensors, self._trained = list(self.tensors.values()), list(self.trained.values())
        self._mappings = [mapping for mapping, _ in self.items.values()]
        self._keys = [key for _, key in self.items.values()]
        self._threads = torch.get_num_threads()
        # Steps keep the memory of tensors, so nothing else comes to lie at the same address.
        self._key = tables.key(self._tensors)
        self._objects, self._needs = self._present_objects(), list(map(_requires_grad, self._trained))

    def _present_objects(self) -> list[object]:
        return [*map(getitem, self._mappings, self._keys), *map(_gradient, self._trained)]

    def is_its_turn(self) -> bool:
        """Whether an update like this one is next."""
        return all(condition() for condition in self.turns)

    def holds(self) -> bool:
        """Whether all is still so that it can be repeated at all."""
        try:
            objects = self._present_objects()
        except KeyError:
            return False
        return (
            torch.get_num_threads() == self._threads
            and all(map(is_, objects, self._objects))
            and tables.key(self._tensors) == self._key
            and list(map(_requires_grad, self._trained)) == self._needs
            and all(condition() for condition in self.conditions.values())
        )

    def repeat(self) -> None:
        """Does it again."""
        for act in self.acts:
            act()


_requires_grad, _gradient = attrgetter("requires_grad"), attrgetter("grad")


class _Present(threading.local):
    def __init__(self) -> None:
        self.recording: Recording | None = None
        self.is_acting = False


_present = _Present()


@contextmanager
def recorded() -> Iterator[Recording]:
    """Inside, what is done is recorded."""
    before, recording = _present.recording, Recording()
    _present.recording = recording
    try:
        yield recording
    finally:
        _present.recording = before
    recording.seal()


def each_time(act: Callable[[], object]) -> None:
    """Does something in Python, now and whenever the update is repeated; it may look at numbers.

    Args:
        act: May depend on nothing but what it reads itself, and on what `relies_on` was told of.
    """
    if _present.is_acting:
        act()
        return
    _present.is_acting = True
    try:
        act()
    finally:
        _present.is_acting = False
    add_act(act)


def is_acting() -> bool:
    """Whether something is being done that `each_time` was given."""
    return _present.is_acting


def add_act(act: Callable[[], object]) -> None:
    """Records something that was done."""
    if _present.recording is not None:
        _present.recording.acts.append(act)


def _listening() -> Recording | None:
    """The recording, unless what is being done will be done each time whatever it relies on."""
    return None if _present.is_acting else _present.recording


def is_recorded() -> bool:
    """Whether a recording notes what is relied on; asked where telling it takes time."""
    return _listening() is not None


def relies_on(what: Hashable, condition: Condition) -> None:
    """Says what must hold for a repetition; once it does not, the recording is of no more use.

    Args:
        what: Names the condition: it is kept once.
        condition: Without effects.
    """
    recording = _listening()
    if recording is not None:
        recording.conditions.setdefault(what, condition)


def relies_on_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Says that tensors must have the memory that they have."""
    recording = _listening()
    if recording is not None:
        recording.tensors.update((id(tensor), tensor) for tensor in tensors)


def relies_on_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Says that parameters must have the gradients that they will have, and require them or not as now."""
    recording = _listening()
    if recording is not None:
        recording.trained.update((id(parameter), parameter) for parameter in parameters)


def relies_on_items(mapping: Mapping[Any, Any], keys: Iterable[Hashable]) -> None:
    """Says that a mapping must have the very objects under some keys that it will have at the end."""
    recording = _listening()
    if recording is not None:
        recording.items.update(((id(mapping), key), (mapping, key)) for key in keys)


def only_if(condition: Condition) -> None:
    """Says which updates are like this one.

    Args:
        condition: Without effects, true now; may be true again later when it is not.
    """
    recording = _listening()
    if recording is not None:
        recording.turns.append(condition)


def not_again() -> None:
    """Says that what is being done cannot be repeated: it depends on numbers, or does more than was recorded."""
    recording = _listening()
    if recording is not None:
        recording.is_repeatable = False


class Repeated(Generic[T]):
    """Something that is done over and over, with recordings of how; a copy of it has none.

    Args:
        besides: Attributes of its owner that it does not depend on, but for what `only_if` is told of.
    """

    def __init__(self, besides: frozenset[str] = frozenset()):
        self._besides = besides
        self._names: frozenset[str] = frozenset()
        self._read: list[str] = []
        self._settings: list[object] = []
        self._recordings: list[tuple[Recording, T]] = []

    def __getstate__(self) -> dict[str, Any]:
        # They do what they do to the original.
        return {**vars(self), "_settings": [], "_recordings": []}

    def forget(self) -> None:
        """Drops all recordings, and the memory that they hold."""
        self._recordings.clear()

    def __call__(self, do: Callable[[], T], attributes: Mapping[str, object], *more: object) -> T:
        """Does something, by a recording if there is one that fits.

        Args:
            do: What; its result must be such that a repetition fills it anew.
            attributes: Of its owner; recordings were made with the very same objects.
            more: Further such objects.
        """
        if attributes.keys() != self._names:
            self._names = frozenset(attributes)
            self._read = sorted(self._names - self._besides)
            self._recordings.clear()
        settings = [*map(attributes.__getitem__, self._read), *more]
        if len(settings) != len(self._settings) or not all(map(is_, settings, self._settings)):
            self._recordings.clear()
            self._settings = settings
        for recording, result in self._recordings:
            if recording.is_its_turn():
                if recording.holds():
                    recording.repeat()
                    return result
                self._recordings.clear()  # those of other turns hold memory that the next passes can use
                break
        with recorded() as recording:
            result = do()
        if recording.is_repeatable:
            if len(self._recordings) == MOST:
                self._recordings.clear()
            self._recordings.append((recording, result))
        return result
