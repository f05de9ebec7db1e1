"""What a terminal shows while runs of a sweep or of a search go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table

SHOWN_AT_ONCE = 20
"""Rows of a table while runs go on."""


def watched(
    train: Callable[[Callable[[], None]], None],
    table: Callable[[int | None], Table],
    announce: Callable[[], None],
    *,
    live: bool,
) -> bool:
    """Trains, and shows at the end where all runs stand.

    Args:
        train: Calls its argument again and again while runs go on.
        table: Where runs stand; so many rows, or all if None.
        announce: Called instead of drawing the table again and again, where that is not wanted or not possible.
        live: Whether it is wanted.

    Returns:
        Whether it was not stopped.
    """
    console = Console()
    try:
        if live and console.is_terminal:
            with Live(table(SHOWN_AT_ONCE), console=console, refresh_per_second=2) as drawn:
                train(lambda: drawn.update(table(SHOWN_AT_ONCE)))
        else:
            train(announce)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was")
        return False
    console.print(table(None))
    return True


def counted(statuses: Iterable[str]) -> str:
    """How many have each status, in words."""
    return ", ".join(f"{number} {status}" for status, number in Counter(statuses).items())
