"""`train`, `continual` and `fit`: what a command line wishes, its help text, and the run that it begins or resumes."""

from __future__ import annotations

import dataclasses
import operator
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from sparserl.cli.arguments import HELP, HELP_ALL, given, last_value, print_help, wants_help
from sparserl.cli.options import Option, options_of
from sparserl.cli.tables import titled_table
from sparserl.config import build, nested
from sparserl.errors import ConfigError
from sparserl.experiment.config_layers import Choice, in_groups, over, refuse_density_of_dense
from sparserl.experiment.origin_config import OriginConfig
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.resolving import Kind, choose, read_config
from sparserl.experiment.run_config import kind_in, recorded_config
from sparserl.experiment.runs import begin, go_on, train
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.training import Shown, Source
from sparserl.ranges import CountOrZero, check_ranges
from sparserl.recording.run_folder import LENGTH, RunFolder

CHOOSING = ("algo", "env", "sequence", "method", "scenario")
"""Options that decide which others there are."""
WITH_RESUME = ("resume", "from_step", "progress")
OF_DATA = ("data_dir", "download")
"""Options that classifiers alone have."""
OF_CLASSIFIERS = ("continual", "fit")
"""Kinds of runs that have them."""
POSITIONAL = {"fit": "data"}
"""Command -> the option that is given without its name, and decides the preset."""
OLD_NAMES = {"learner.density": "topology.density"}
"""Options that go by another name now, which `resolve` knows by both."""
SHORT_NAMES = {"from": "origin.run", "lr_schedule": "agent.learning_rate_schedule"}
"""Flags that stand for an option with a longer name."""
NORMALIZE = "--wrappers.normalize-observations running, and --wrappers.normalize-rewards 0.99 for rewards"
OF_OTHERS: Mapping[str, Mapping[str, str]] = {
    "train": {
        "--vec-normalize": NORMALIZE,
        "--normalize": NORMALIZE,
        "--n-timesteps": "--total-steps",
        "--total-timesteps": "--total-steps",
        "--eval-freq": "--eval.every-steps",
        "--eval-episodes": "--eval.episodes",
        "--save-freq": "--checkpoint-every-steps",
        "--num-threads": "--threads",
        "--num-envs": "--n-envs",
        "--tensorboard-log": "--tensorboard, in the folder that --run-dir names",
        "--policy-kwargs": "--agent.net-arch, for the widths of hidden layers",
        "--hyperparams": "a flag for each, such as --agent.gamma, or --config FILE",
        "--trained-agent": "--resume DIR to go on with a run, or --from DIR to begin with its networks",
        "--wandb-project-name": "--wandb.project",
    }
}
"""Command -> flags that it has in Stable-Baselines3's zoo or in CleanRL -> what they are here."""
OF_ORIGIN = ("from", *(f"origin.{field.name.replace('_', '-')}" for field in dataclasses.fields(OriginConfig)))
"""Flags that say with which networks a run begins, and so what lies beneath its config."""
LONGEST_BRIEF = 100
"""Characters of a help text that begins with an explanation; of a longer one only what it explains is said."""


@dataclass(frozen=True)
class RunCommand:
    """What a command line says of a run beside its config."""

    preset: str | None = None
    """Preset to start from, see `sparserl list presets`; the one that fits the run if None."""
    config: Path | None = None
    """YAML file over the preset; the config.yaml of an earlier run repeats it."""
    resume: Path | None = None
    """Run folder to continue from its newest checkpoint; takes no other option but --from-step, --progress, --data-dir
    where there is one, and --total-steps N, which makes a run of `train` longer, finished or not."""
    from_step: CountOrZero | None = None
    """With --resume: continue from the checkpoint of this step instead. What is newer is set aside in the folder."""
    run_dir: Path | None = None
    """Folder of the run, which must not exist; runs/<name>__s<seed> (or the next free number) if None."""
    progress: bool = True
    """Draw a progress bar."""
    dry_run: bool = False
    """Print the resolved config and stop."""
    data_dir: Path | None = None
    """Folder that holds a folder for each data set, e.g. mnist; $SPARSERL_DATA, or the user's cache, if None."""
    download: bool = False
    """Fetch missing data into that folder first."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.from_step is not None and self.resume is None:
            raise ConfigError("--from-step is for a run that goes on: add --resume DIR")


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        options: Beside the config.
        config: Of the new run; None with `--resume`.
        preset: That the config lies over, if any.
        total_steps: That a run which goes on is to have; None: those of its config.
    """

    options: RunCommand
    config: Any
    preset: str | None
    total_steps: int | None = None


