"""`sparserl report`: what it prints and writes is what the metrics of the folders are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.rl_runs import write_rl_run
from support.train_runs import write_train_run

from sparserl.cli import report
from sparserl.errors import ConfigError
from sparserl.report.document import Document, IntervalChart

FINETUNE = [[0, 0], [80, 0], [150, 0], [50, 50], [10, 80]]
SCRATCH = [[0, 0], [50, 0], [150, 0], [0, 50], [0, 100]]
SOLVED = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [0.5, 1]]
SPARSE = {"method": "static", "density": 0.2}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def printed(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert report.run([str(word) for word in words]) == 0
    return "\n".join(line.strip() for line in capsys.readouterr().out.splitlines())


def row(text: str, start: str, nth: int = 0) -> list[str]:
    """Words of the nth line that starts with this cell, without it."""
    return [line.removeprefix(start).split() for line in text.splitlines() if f"{line} ".startswith(f"{start} ")][nth]


def row_below(text: str, start: str) -> str:
    """The line after the first one that starts so."""
    lines = text.splitlines()
    return lines[next(place for place, line in enumerate(lines) if line.startswith(start)) + 1]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two seeds of fine-tuning, one of EWC, two from scratch; random actions have -50 and 0."""
    scratch = {"method": "scratch", "random": (-50.0, 0.0)}
    return [
        *(write_rl_run(tmp_path / f"finetune{seed}", FINETUNE, seed=seed, deterministic=40.0) for seed in range(2)),
        write_rl_run(tmp_path / "ewc", FINETUNE, method="ewc"),
        *(write_rl_run(tmp_path / f"scratch{seed}", SCRATCH, seed=seed, **scratch) for seed in range(2)),
    ]


def test_the_table_of_returns(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *runs)
    assert "made_up, ds_sac: 2 tasks x 10 steps, against scratch, dense\n" in text
    assert text.index("finetune, dense (2 seeds)") < text.index("ewc, dense (1 seed)")
    # At the end 60 of 200 and 80 of 100, forgot 140 of 200; AUCs .825 and .65 against .75 and .75.
    assert row(text, "stochastic, normalised") == ["0.55", "0.55", "0.35", "-0.01"]
    assert row_below(text, "stochastic, normalised").split("   ")[0] == "[0.55, 0.55]"
    # As they are: 10 and 80 at the end, forgot 140 and 0; AUCs 115 and 65 against 100 and 75.
    assert row(text, "stochastic") == ["45.0", "45.0", "70.0", "2.5"]
    assert row(text, "deterministic") == ["85.0", "85.0", "70.0", "42.5"]
    # 100 of 200 and 120 of 100: the deterministic policy is normalised by the deterministic one from scratch.
    assert row(text, "deterministic, normalised")[0] == "0.85"
    assert row(text, "stochastic, normalised", nth=1) == ["0.55", "0.55", "0.35", "-0.01"]
    assert (
        "0 random actions, 1 scratch, dense (seeds 0, 1; density of actor 0.50, critic 0.72) at the end of a task"
        in text
    )
    assert "no interval (ewc, dense): one run" in text
    assert "order of the tasks" not in text


def test_the_table_of_costs(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *runs)
    # Parameters after the first and the last task, frozen, free, wall time: means of seeds 0 and 1.
    assert row(text, "finetune, dense (2 seeds)", nth=1) == ["actor", "0.50", "30", "..", "60", "4", "7", "100"]
    assert row(text, "ewc, dense (1 seed)", nth=1) == ["actor", "0.50", "30", "..", "60", "4", "7", "100"]
    assert text.count("wall time") == 1


