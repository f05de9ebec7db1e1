"""One level of sub-commands; every error of a user is one line and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.program import exit_status, load

COMMANDS = {
    "train": ("sparserl.cli.train", "train an agent, or resume a run"),
    "continual": ("sparserl.cli.continual", "learn a sequence of tasks, or resume a run"),
    "fit": ("sparserl.cli.fit", "train a classifier on a table, or resume a run"),
    "sweep": ("sparserl.cli.sweep", "train a grid of configs times seeds, several runs at a time"),
    "tune": ("sparserl.cli.tune", "search the values of a config that learn best"),
    "eval": ("sparserl.cli.evaluate", "evaluate the policy of a run"),
    "enjoy": ("sparserl.cli.enjoy", "watch the policy of a run, or write a video"),
    "export": ("sparserl.cli.export", "write the policy of a run as arrays, ONNX or C"),
    "prune": ("sparserl.cli.prune", "a smaller policy from a trained agent, as a run of its own"),
    "inspect": ("sparserl.cli.inspect", "which inputs a trained agent or classifier uses"),
    "plot": ("sparserl.cli.plot", "draw learning curves, topology and accuracies of runs"),
    "report": ("sparserl.cli.report", "compare runs with intervals over seeds: return, continual metrics, cost"),
    "card": ("sparserl.cli.card", "write the model card of a run, with its policy, into a folder"),
    "push": ("sparserl.cli.push", "upload a run with its model card to the Hugging Face Hub"),
    "dashboard": ("sparserl.cli.dashboard", "make the W&B workspace that shows runs"),
    "bench": ("sparserl.cli.bench", "time updates, kernels, scale and returns, sparse beside dense"),
    "doctor": ("sparserl.cli.doctor", "what this installation and machine have, for reports of bugs"),
    "completion": ("sparserl.cli.completion", "print what completes words in bash, zsh or fish"),
    "list": ("sparserl.cli.listing", "list algos, envs, sequences, methods or presets"),
}
"""Sub-command -> (module with `run(arguments) -> exit status`, summary). Modules load when they are needed."""


def usage() -> str:
    """The help text of `sparserl`."""
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return (
        "usage: sparserl COMMAND [options]\n\ncommands:\n"
        + "\n".join(lines)
        + ("\n\n`sparserl COMMAND --help` lists the options of a command.")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: Words after `sparserl`; those of the process if None.

    Returns:
        Exit status: 0 done; others as of `exit_status`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from sparserl import __version__

        print(__version__)
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise ConfigError(unknown_name("command", name, COMMANDS))
    for word in rest:
        if not word.isascii() and "\\udc" in ascii(word):  # bytes of no text, as Python passes them on
            raise ConfigError(f"{shown(word)} is not text in UTF-8")
    status: int = load(COMMANDS[name][0]).run(rest)
    return status