@dataclass(frozen=True)
class Help:
    """What a command says of itself.

    Attributes:
        about: What it does.
        usual: Dotted keys, or groups, of the options that most people change; those that a run lacks are left out.
        end: What else there is to know.
    """

    about: str
    usual: Sequence[str]
    end: str


def read(kind: Kind, arguments: Sequence[str], help: Help | None = None) -> Request:
    """What a command line asks for, resolved.

    Args:
        kind: The sub-command.
        arguments: Its words.
        help: What is printed if they ask for it.

    Raises:
        ConfigError: If a name, key or value is wrong, or an option is of another method.
        SystemExit: With status 0 after help.
    """
    words = [word for word in arguments if word not in (*HELP, HELP_ALL)]
    options = options_of(RunCommand)
    resume = last_value("resume", words)
    if resume is not None and not wants_help(arguments):
        has_data = kind != "train" and _reads_data(Path(resume))
        allowed = {key: options[key] for key in (*WITH_RESUME, *(OF_DATA[:1] if has_data else ()))}
        if kind == "train":
            allowed[LENGTH] = options_of(TrainConfig)[LENGTH]
        said = _resuming(words, allowed)
        total_steps = said.pop(LENGTH, None)
        return Request(build(RunCommand, said), None, None, total_steps)
    file = last_value("config", words)
    below = {} if file is None else read_config(Path(file))
    names: dict[str, Any] = {name: value for name in CHOOSING if (value := last_value(name, words)) is not None}
    if kind == "train":
        names = over(_origin(words), names)
    preset, positional = last_value("preset", words), POSITIONAL.get(kind)
    choice = choose(kind, over(below, names), preset)
    if kind == "train" or "agent" in choice.schemas:
        options = {key: option for key, option in options.items() if key not in OF_DATA}
    of_config = options_of(choice.schema, choice.schemas)
    if positional is not None:
        of_config[positional] = dataclasses.replace(of_config[positional], is_positional=True)
    short = {name: key for name, key in {**SHORT_NAMES, **choice.short}.items() if key in of_config}
    other_names = {name: key for name, key in {**OLD_NAMES, **short}.items() if key in of_config}
    others = {name: dataclasses.replace(of_config[key], key=name) for name, key in other_names.items()}
    values = given(words, {**others, **options, **of_config}, OF_OTHERS.get(kind))
    if positional in values:
        choice = choose(kind, {**below, positional: values[positional]}, preset)
    of_command = {key: values.pop(key) for key in options if key in values}
    wishes = in_groups(nested(values), short)
    config = choice.resolve(over(in_groups(below, choice.short), wishes))
    if help is not None and wants_help(arguments):
        _print_help(kind, help, choice, config, [*options.values(), *of_config.values()], HELP_ALL in arguments)
        raise SystemExit(0)
    _refuse_untracked(values, config)
    refuse_density_of_dense(wishes.get("topology", {}))
    return Request(build(RunCommand, of_command), config, choice.preset)


def _reads_data(path: Path) -> bool:
    """Whether a run may be one of a classifier."""
    return not (path / "config.yaml").exists() or kind_in(RunFolder(path)) in OF_CLASSIFIERS


def _origin(words: Sequence[str]) -> dict[str, Any]:
    """What flags say of the networks that a run begins with, as a config file would."""
    said = {flag: value for flag in OF_ORIGIN if (value := last_value(flag, words)) is not None}
    return nested({SHORT_NAMES.get(flag, flag.replace("-", "_")): value for flag, value in said.items()})


def _resuming(words: Sequence[str], known: Mapping[str, Option]) -> dict[str, Any]:
    """What is said of a run that goes on; refuses a flag that would change it."""
    flags = {flag for option in known.values() for flag in (option.flag, option.negative)}
    for word in words:
        if word.startswith("--") and word.split("=")[0].replace("_", "-") not in flags:
            raise ConfigError(f"--resume continues the run as it was configured and takes no {word}")
    return given(words, known)


