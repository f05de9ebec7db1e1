"""Tables that the terminal shows."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def titled_table(title: str, **kwargs: Any) -> Table:
    """A table that is as wide as its title, where the terminal is; further arguments as of `rich.table.Table`."""
    return Table(title=title, min_width=min(len(title), Console().width), **kwargs)
