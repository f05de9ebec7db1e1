"""`sparserl completion`: shells complete commands, options and names by a script that asks no Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sparserl.agents.table import AGENTS
from sparserl.cli import main
from sparserl.cli.completion import SHELLS, flags_of
from sparserl.cli.main import COMMANDS
from sparserl.experiment.presets import fit_presets, presets
from sparserl.topology.methods import METHODS

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_sparserl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    flags = {command: flags_of(command) for command in COMMANDS}
    for shell, write in SHELLS.items():
        (folder / shell).write_text(write(flags))
    return {shell: folder / shell for shell in SHELLS}


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    found = subprocess.run(
        ["bash", "-c", ASK, "bash", str(script), "sparserl", *words], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tr",), {"train"}),
        (("",), {*COMMANDS, "--help", "--version"}),
        (("train", "--algo", ""), set(AGENTS)),
        (("train", "--env", "Hopper-v"), {"Hopper-v4", "Hopper-v5"}),
        (("train", "--preset", ""), set(presets())),
        (("fit", "digits", "--preset", ""), set(fit_presets())),
        (("fit", "digits", "--method", ""), set(METHODS)),
        (("train", "--topology.method", ""), set(METHODS)),
        (("train", "--lr"), {"--lr-schedule"}),
        (("train", "--lr-schedule", ""), {"constant", "linear", "cosine"}),
        (("train", "--agent.target-pol"), {"--agent.target-policy-noise"}),  # of one algorithm
        (("continual", "--spacenet.ra"), {"--spacenet.rank"}),  # of one method
        (("continual", "--method", "spa"), {"spacenet"}),
        (("list", "a"), {"algos"}),
        (("bench", "k"), {"kernels"}),
        (("bench", "kernels", "--dens"), {"--densities"}),
        (("completion", ""), set(SHELLS)),
        (("eval", "--checkpoint", ""), {"best", "last"}),
        (("train", "--run-dir", "some"), set()),  # files, which bash offers itself
        (("train", "--no-prog"), {"--no-progress"}),
    ],
)
def test_bash_offers_what_fits(words: tuple[str, ...], offered: set[str], scripts: dict[str, Path]) -> None:
    assert completed(scripts["bash"], *words) == offered


def test_every_command_has_its_flags() -> None:
    for command in COMMANDS:
        assert "--help" in flags_of(command)
    assert {"--run", "--format", "--out"} <= set(flags_of("export"))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_scripts(shell: str, scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    subprocess.run([shell, "-n", str(scripts[shell])], check=True)


def test_fish_has_a_line_for_each_flag(scripts: dict[str, Path]) -> None:
    lines = scripts["fish"].read_text().splitlines()
    assert (
        "complete -c sparserl -n '__fish_seen_subcommand_from train' -l lr-schedule -x -a 'constant linear cosine'"
        in lines
    )
    assert all(line.startswith("complete -c sparserl ") for line in lines)


def test_what_is_no_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bahs"]) == 2
    assert "did you mean 'bash'" in capsys.readouterr().err
    assert main(["completion"]) == 0
    assert "usage: sparserl completion bash|zsh|fish" in capsys.readouterr().out
