"""Pictures of runs: what is drawn is what the CSV files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.figures import lines_of

from sparserl.errors import ConfigError
from sparserl.plots import curves as plots
from sparserl.plots.curves import plot_runs
from sparserl.plots.style import COLOURS, FORMATS, PictureOptions, Run, draw_curves, line_styles, percent_ticks
from sparserl.recording.run_logs import FloatArray, evaluation_curve

SEEN = {
    "normal": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What eyes make of linear sRGB: Machado et al. 2009, "A physiologically-based model for simulation of color vision
deficiency", severity 1."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

PROGRESS = "global_step,topology/density,topology/explored_fraction,time/elapsed_s\n"


def run_folder(path: Path, returns: Mapping[int, Sequence[float]], progress: str = "") -> Path:
    path.mkdir()
    rows = [f"{step},{i},{value},10" for step, values in returns.items() for i, value in enumerate(values)]
    (path / "eval.csv").write_text("global_step,episode,return,length\n" + "\n".join(rows) + "\n")
    (path / "progress.csv").write_text(PROGRESS + (progress or "100,0.5,0.5,2\n200,0.5,0.75,6\n"))
    return path


def axis_of(**seeds: Sequence[tuple[float, float]]) -> Axes:
    """A panel with a curve of some seeds, each a list of points."""
    axis = Figure().subplots()
    curves = {Run(Path(name), "m"): (np.array(points).T[0], np.array(points).T[1]) for name, points in seeds.items()}
    draw_curves(axis, curves, "m", line_styles(["m"])["m"])
    return axis


def band_of(axis: Axes) -> list[tuple[float, float, float]]:
    """x, low and high of the shaded band."""
    (band,) = axis.collections
    (path,) = band.get_paths()
    points = np.asarray(path.vertices)
    return [
        (float(x), *(float(end(points[points[:, 0] == x, 1])) for end in (np.min, np.max)))
        for x in np.unique(points[:, 0])
    ]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- a curve of several seeds -----------------------------------------------------------------------


def test_evaluation_curve_is_the_mean_over_episodes(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0, 3.0], 100: [10.0, 30.0]})
    steps, means = evaluation_curve(run)
    assert steps.tolist() == [0, 100]
    assert means.tolist() == [2.0, 20.0]


def test_two_seeds_have_a_band_from_one_to_the_other() -> None:
    # Of the means of two seeds that are drawn from two, a quarter is each seed's own: more than 2.5 %.
    axis = axis_of(a=[(0, 0), (10, 4)], b=[(0, 2), (10, 4)])
    assert lines_of(axis) == {"m (n = 2)": [[0, 1], [10, 4]]}
    assert band_of(axis) == [(0, 0, 2), (10, 4, 4)]


def test_the_band_is_an_interval_of_the_mean() -> None:
    # One seed of five has 10, the others 0: a mean is 2 k, k of Binomial(5, 1/5), P(k <= 2) = .942, P(k <= 3) = .993.
    seeds = {name: [(0.0, 10.0 * (name == "e"))] for name in "abcde"}
    assert band_of(axis_of(**seeds)) == [(0, 0, 6)]


def test_one_seed_has_no_band() -> None:
    axis = axis_of(a=[(0, 1), (10, 3)])
    assert lines_of(axis) == {"m (n = 1)": [[0, 1], [10, 3]]}
    assert list(axis.collections) == []
    assert plots.legend_title(axis) is None


def test_between_two_evaluations_a_seed_is_on_the_line_between_them() -> None:
    axis = axis_of(a=[(0, 0), (10, 10)], b=[(0, 4), (5, 4), (10, 0)])
    assert lines_of(axis)["m (n = 2)"] == [[0, 2], [5, 4.5], [10, 5]]


def test_a_seed_that_has_come_further_goes_on_as_a_thin_line() -> None:
    axis = axis_of(a=[(0, 0), (10, 2), (20, 8)], b=[(0, 2), (10, 4)])
    (mean, points), (_, further) = lines_of(axis).items()
    assert (mean, points) == ("m (n = 2)", [[0, 1], [10, 3]])
    assert further == [[10, 2], [20, 8]]
    main, thin = axis.get_lines()
    assert thin.get_linewidth() < main.get_linewidth()


def test_seeds_that_share_no_step_are_drawn_alone() -> None:
    lines = lines_of(axis_of(a=[(0, 0), (10, 2)], b=[(20, 1), (30, 4)]))
    assert list(lines.values()) == [[], [[0, 0], [10, 2]], [[20, 1], [30, 4]]]


# --- the style ---------------------------------------------------------------------------------------


def test_no_two_groups_look_alike() -> None:
    found = list(line_styles(map(str, range(63))).values())
    assert len({(style.colour, style.line) for style in found[:28]}) == 28
    assert len({(style.colour, style.marker) for style in found}) == 63
    assert len({style.colour for style in found[:7]}) == len({style.marker for style in found[:7]}) == 7


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_colours_differ_for_the_colour_blind_too(seen: list[list[float]]) -> None:
    """A difference of 2.3 in CIELAB is just noticeable side by side; lines need several times that."""

    def lab(colour: str) -> FloatArray:
        red_green_blue = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4)
        xyz = TO_XYZ @ np.clip(np.array(seen) @ linear, 0, 1) / TO_XYZ.sum(axis=1)
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    distances = {(one, other): np.linalg.norm(lab(one) - lab(other)) for one, other in combinations(COLOURS, 2)}
    assert min(distances.values()) > 15, min(distances, key=distances.__getitem__)
    assert max(lab(colour)[0] for colour in COLOURS) < 75  # of 100, which is white paper


def test_a_long_line_has_few_markers() -> None:
    style = line_styles(["m"])["m"]
    assert [style.of_line(n)["markevery"] for n in (1, 15, 80)] == [(0, 1), (0, 1), (0, 10)]


def test_percents_have_the_digits_that_they_need() -> None:
    said = percent_ticks()
    assert [said(share) for share in (0.0, 0.2, 0.29, 0.985, 0.9975, 1.0)] == [
        *("0%", "20%", "29%", "98.5%", "99.75%", "100%"),
    ]


def test_equal_lines_have_their_markers_at_different_points() -> None:
    marked = [style.of_line(90)["markevery"] for style in line_styles("abcdefghi").values()]
    assert sorted(first for first, _ in marked) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert {every for _, every in marked} == {11}


# --- pictures of runs -------------------------------------------------------------------------------


def test_return_density_and_exploration_of_every_group(tmp_path: Path, drawn: list[Figure]) -> None:
    a = run_folder(tmp_path / "a", {0: [0.0], 100: [10.0], 200: [50.0]})
    b = run_folder(tmp_path / "b", {0: [2.0], 100: [20.0]})
    dense = run_folder(tmp_path / "c", {0: [7.0]}, progress="100,,,2\n")
    runs = [Run(a, "sparse", task="env"), Run(b, "sparse", finished=False, task="env"), Run(dense, "dense", task="env")]
    plot_runs(runs, tmp_path / "out.png")
    returns, density, explored = drawn[0].axes
    both = "sparse (n = 2, 1 unfinished)"
    assert lines_of(returns)[both] == [[0, 1], [100, 15]]
    assert lines_of(returns)["dense (n = 1)"] == [[0, 7]]
    assert lines_of(density) == {both: [[100, 0.5], [200, 0.5]]}
    assert lines_of(explored) == {both: [[100, 0.5], [200, 0.75]]}
    assert legend_of(drawn[0]) == [both, "dense (n = 1)"]
    title = drawn[0].legends[0].get_title().get_text()
    assert title == "mean over n runs, 95 % bootstrap interval"
    assert (returns.get_title(), explored.get_xlabel()) == ("env", "env steps")
    own = {style.colour for style in line_styles(["sparse"]).values()}
    assert {line.get_color() for line in density.get_lines()} == own  # a group styles alike in all panels


def test_dense_runs_get_one_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_runs([Run(run_folder(tmp_path / "c", {0: [7.0]}, progress="100,,,2\n"), "dense")], tmp_path / "out.png")
    assert len(drawn[0].axes) == 1


def test_each_env_has_panels_of_its_own_and_a_method_looks_alike_in_all(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = (("a", "Hopper"), ("b", "Hopper"), ("b", "Ant"), ("a", "Walker"), ("a", "Swimmer"))
    folders = [run_folder(tmp_path / str(at), {0: [float(at)], 100: [float(at)]}) for at in range(len(labels))]
    given = [Run(folder, label, task=task) for folder, (label, task) in zip(folders, labels, strict=True)]
    plot_runs(given, tmp_path / "out.png")
    returns = {axis.get_title(): axis for axis in drawn[0].axes if axis.get_title()}
    assert {env: set(lines_of(axis)) for env, axis in returns.items()} == {
        "Hopper": {"a (n = 1)", "b (n = 1)"},
        "Ant": {"b (n = 1)"},
        "Walker": {"a (n = 1)"},
        "Swimmer": {"a (n = 1)"},
    }
    colours = {(env, line.get_label()): line.get_color() for env, axis in returns.items() for line in axis.get_lines()}
    assert colours["Hopper", "b (n = 1)"] == colours["Ant", "b (n = 1)"] != colours["Walker", "a (n = 1)"]
    assert legend_of(drawn[0]) == ["a (n = 1)", "b (n = 1)"]
    assert len(drawn[0].axes) == 4 * 3
    drawn[0].draw_without_rendering()
    places = {env: axis.get_position() for env, axis in returns.items()}
    assert places["Hopper"].y0 == pytest.approx(places["Ant"].y0)  # four in two rows of two, not three and one
    assert places["Hopper"].x0 == pytest.approx(places["Walker"].x0)


def test_a_method_is_in_the_legend_once_however_many_runs_a_panel_has(tmp_path: Path, drawn: list[Figure]) -> None:
    of = (
        ("a", True, "Hopper"),
        ("a", True, "Hopper"),
        ("a", False, "Ant"),
        ("b", False, "Ant"),
        ("b", False, "Hopper"),
    )
    folders = [run_folder(tmp_path / str(at), {0: [1.0], 100: [2.0]}) for at in range(len(of))]
    plot_runs([Run(folder, *about) for folder, about in zip(folders, of, strict=True)], tmp_path / "out.png")
    assert set(lines_of(drawn[0].axes[0])) == {"a (n = 2)", "b (n = 1, 1 unfinished)"}
    assert legend_of(drawn[0]) == ["a (n = 1 to 2, 0 to 1 unfinished)", "b (n = 1, 1 unfinished)"]


def test_smooth_is_the_mean_of_the_latest_values_before_that_over_seeds(tmp_path: Path, drawn: list[Figure]) -> None:
    a = run_folder(tmp_path / "a", {0: [0.0], 100: [4.0], 200: [2.0]})
    b = run_folder(tmp_path / "b", {0: [2.0], 100: [8.0], 200: [0.0]})
    options = PictureOptions(smooth=2, keys={"tau": "agent.tau", "algo": "algo"})
    plot_runs([Run(a, "m"), Run(b, "m")], tmp_path / "out.png", options=options)
    returns, density, _ = drawn[0].axes
    assert lines_of(returns)["m (n = 2)"] == [[0, 1], [100, 3.5], [200, 3.5]]  # means of 0, 2, 3 and of 2, 5, 4
    faint, main = returns.get_lines()
    assert faint.get_xydata().tolist() == [[0, 1], [100, 6], [200, 1]]  # type: ignore[union-attr]
    assert (faint.get_alpha() or 1) < 1 == (main.get_alpha() or 1)
    assert len(density.get_lines()) == 1  # shares are drawn as they are
    assert band_of(returns)[1] == (100, 2, 5)
    assert drawn[0].legends[0].get_title().get_text().splitlines() == [
        "mean over n runs, 95 % bootstrap interval",
        "each point the mean of the latest 2 values; faint: not smoothed",
        "tau: agent.tau",
    ]


@pytest.mark.parametrize("inches", [(3.0, 4.0), (12.0, 3.0)])
def test_a_picture_is_as_large_as_is_asked_and_nothing_is_cut_off(
    inches: tuple[float, float], tmp_path: Path, drawn: list[Figure]
) -> None:
    runs = [Run(run_folder(tmp_path / name, {0: [1.0]}), f"{name} {'with words ' * 4}") for name in "abc"]
    plot_runs(runs, tmp_path / "out.png", options=PictureOptions(size=inches))
    (figure,) = drawn
    assert (figure.get_figwidth(), figure.get_figheight()) == inches
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width


def test_one_column_over_another_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    run = Run(run_folder(tmp_path / "a", {0: [1.0], 50: [2.0], 150: [3.0]}), "m")
    plot_runs([run], tmp_path / "out.png", x="seconds", y="topology/explored_fraction")
    plot_runs([run], tmp_path / "out.png", x="seconds", y="return")
    (column,), (returns,) = (figure.axes for figure in drawn)
    assert lines_of(column) == {"m (n = 1)": [[2, 0.5], [6, 0.75]]}
    assert lines_of(returns) == {"m (n = 1)": [[0, 1], [1, 2], [4, 3]]}  # 50 of the first 100 steps took 1 of 2 s
    assert (returns.get_xlabel(), column.get_ylabel()) == ("wall time (s)", "explored fraction\nof sparse layers")
    plot_runs([run], tmp_path / "out.png", y="time/elapsed_s")
    assert drawn[2].axes[0].get_ylabel() == "time/elapsed_s"


def test_text_has_10_points_in_a_column_and_breaks_where_it_is_long(tmp_path: Path, drawn: list[Figure]) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0], 100: [2.0]})
    plot_runs([Run(run, " ".join(["a_long_label"] * 9))], tmp_path / "out.png")
    (figure,) = drawn
    assert figure.get_figwidth() == 5.5
    figure.draw_without_rendering()
    last = figure.axes[-1]
    assert {text.get_fontsize() for text in (last.xaxis.label, last.yaxis.label, *last.get_xticklabels())} == {10}
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_same_runs_give_the_same_file(ending: str, start: bytes, tmp_path: Path) -> None:
    runs = [Run(run_folder(tmp_path / name, {0: [float(place)], 100: [9.0]}), "m") for place, name in enumerate("ab")]
    files = [tmp_path / f"one{ending}", tmp_path / f"two{ending.upper()}"]
    for out in files:
        plot_runs(runs, out)
    one, two = (out.read_bytes() for out in files)
    assert one.startswith(start)
    assert one == two
    assert b"Date" not in one  # two files of one second would agree
    assert {".png", ".svg", ".pdf"} == set(FORMATS)


def test_a_vector_picture_holds_text_and_lines_alone(tmp_path: Path) -> None:
    label = "costs $5 or $6 & <more>"
    plot_runs([Run(run_folder(tmp_path / "a", {0: [1.0], 100: [2.0]}), label)], tmp_path / "out.svg")
    svg = (tmp_path / "out.svg").read_text()
    assert "costs $5 or $6 &amp; &lt;more&gt; (n = 1)</text>" in svg
    assert "<image" not in svg


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"x": "step"}, "unknown x axis 'step'; did you mean 'steps'?"),
        (
            {"y": "topology/densty"},
            "unknown column of progress.csv 'topology/densty'; did you mean 'topology/density'?",
        ),
        ({"y": "returns"}, "did you mean 'return'?"),
        ({"x": "flops"}, "progress.csv of a run has no column cost/flops_train"),
        ({"out": "out.pgn"}, "unknown ending '.pgn'; did you mean '.png'?"),
        ({"out": "out"}, "unknown ending ''; valid: .pdf, .png, .svg"),
        ({"out": "nowhere/out.png"}, "out.png: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_said(asked: dict[str, str], message: str, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0]})
    out = asked.pop("out", "out.png")
    with pytest.raises(ConfigError) as refusal:
        plot_runs([Run(run, "a")], tmp_path / out, **asked)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_yet_is_said(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0]}, progress="100,,,2\n")
    with pytest.raises(ConfigError, match="no run has a value of topology/density yet"):
        plot_runs([Run(run, "a")], tmp_path / "out.png", y="topology/density")
    (run / "eval.csv").write_text("global_step,episode,return,length\n")
    with pytest.raises(ConfigError, match="no rows yet"):
        plot_runs([Run(run, "a")], tmp_path / "out.png")
    (run / "eval.csv").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        plot_runs([Run(run, "a")], tmp_path / "out.png")
