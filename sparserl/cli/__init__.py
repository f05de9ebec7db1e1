"""The command line: `train`, `continual`, `eval`, `enjoy`, `plot`, `bench`, `list`. Imports all, imported by none."""

from sparserl.cli.main import main

__all__ = ["main"]
