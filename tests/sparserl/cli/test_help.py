"""`--help` of `train` and `continual`: short, of the run that is asked about, with the values that hold."""

from __future__ import annotations

import re

import pytest

from sparserl.cli import main


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


def flags(text: str) -> set[str]:
    return set(re.findall(r"^  (--[\w.-]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("train", "--algo", "ds_sac"),
        ("train", "--algo", "td3"),
        ("continual",),
        ("continual", "--sequence", "split_mnist", "--method", "ewc"),
        ("continual", "--sequence", "halfcheetah_forgetting", "--method", "packnet"),
        ("fit",),
        ("fit", "wine", "--method", "rigl"),
    ],
    ids=" ".join,
)
def test_what_most_people_change_fits_a_screen_and_is_a_part_of_all(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    short, whole = help_of(capsys, *words, "--help"), help_of(capsys, *words, "--help-all")
    assert len(short.splitlines()) < 60
    assert max(map(len, short.splitlines())) <= 120
    assert flags(short) < flags(whole)
    assert f"--help-all shows all {len(flags(whole))}" in " ".join(short.split())


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("words", [("train",), ("fit",), ("bench", "update")], ids=" ".join)
def test_no_line_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_of(capsys, *words, "--help").splitlines()
    assert max(map(len, lines)) <= min(columns, 120)


def test_a_narrow_terminal_still_has_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert "--total-steps" in help_of(capsys, "train", "--help")


def test_values_are_those_of_the_preset_and_of_flags(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "train", "--algo", "ds_sac", "--env", "Hopper-v5", "--agent.batch-size", "77", "--help")
    assert re.search(r"--agent\.batch-size INT .*\(77\)", text)
    assert re.search(r"--algo STR .*\(ds_sac\)", text)
    assert "preset ds_sac/Hopper-v5" in " ".join(text.split())


def test_only_the_chosen_method_and_learner_have_options(capsys: pytest.CaptureFixture[str]) -> None:
    of_classifier = help_of(capsys, "continual", "--sequence", "split_mnist", "--method", "ewc", "--help-all")
    of_agent = help_of(capsys, "continual", "--sequence", "cw10", "--method", "ewc", "--help-all")
    of_another = help_of(capsys, "continual", "--sequence", "split_mnist", "--method", "si", "--help-all")
    assert {flag for flag in flags(of_classifier) if flag.startswith("--ewc.")} == {
        "--ewc.strength",
        "--ewc.fisher-samples",
        "--ewc.fisher-labels",
    }
    assert {flag for flag in flags(of_agent) if flag.startswith("--ewc.")} == {
        "--ewc.strength",
        "--ewc.critics",
        "--ewc.samples",
    }
    assert not [flag for flag in flags(of_another) if flag.startswith("--ewc.")]
    assert [flag for flag in flags(of_another) if flag.startswith("--si.")]
    assert "--learner.epochs" in flags(of_classifier) - flags(of_agent)
    assert "--agent.gamma" in flags(of_agent) - flags(of_classifier)
    assert "--data-dir" in flags(of_classifier) - flags(of_agent)
