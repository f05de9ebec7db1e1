"""The command line; `main.COMMANDS` lists it. Imports all, imported by none."""

from sparserl.cli.main import main

__all__ = ["main"]
