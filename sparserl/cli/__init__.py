"""The command line: `sparserl train`, `eval`, `enjoy`, `plot`, `list`. Imports everything, imported by nothing."""

from sparserl.cli.main import main

__all__ = ["main"]