def _refuse_untracked(keys: Iterable[str], config: RunConfig) -> None:
    """Raises ConfigError if flags say where a run is tracked that is not.

    A config file may say so: it is for several runs, or of one that took it from the environment.
    """
    for key in keys:
        if key.startswith(("wandb.", "trackio.")):
            config.refuse_untracked(key)


def _print_help(
    kind: Kind, help: Help, choice: Choice, config: RunConfig, options: Iterable[Option], whole: bool
) -> None:
    of_config = {field.name for field in dataclasses.fields(choice.schema)}
    config = config.resolved()
    plain = config.plain()
    there = {}
    for option in options:
        group = option.key.split(".")[0]
        if group not in of_config:
            there[option.key] = option
        elif group not in choice.unused and _has(plain, option.key):
            there[option.key] = dataclasses.replace(option, default=operator.attrgetter(option.key)(config))
    end = f"In brackets stands what holds otherwise: of the preset {choice.preset} or usual." if choice.preset else ""
    if whole:
        print_help(kind, help.about, there.values(), f"{end} {help.end}")
        return
    usual = [key for name in dict.fromkeys(help.usual) for key in there if key == name or key.startswith(f"{name}.")]
    brief = [
        there[key] if there[key].is_positional else dataclasses.replace(there[key], text=_brief(there[key].text))
        for key in usual
    ]
    count = sum(not option.is_positional for option in there.values())
    more = f"These are what most people change; --help-all shows all {count}."
    print_help(kind, help.about, brief, f"{more} {end} {help.end}")


def _has(plain: Mapping[str, Any], key: str) -> bool:
    """Whether a config in plain data has a dotted key: that of a run lacks what other methods and learners have."""
    data: Any = plain
    for name in key.split("."):
        if not isinstance(data, Mapping) or name not in data:
            return False
        data = data[name]
    return True


def _brief(text: str) -> str:
    """The beginning of a help text, up to where details begin; whom it is for is known."""
    text = re.sub(r"^(Agents|Classifiers): ", "", " ".join(text.split()))
    text = text[:1].upper() + text[1:]
    for end in (r"(?<!e\.g)\. ", "; ", ", see ", *([r"(?<=.{20}): "] if len(text) > LONGEST_BRIEF else [])):
        text = re.split(end, text)[0]
    return text.rstrip(".")


def carry_out_command(kind: Kind, arguments: Sequence[str], help: Help, shown: Shown) -> int:
    """Begins a run or goes on with one.

    Args:
        kind: The sub-command.
        arguments: Its words.
        help: What is printed if they ask for it.
        shown: Prints a result.

    Returns:
        Exit status.
    """
    request = read(kind, arguments, help)
    options = request.options
    source = Source(options.config, options.data_dir, options.download)
    how: dict[str, Any] = {"show_progress": options.progress, "shown": shown}
    if options.resume is not None:

        def begun(step: int) -> None:
            print(f"resuming {options.resume} at step {step}")

        further: dict[str, Any] = {"total_steps": request.total_steps, "command": kind}
        go_on(options.resume, options.from_step, source, **further, begun=begun, **how)
        return 0
    training = begin(request.config, source)
    config = training.config
    if options.dry_run:
        print(yaml.safe_dump(config.plain(), sort_keys=False), end="")
        return 0

    def new(folder: RunFolder) -> None:
        print(f"{config.name} seed {config.seed}, {config.threads} thread(s), preset {request.preset}")
        print("\n".join([*training.about, f"run folder {folder.path}"]))

    train(training, options.run_dir, shlex.join(["sparserl", kind, *arguments]), begun=new, **how)
    return 0


def parameters_of(result: Mapping[str, Any]) -> str:
    """How many parameters a run has of those of dense networks, and how many passes use where these are fewer."""
    stored, used, dense = (result[f"params_{which}"] for which in ("nonzero", "used", "dense"))
    return f"{stored:,} of {dense:,} ({stored / dense:.1%})" + ("" if used == stored else f", {used:,} in use")


def result_table(folder: RunFolder, rows: Mapping[str, str]) -> Table:
    """The result of a run as names and values; a value that is empty is left out."""
    table = titled_table(recorded_config(folder).title, show_header=False)
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table