def test_everything_is_in_the_json_file(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in written:
        assert f"wrote {path}" in printed(capsys, *runs, "--json", path)
    whole, again = (json.loads(path.read_text()) for path in written)
    assert whole["sections"] == again["sections"]  # repeats exactly
    assert (whole["last"], whole["resamples"], whole["level_percent"]) == (1, 4000, 90)
    (section,) = whole["sections"]
    assert section["reference"] == {"label": "scratch, dense", "seeds": [0, 1], "runs": list(map(str, runs[3:]))}
    assert [task["modification"] for task in section["tasks"]] == [{"gravity": 0.5}, {"gravity": 1.5}]
    finetune, ewc, _ = section["groups"]
    assert (finetune["method"], finetune["seeds"], finetune["runs"]) == ("finetune", [0, 1], list(map(str, runs[:2])))
    assert finetune["params_nonzero_per_task"] == [[30, 60], [30, 61]]
    assert finetune["wall_s"] == [100, 101]
    assert finetune["connections"][0] == {
        "owned": {"0": 22, "1": 24},
        "frozen": 4,
        "free": 7,
        "size": 78,
        "density": {"actor": 0.5, "critic": 23 / 32},
    }
    assert [(one["policy"], one["measure"]) for one in finetune["summaries"]] == [
        (policy, measure) for measure in ("normalised_return", "return") for policy in ("stochastic", "deterministic")
    ]
    stochastic = finetune["summaries"][0]
    assert stochastic["performance"]["value"] == pytest.approx(0.55)
    assert stochastic["per_task"]["forgetting"] == pytest.approx([0.7, 0])
    assert stochastic["forward_transfer"] == {"value": None, "low": None, "high": None}
    assert stochastic["per_task"]["forward_transfer"] == [None, None]
    assert "can exceed 1" in stochastic["undefined"]["forward_transfer"]
    assert ewc["summaries"][0]["performance"]["low"] is None
    assert ewc["summaries"][0]["undefined"]["performance interval"] == "one run"


def test_the_table_of_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = [[0, 0], [0.5, 0], [1, 0], [0, 0], [0, 0.5]]
    run = write_rl_run(tmp_path / "run", SOLVED, success=True)
    reference = write_rl_run(tmp_path / "scratch", scratch, method="scratch", success=True, deterministic=1.0)
    text = printed(capsys, run, reference)
    # At the end .5 and 1, forgot .5 and 0; AUCs .75 and .75 against .75 and .25.
    assert row(text, "stochastic") == ["0.75", "0.75", "0.25", "0.33", "0.25"]
    assert row(text, "deterministic") == ["0.00", "0.00", "0.00", "-", "-1.00"]
    assert row(text, "stochastic, last step") == ["0.00"] * 5
    assert "not normalised; AUCs against scratch, dense (seeds 0; density of actor 0.50, critic 0.72)" in text
    assert "no forward transfer (deterministic): the AUC from scratch is 1 on task 0" in text


def test_without_runs_from_scratch_returns_are_as_they_are(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, *runs[:3])
    assert row(text, "stochastic") == ["45.0", "45.0", "70.0", "-"]
    assert "compared with nothing: no runs of --method scratch given" in text
    assert "no forward transfer (AUC difference): no runs from scratch to compare with" in text


def test_a_reference_of_each_density(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubled = [[2 * value for value in row] for row in SCRATCH]
    sparse = write_rl_run(tmp_path / "sparse", doubled, method="scratch", topology=SPARSE)
    text = printed(capsys, *runs, sparse)
    assert "against scratch, dense\n" in text
    assert "against scratch, static density 0.2\n" in text
    assert text.count("wall time") == 1
    last = text[text.index("against scratch, static") :]
    assert row(last, "stochastic, normalised")[0] == "0.22"  # 10 of 300, 80 of 200


def test_two_sequences_are_two_tables(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_rl_run(tmp_path / "other", FINETUNE, steps=(5, 15))
    text = printed(capsys, *runs, other)
    assert "2 tasks x 10 steps, against" in text
    assert "2 tasks x 5 or 15 steps" in text
    assert "is no reference, steps per task [5, 15] and [10]" in text


def test_an_order_that_depends_on_the_seed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gravities = ({"gravity": 0.5}, {"gravity": 1.5})
    run = write_rl_run(tmp_path / "a", FINETUNE, modifications=gravities)
    turned = write_rl_run(tmp_path / "b", FINETUNE, modifications=gravities[::-1], seed=1)
    assert "the order of the tasks depends on the seed" in printed(capsys, run, turned)


def test_numbers_stay_whole_in_a_narrow_terminal(
    runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert "[0.55, 0.55]   [0.55, 0.55]   [0.35, 0.35]     [-0.01, -0.01]" in printed(capsys, *runs)


def test_a_reason_is_given_once_for_all_that_it_leaves_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_rl_run(tmp_path / "run", FINETUNE)]
    runs.append(write_rl_run(tmp_path / "scratch", SCRATCH, method="scratch", deterministic=-200.0))
    lines = printed(capsys, *runs).splitlines()
    everything = "performance, IQM, forgetting, forward transfer (AUC difference)"
    reason = "from scratch is not better than random actions on task 0: -50 and 0"
    assert f"no {everything} (deterministic, normalised): {reason}" in lines
    assert "no interval (stochastic, normalised; stochastic; deterministic): one run" in lines
    assert row("\n".join(lines), "deterministic")[0] == "45"


def test_brackets_in_a_label_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_rl_run(tmp_path / name, FINETUNE, method="ewc", of=f"[{name}]") for name in ("actor", "all")]
    text = printed(capsys, *runs)
    assert "ewc, dense, of [actor]" in text
    assert "no interval: one run" in text


# --- runs of `sparserl train` ------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder of two seeds of DS-TD3, two dense ones of TD3, and one of each that is not finished."""
    folder = tmp_path / "trained"
    for seed in range(2):
        write_train_run(folder / f"sparse{seed}", [0, 400 + 100 * seed], seed=seed, topology={"density": 0.1})
        write_train_run(folder / f"td3{seed}", [0, 500], seed=seed, algo="td3", result={"density": 1.0})
    write_train_run(folder / "sparse2", [0, 9000, 9000], seed=2, topology={"density": 0.1}, done=False)
    write_train_run(folder / "td32", [0, 9000], seed=2, algo="td3", done=False, threads=2)
    return folder


def test_trained_runs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, trained)
    assert "Hopper-v5: return" in text
    assert "ds_td3 d0.1 (2 seeds)" in text
    # 400 and 500 against 500 twice: one of two ties.
    assert row(text, "final return") == ["450", "450", "450", "0.25"]
    assert row_below(text, "final return").split("   ")[0] == "[400, 500]"
    assert row(text, "area under the curve") == ["225", "225", "225", "0.25"]
    assert row(text, "td3 (2 seeds)", nth=1) == ["1.000", "100", "1M", "10"]
    unfinished = [line for line in text.splitlines() if line.startswith("not finished, in no number: ")]
    assert [line.rpartition("/")[2] for line in unfinished] == [
        "sparse2 (ds_td3 d0.1, seed 2, step 20)",
        "td32 (td3, seed 2, step 10)",
    ]


def test_a_baseline_of_ones_own(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, trained, "--baseline", "ds_td3 d0.1")
    assert row(text, "final return", nth=1) == ["500", "500", "500", "0.75"]


def test_unfinished_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_train_run(tmp_path / "a", [0, 1], done=False), write_rl_run(tmp_path / "b", FINETUNE)]
    (runs[1] / "DONE").unlink()
    (runs[1] / "result.json").unlink()
    lines = printed(capsys, *runs).splitlines()
    assert [line.rpartition("/")[2] for line in lines] == [
        "a (ds_td3 d0.5, seed 0, step 10)",
        "b (finetune, seed 0, step 20)",
    ]


