"""What options of continual methods have in common: defaults that depend on what learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sparserl.continual.learner import Kind
from sparserl.errors import ConfigError
from sparserl.ranges import check_ranges


@dataclass(frozen=True)
class Options:
    """Options of a method. What is None takes the default of the kind of learner.

    Attributes:
        group: Name of the group in a config; `own` of all methods outside of sparserl.
        defaults: Kind -> all options that the kind has, with their defaults; empty if all kinds have all options.

    Raises:
        ConfigError: If a value is out of range.
    """

    group: ClassVar[str] = "own"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        check_ranges(self, self._said())

    def of_kind(self, kind: Kind) -> Self:
        """With the defaults of a kind of learner in place of None.

        Raises:
            ConfigError: If an option is given that the kind does not have.
        """
        defaults = self.of(kind)
        for field in dataclasses.fields(self):
            if field.name not in defaults and getattr(self, field.name) != field.default:
                others = ", ".join(f"{other}s" for other in self.defaults if field.name in self.defaults[other])
                said = f"--{self._said()}{field.name.replace('_', '-')}"
                raise ConfigError(f"{said} is an option of {others or 'nothing'}, and here {kind}s learn")
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing) if missing else self

    def of(self, kind: Kind) -> Mapping[str, Any]:
        """Options that a kind of learner has, with their defaults."""
        if not self.defaults:
            return {field.name: field.default for field in dataclasses.fields(self)}
        return self.defaults.get(kind, {})

    def _said(self) -> str:
        return f"{self.group.replace('_', '-')}."
