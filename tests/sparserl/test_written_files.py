"""Files that users ask for: refused before the work, written as a whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.written_files import check_folder, check_writable, replacing, write_text


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reasons = {
        tmp_path: "it is a folder",
        tmp_path / "no" / "x": "there is no folder",
        tmp_path / "file" / "x": "there is no folder",
        Path("/dev/null"): "it is no plain file",
        Path("/proc/x"): "cannot write /proc/x: ",
    }
    for path, reason in reasons.items():
        with pytest.raises(ConfigError, match=reason):
            check_writable(path)
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    check_writable(None)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def full(*args: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for check in (check_writable, check_folder):
        with pytest.raises(ConfigError, match=r"cannot write .*x: No space left on device"):
            check(tmp_path / "x")  # type: ignore[operator]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot create .*file.runs: .*file is no folder"):
        check_folder(tmp_path / "file" / "runs")
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    check_folder(tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_what_is_written_in_part_is_not_there(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def write() -> None:
        with replacing(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise error

    with pytest.raises((ConfigError, KeyboardInterrupt, ValueError)):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "after é")
    assert path.read_text("utf-8") == "after é"


WORDS = {
    "export": ("export", "--run", "{run}", "--out", "{bad}"),
    "report": ("report", "{run}", "--json", "{bad}"),
    "report as a page": ("report", "{run}", "--html", "{bad}"),
    "plot": ("plot", "{run}", "--out", "{bad}.png"),
    "inspect": ("inspect", "--run", "{run}", "--out", "{bad}.png"),
    "bench": ("bench", "kernels", "--json", "{bad}"),
    "enjoy": ("enjoy", "--run", "{run}", "--video", "{bad}.mp4"),
    "dashboard": ("dashboard", "--dry-run", "--json", "{bad}"),
}


@pytest.mark.parametrize("command", WORDS)
def test_commands_refuse_before_they_work(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no run, so that work would be refused by another line."""
    bad = tmp_path / "no" / "x"
    assert main([word.format(run=tmp_path / "run", bad=bad) for word in WORDS[command]]) == 2
    assert f"cannot write {bad}" in capsys.readouterr().err


def test_a_sweep_refuses_its_folder_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "sweep.yaml").write_text("base: {algo: td3, env: Hopper-v5}\n")
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"sparserl: cannot create {tmp_path / 'file'}: {tmp_path / 'file'} is no folder\n"


def test_no_window_without_a_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo would end the process."""
    run = SimpleNamespace(chosen=lambda task: [0])
    monkeypatch.setattr("sparserl.experiment.opened_agent_run.open_trained", lambda path, which: run)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, said in (
        ("", "there is no display here"),
        (":9999", "no window can be opened on the display ':9999'"),
    ):
        monkeypatch.setenv("DISPLAY", display)
        assert main(["enjoy", "--run", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "--video" in err
