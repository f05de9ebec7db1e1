"""`sparserl dashboard`: makes the W&B workspace that shows the runs of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparserl.cli.arguments import parse
from sparserl.recording import wandb_environment
from sparserl.recording.wandb_workspace import SECTIONS, model_json, save, workspace
from sparserl.written_files import check_writable, write_text


@dataclass(frozen=True)
class DashboardCommand:
    """Make a W&B workspace: headline, sparsity, learning, continual, cost, optimisation, video (extra `dashboard`)."""

    project: str = field(default_factory=wandb_environment.project)
    """Project whose runs it shows; what --wandb.project of the runs was. WANDB_PROJECT if not given."""
    entity: str | None = field(default_factory=wandb_environment.entity)
    """Team or user; the account's default if None. WANDB_ENTITY if not given."""
    dry_run: bool = False
    """Print the panels and what they show, and send nothing."""
    json: Path | None = None
    """Also write W&B's model of the workspace to this file."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl dashboard`; returns the exit status."""
    command = parse(DashboardCommand, arguments, command="dashboard")
    check_writable(command.json)
    made = workspace(command.project, command.entity)
    if command.json is not None:
        write_text(command.json, model_json(made))
        print(f"wrote {command.json}")
    if command.dry_run:
        for section, panels in SECTIONS.items():
            print(section)
            for panel in panels:
                print(f"  {panel.title}: {', '.join(panel.names)}")
        return 0
    print(save(made))
    return 0