def test_all_kinds_are_parts_of_one_report(
    runs: list[Path], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.json"
    text = printed(capsys, *runs, trained, "--json", path)
    assert text.index("Hopper-v5: return") < text.index("made_up, ds_sac: 2 tasks")
    whole = json.loads(path.read_text())
    (comparison,) = whole["trained"]["comparisons"]
    assert comparison["groups"][0]["runs"] == [[str(trained / "sparse0")], [str(trained / "sparse1")]]
    assert (whole["trained"]["level_percent"], whole["level_percent"]) == (95, 90)
    assert len(whole["sections"]) == 1
    listed = {Path(one["path"]).name: (one["label"], one["status"]) for one in whole["runs"]}
    assert len(listed) == len(runs) + 6
    assert listed["finetune0"] == ("finetune, dense", "done")
    assert listed["sparse0"] == ("ds_td3 d0.1", "done")
    assert listed["sparse2"] == ("ds_td3 d0.1", "unfinished")


def test_a_page_is_made_of_the_same_document(
    runs: list[Path],
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[Document, Path]] = []
    page = SimpleNamespace(write_page=lambda document, path: given.append((document, path)))
    monkeypatch.setitem(sys.modules, "sparserl.report.page", page)
    text = printed(capsys, *runs, trained, "--html", tmp_path / "page.html")
    ((document, path),) = given
    assert path == tmp_path / "page.html"
    assert f"wrote {path}" in text
    assert document.command == f"sparserl report {' '.join(map(str, [*runs, trained]))} --html {path}"
    assert (document.title, len(document.runs)) == ("11 runs", 11)
    of_trained, of_agents = document.sections
    assert of_trained.title.startswith("Hopper-v5")
    assert of_agents.title == "made_up, ds_sac"
    assert [chart.title for chart in of_agents.charts] == [
        f"{head}, against scratch, dense"
        for head in ("Performance", "IQM", "Forgetting", "Forward transfer (AUC difference)")
    ]
    performance = of_agents.charts[0].drawing
    assert isinstance(performance, IntervalChart)
    assert [(row.label, round(row.value, 3)) for row in performance.rows] == [
        ("finetune, dense", 0.55),
        ("ewc, dense", 0.55),
        ("scratch, dense", 0.625),
    ]


def test_env_versions_of_continual_runs_are_not_mixed_in_silence(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for run, version in zip(runs, ("3.3.0", "3.2.0"), strict=False):
        (run / "versions.json").write_text(json.dumps({"mujoco": version}))
    with pytest.raises(ConfigError, match=r"finetune0 has mujoco 3\.3\.0, .*finetune1 has 3\.2\.0; .* --allow-mixed$"):
        report.run(list(map(str, runs)))
    assert "compared all the same: " in printed(capsys, *runs, "--allow-mixed")


def test_bad_input_of_trained_runs(trained: Path, tmp_path: Path) -> None:
    other = write_train_run(tmp_path / "other", [1, 2], env="Hopper-v4", seed=5)
    wrong = write_train_run(tmp_path / "wrong", [1, 2], algoo="td3")
    for words, message in (
        ([trained, "--baseline", "ds_td3"], r"unknown group for --baseline 'ds_td3'; did you mean 'ds_td3 d0\.1'\?"),
        (
            [trained / "sparse2", "--baseline", "td3"],
            "--baseline is a group of runs of `sparserl train`, but no such run",
        ),
        ([trained, other], "has env Hopper-v5, .*other has Hopper-v4; leave one out, by --where env=Hopper-v5, or "),
        ([trained, "--last", "5"], "--last 5 is of continual runs of agents, but no such run here is finished"),
        ([wrong], r"wrong: unknown config key 'algoo'; did you mean 'algo'\?"),
        ([trained / "sparse0" / "nothing"], "no run folder at"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            report.run(list(map(str, words)))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one run folder"),
        (["nowhere"], "no run folder at nowhere"),
        (["{run}", "--last", "0"], "--last must be at least 1, got 0"),
        (
            ["{run}", "--last", "3"],
            "run: task 0 has 2 evaluations in its own interval, too few for a mean of the last 3",
        ),
        (["{run}", "--jsn", "a.json"], "--json"),
        (["{run}", "--json", "{run}/no/such/folder.json"], r"cannot write .*folder\.json: there is no folder"),
        (["{run}", "{run}"], "are both seed 0 of finetune, dense"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], message: str) -> None:
    run = write_rl_run(tmp_path / "run", FINETUNE)
    with pytest.raises(ConfigError, match=message) as refusal:
        report.run([word.format(run=run) for word in words])
    assert "\n" not in str(refusal.value)
