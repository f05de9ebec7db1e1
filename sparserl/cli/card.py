"""`sparserl card`: the model card of a run, with its policy, in a folder as the Hugging Face Hub has it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml

from sparserl.cli.arguments import parse
from sparserl.cli.options import Positional
from sparserl.errors import ConfigError
from sparserl.experiment.input_files import INPUTS
from sparserl.experiment.opened_agent_run import OpenedAgentRun
from sparserl.experiment.opened_run import OpenedRun
from sparserl.experiment.opening import open_run
from sparserl.experiment.run_config import kind_in
from sparserl.export import ExportedPolicy, c_header, save_tensors
from sparserl.recording.run_folder import BEST, RunFolder, WhichCheckpoint, last_checkpoint
from sparserl.recording.run_logs import read_columns
from sparserl.report.model_card import CardFacts, Measured, model_card, of_episodes, of_result
from sparserl.text_files import read_json
from sparserl.written_files import check_folder

CARD = "README.md"
KEPT = ("*.csv", "versions.json", "result.json", "normalization.json", "sequence.yaml", "plot.png", "DONE")
"""Files of a run that go beside the card as they are: those that name no place on this machine."""


@dataclass(frozen=True)
class CardCommand:
    """Write the model card of a finished run (README.md with YAML front matter) into a folder, beside its policy as
    safetensors and C header and what is needed to evaluate it: as `sparserl push` uploads it."""

    run: Annotated[Path, Positional()]
    """Run folder."""
    out: Path | None = None
    """Folder to make; RUN/card if None."""
    checkpoint: WhichCheckpoint = "last"
    """Which policy: the last, or the best by evaluation, whose return is then too high by that choice."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl card`; returns the exit status."""
    command = parse(CardCommand, arguments, command="card")
    out = command.out or command.run / "card"
    for file in write_card(command.run, out, command.checkpoint):
        print(out / file)
    return 0


def write_card(path: Path, out: Path, which: WhichCheckpoint) -> list[Path]:
    """Makes a folder with the card of a run and all that belongs to it.

    Args:
        path: Run folder.
        out: Folder to make.
        which: Checkpoint; of a run that has no best one the last.

    Returns:
        Its files, relative to it, the card first.

    Raises:
        ConfigError: If the run is not finished, or the folder exists or cannot be written.
        CheckpointError: If the checkpoint is missing or damaged.
    """
    folder = RunFolder.open(path)
    if not folder.is_done:
        raise ConfigError(f"{path} is not finished, and a card says what a run has reached: continue it with --resume")
    if out.exists():
        raise ConfigError(f"{out} exists; delete it, or choose another --out")
    check_folder(out)
    opened = open_run(path, which)
    files, facts = _facts(folder, opened)
    out.mkdir(parents=True)
    try:
        _fill(out, folder, opened.which, files, facts)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    written = sorted(file.relative_to(out) for file in out.rglob("*") if file.is_file())
    return sorted(written, key=lambda file: file != Path(CARD))


def _facts(folder: RunFolder, opened: OpenedRun[Any]) -> tuple[dict[str, str], CardFacts]:
    """Names and texts of C headers, and what the card says."""
    kind, config = kind_in(folder), opened.config
    result = read_json(folder.path / "result.json")
    policies, headers, notes = _policies(opened)
    parts = [result[key] for key in ("method", "algo") if key in result]  # of agents on tasks both
    facts = CardFacts(
        kind=kind,
        name=config.name,
        task=config.task_label,
        method=" with ".join(parts),
        topology=config.topology.method,
        seed=config.seed,
        step=opened.step,
        which=opened.which,
        measured=_measured(folder, opened, result),
        result=result,
        versions=read_json(folder.path / "versions.json"),
        policies=policies,
        c_functions={name: header.function for name, header in headers.items()},
        notes=notes,
    )
    return {name: header.text for name, header in headers.items()}, facts


def _policies(opened: OpenedRun[Any]) -> tuple[dict[str, ExportedPolicy], dict[str, Any], list[str]]:
    """Policies by file name, C headers of those that can be such, and what cannot be written."""
    if not isinstance(opened, OpenedAgentRun):
        return {}, {}, ["A network that is no agent has no policy: there is no file of it without sparserl."]
    policies: dict[str, ExportedPolicy] = {}
    headers: dict[str, Any] = {}
    notes = []
    for task in range(len(opened.tasks)):
        name = "policy" if len(opened.tasks) == 1 else f"policy_{task}"
        try:
            policies[name] = opened.exported(task)
            headers[name] = c_header(policies[name], name)
        except ConfigError as error:
            what = f"`{name}.h`" if name in policies else f"`{name}.safetensors`"
            notes.append(f"There is no {what}: {error}.")
    return policies, headers, notes


def _measured(folder: RunFolder, opened: OpenedRun[Any], result: dict[str, Any]) -> list[Measured]:
    kind = kind_in(folder)
    if kind != "train":
        return of_result(kind, result, opened.which)
    evaluations = read_columns(folder.path / "eval.csv")
    returns = evaluations["return"][evaluations["global_step"] == opened.step]
    return [of_episodes(returns.tolist())] if returns.size else []


def _fill(out: Path, folder: RunFolder, which: str, headers: dict[str, str], facts: CardFacts) -> None:
    (out / CARD).write_text(model_card(facts), encoding="utf-8")
    for name, policy in facts.policies.items():
        save_tensors(policy, out / f"{name}.safetensors")
    for name, text in headers.items():
        (out / f"{name}.h").write_text(text)
    for pattern in KEPT:
        for file in folder.path.glob(pattern):
            shutil.copyfile(file, out / file.name)
    (out / "config.yaml").write_text(_without_places(folder))
    checkpoint = folder.checkpoints / BEST if which == "best" else last_checkpoint(folder)
    for part in (checkpoint, folder.path / INPUTS):
        if part is not None and part.is_dir():
            shutil.copytree(part, out / part.relative_to(folder.path))


def _without_places(folder: RunFolder) -> str:
    """The config; of the run with whose networks this one begins its name alone, not where on this machine it is."""
    text = (folder.path / "config.yaml").read_text()
    config = yaml.safe_load(text)
    origin = (config.get("origin") or {}).get("run")
    if origin is None:
        return text
    config["origin"]["run"] = Path(origin).name
    shown: str = yaml.safe_dump(config, sort_keys=False)
    return shown
