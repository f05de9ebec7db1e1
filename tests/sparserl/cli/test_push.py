"""`sparserl push`: what goes to the Hub, to one on this machine, and what is refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from support.envs import FunctionEnv
from support.hub_server import HubServer, hub_server
from support.runs import FAST, REWIRE, leave_undrawn, train

from sparserl.cli import main
from sparserl.extras import installer

SECRET = "hf_of_tests"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        assert train(path, *FAST, *REWIRE) == 0
    yield path
    gym.registry.pop("Tiny-v0")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, where everything goes that would go to the real one."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_a_run_arrives_with_its_card(run: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "--repo", "me/repo", "--private"]) == 0
    said = capsys.readouterr().out
    assert f"{len(hub.files)} files, {sum(map(len, hub.files.values())):,} bytes: {hub.url}/me/repo/commit/abc" in said
    assert {"README.md", "policy.safetensors", "policy.h", "config.yaml", "checkpoints/final/state.json"} <= {
        *hub.files
    }
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: sparserl\n")
    assert hub.files["eval.csv"] == (run / "eval.csv").read_bytes()
    (made,) = hub.created
    assert (made["name"], made["organization"]) == ("repo", "me")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert f"Bearer {SECRET}" in hub.tokens
    assert SECRET not in said
    assert not (run / "card").exists()


def test_a_card_arrives_as_it_was_edited(run: Path, hub: HubServer, tmp_path: Path) -> None:
    card = tmp_path / "card"
    assert main(["card", str(run), "--out", str(card)]) == 0
    edited = (card / "README.md").read_text().replace("## Results", "## What it reached")
    (card / "README.md").write_text(edited.replace("---\n", "---\nlicense: mit\n", 1))
    assert main(["push", str(card), "--repo", "me/repo"]) == 0
    assert hub.files == {str(file.relative_to(card)): file.read_bytes() for file in card.rglob("*") if file.is_file()}
    assert b"## What it reached" in hub.files["README.md"]


def test_the_policy_of_a_card_is_chosen(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = str(tmp_path / "card")
    assert main(["card", str(run), "--out", card]) == 0
    capsys.readouterr()
    assert main(["push", card, "--repo", "me/repo", "--checkpoint", "best", "--dry-run"]) == 2
    assert "is a card, whose policy is chosen; leave --checkpoint out" in capsys.readouterr().err


def test_a_dry_run_needs_no_library_no_token_and_no_network(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(["push", str(run), "--repo", "me/repo", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" bytes  README.md")
    assert lines[-1].endswith(" bytes, would go to me/repo")
    assert f"{(run / 'eval.csv').stat().st_size:,} bytes  eval.csv" in "\n".join(lines)


def test_without_the_library_it_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["push", str(run), "--repo", "me/repo"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sparserl: huggingface_hub is not installed; {installer()} ")
    assert said.count("\n") == 1


def test_without_a_token_it_is_one_line(
    run: Path, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main(["push", str(run), "--repo", "me/repo"]) == 2
    assert capsys.readouterr().err == (
        "sparserl: there is no token for the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN\n"
    )
    assert hub.asked == []


def test_what_the_hub_refuses_is_one_line(run: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    hub.refuses = 403
    assert main(["push", str(run), "--repo", "me/repo"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sparserl: the Hugging Face Hub did not take me/repo: ")
    assert "You are not allowed to" in said
    assert said.count("\n") == 1
    assert SECRET not in said


@pytest.mark.parametrize("repo", ["repo", "me/", "me/a/b", "https://huggingface.co/me/repo", "me/re po", ""])
def test_names_that_are_none(repo: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "--repo", repo, "--dry-run"]) == 2
    assert f"--repo must be NAME/REPO, e.g. me/hopper-sparse, got {repo!r}" in capsys.readouterr().err


def test_a_readme_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("# Mine\n\nlibrary_name: sparserl\n")
    assert main(["push", str(tmp_path), "--repo", "me/repo", "--dry-run"]) == 2
    assert "README.md is no model card of sparserl" in capsys.readouterr().err
