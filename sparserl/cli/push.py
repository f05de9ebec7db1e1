"""`sparserl push`: uploads a run, as its model card has it, to the Hugging Face Hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sparserl.cli.arguments import parse
from sparserl.cli.card import CARD, write_card
from sparserl.cli.options import Positional
from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.recording.run_folder import USUAL_CHECKPOINT, WhichCheckpoint

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""What `--repo` may be."""


@dataclass(frozen=True)
class PushCommand:
    """Upload a finished run with its model card to the Hugging Face Hub (extra `hub`); or the folder that `sparserl
    card` made, with whatever was changed there since."""

    run: Annotated[Path, Positional()]
    """Run folder, or the folder of its card."""
    repo: str
    """Repository at the Hub, NAME/REPO; made if there is none."""
    checkpoint: WhichCheckpoint | None = None
    """Which policy of a run, as of `sparserl card`; the last if None."""
    private: bool = False
    """Make a new repository private."""
    dry_run: bool = False
    """List what would be uploaded; needs neither a network nor a token."""

    def __post_init__(self) -> None:
        if not REPO.fullmatch(self.repo):
            raise ConfigError(f"--repo must be NAME/REPO, e.g. me/hopper-sparse, got {self.repo!r}")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl push`; returns the exit status."""
    command = parse(PushCommand, arguments, command="push")
    hub = None if command.dry_run else _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder, files = _files(command, Path(temporary) / "card")
        for file in files:
            print(f"{(folder / file).stat().st_size:>12,} bytes  {file}")
        total = sum((folder / file).stat().st_size for file in files)
        if hub is None:
            print(f"{len(files)} files, {total:,} bytes, would go to {command.repo}")
        else:
            print(f"{len(files)} files, {total:,} bytes: {_upload(hub, folder, command)}")
    return 0


def _files(command: PushCommand, made: Path) -> tuple[Path, list[Path]]:
    """The folder to upload, and its files, relative to it; of a run the folder is made."""
    card = command.run / CARD
    if not card.is_file():
        return made, write_card(command.run, made, command.checkpoint or USUAL_CHECKPOINT)
    if command.checkpoint is not None:
        raise ConfigError(f"{command.run} is a card, whose policy is chosen; leave --checkpoint out")
    if not re.match(r"---\n(?:(?!---).*\n)*library_name: sparserl\n", card.read_text(encoding="utf-8")):
        raise ConfigError(f"{card} is no model card of sparserl")
    return command.run, sorted(one.relative_to(command.run) for one in command.run.rglob("*") if one.is_file())


def _hub() -> Any:
    """The Hub, logged in to.

    Raises:
        ConfigError: If its library is not installed, or there is no token.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(f"huggingface_hub is not installed; {how_to_install('hub')} brings it") from None
    if huggingface_hub.get_token() is None:
        raise ConfigError("there is no token for the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN")
    return huggingface_hub.HfApi(library_name="sparserl")


def _upload(hub: Any, folder: Path, command: PushCommand) -> str:
    """Uploads a folder in one commit; returns its address."""
    try:
        hub.create_repo(command.repo, private=command.private or None, exist_ok=True)
        said = hub.upload_folder(
            repo_id=command.repo, folder_path=folder, commit_message=f"Run {command.run.resolve().name}"
        )
    except Exception as error:  # its own, of its network, of the server's answer
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"the Hugging Face Hub did not take {command.repo}: {reason}") from None
    return str(said.commit_url)
