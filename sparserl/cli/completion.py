"""`sparserl completion`: what a shell needs to complete commands, options and names.

Scripts hold every word, so that a shell asks no Python, which takes seconds to begin. What there is comes from the help
texts of the commands: those of every algorithm, and of every continual method.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

from sparserl.cli import listing
from sparserl.cli.arguments import HELP_ALL, asked_options, wants_help
from sparserl.cli.main import COMMANDS
from sparserl.cli.running import SHORT_NAMES
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.program import load
from sparserl.experiment.resolving import Kind, choose

Flags = dict[str, tuple[str, ...]]
"""Flag -> the words that may follow it; none where it takes a number or a file."""
LISTED = {"--algo": "algos", "--env": "envs", "--sequence": "sequences"}
"""Flag -> name of the list that has its words."""
HEADING = "sparserl "
"""How the heading of a list begins that is of one flag of one command."""


def flags_of(command: str) -> Flags:
    """Every flag of a command, whatever the algorithm or method."""
    flags: Flags = {}
    for words in _choosing(command):
        for option in asked_options(load(COMMANDS[command][0]).run, [*words, HELP_ALL]):
            if not option.is_positional:
                flags[option.flag] = option.words or flags.get(option.flag, ())
                if option.negative is not None:
                    flags[option.negative] = ()
    own = choose(command, {}).short if command in get_args(Kind) else {}  # type: ignore[arg-type]  # it is one of them
    for short, key in {**SHORT_NAMES, **own}.items():
        long = f"--{key.replace('_', '-')}"
        if long in flags:
            flags[f"--{short.replace('_', '-')}"] = flags[long]
    names = _names(command)
    return {flag: names.get(flag, words) for flag, words in flags.items()} | {"--help": ()}


def _choosing(command: str) -> list[list[str]]:
    """Words after which a command has options of its own."""
    if command == "train":
        return [["--algo", name] for name in _listed("algos")]
    if command == "continual":
        of_methods = listing.LISTS["methods"]()
        classifier, agent = (of_methods[f"sparserl continual --method{which}"] for which in ("", ", on environments"))
        return [["--method", name] for name in classifier] + [
            ["--sequence", "halfcheetah_forgetting", "--algo", "ds_sac", "--method", name] for name in agent
        ]
    return [[kind] for kind in first_words(command)] if command == "bench" else [[]]


def first_words(command: str) -> tuple[str, ...]:
    """What may stand right after a command, beside flags and files."""
    if command == "bench":
        return tuple(load(COMMANDS[command][0]).BENCHMARKS)
    return {"list": tuple(listing.LISTS), "completion": tuple(SHELLS)}.get(command, ())


def _listed(what: str) -> list[str]:
    names = (name for entries in listing.LISTS[what]().values() for name in entries)
    return [name for name in names if not name.endswith(".yaml")]


def _names(command: str) -> Flags:
    """Words that follow a flag, of those that `sparserl list` knows."""
    names: dict[str, list[str]] = {flag: _listed(what) for flag, what in LISTED.items()}
    for what in ("methods", "presets"):
        for heading, entries in listing.LISTS[what]().items():
            of, _, flag = heading.removeprefix(HEADING).partition(",")[0].partition(" ")
            if flag == "--topology.method" or of == command:
                names.setdefault(flag, []).extend(entries)
    if command == "fit":
        names["--method"] = names["--topology.method"]
    return {flag: tuple(dict.fromkeys(words)) for flag, words in names.items()}


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def bash(commands: Mapping[str, Flags]) -> str:
    """A script for bash; files are completed where nothing else fits."""
    after_flag = [
        f"    {shlex.quote(f'{command} {flag}')}) words={_quoted(words)} ;;"
        for command, flags in commands.items()
        for flag, words in flags.items()
        if words
    ]
    after_command = [
        f"    {shlex.quote(f'{command} -')}) words={_quoted(flags)} ;;" for command, flags in commands.items()
    ]
    first = [
        f"    {shlex.quote(f'{command} ')}) words={_quoted(words)} ;;"
        for command in commands
        if (words := first_words(command))
    ]
    return "\n".join(
        [
            "_sparserl() {",
            '  local now="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words="" kind=""',
            '  case "$now" in -*) kind="-" ;; esac',
            f'  if [ "$COMP_CWORD" -eq 1 ]; then words={_quoted([*commands, "--help", "--version"])}; else',
            '  case "${COMP_WORDS[1]} $before" in',
            *after_flag,
            '    *) case "${COMP_WORDS[1]} $kind" in',
            *after_command,
            *first,
            "    esac ;;",
            "  esac; fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$now"))',
            "}",
            "complete -o default -F _sparserl sparserl",
        ]
    )


def zsh(commands: Mapping[str, Flags]) -> str:
    """The same for zsh, which takes completions of bash."""
    head = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit"
    return f"{head}\n{bash(commands)}"


def fish(commands: Mapping[str, Flags]) -> str:
    """A script for fish."""
    lines = [
        f"complete -c sparserl -n __fish_use_subcommand -f -a {name} -d {shlex.quote(summary)}"
        for name, (_, summary) in COMMANDS.items()
    ]
    for command, flags in commands.items():
        seen = f"complete -c sparserl -n '__fish_seen_subcommand_from {command}'"
        if words := first_words(command):
            lines.append(f"{seen} -f -a {_quoted(words)}")
        for flag, words in flags.items():
            takes = f" -x -a {_quoted(words)}" if words else ""
            lines.append(f"{seen} -l {flag.removeprefix('--')}{takes}")
    return "\n".join(lines)


SHELLS: dict[str, Callable[[Mapping[str, Flags]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""Shell -> what writes its script."""
USAGE = """usage: sparserl completion bash|zsh|fish

Print a script that completes commands, options and names. It takes some seconds to make: keep it in a file.
  bash   sparserl completion bash > ~/.local/share/bash-completion/completions/sparserl
  zsh    sparserl completion zsh > ~/.sparserl.zsh; echo 'source ~/.sparserl.zsh' >> ~/.zshrc
  fish   sparserl completion fish > ~/.config/fish/completions/sparserl.fish"""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl completion`; returns the exit status."""
    if not arguments or wants_help(arguments[:1]):
        print(USAGE)
        return 0
    shell, *rest = arguments
    if shell not in SHELLS:
        raise ConfigError(unknown_name("shell", shell, SHELLS))
    if rest:
        raise ConfigError(f"unexpected word {rest[0]!r}")
    print(SHELLS[shell]({command: flags_of(command) for command in COMMANDS}))
    return 0
