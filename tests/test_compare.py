"""``seedtf compare`` pairs the predictions of two runs by path and counts how often each is right."""

from __future__ import annotations

import json
import re

import pytest
from tiny_run import copy_run, make_run

from seedtf.commands.main import main
from seedtf.data.fixes import RELABELLED
from seedtf.errors import UserError
from seedtf.evaluation.compare import compare
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.runs.paths import RunPaths

pytestmark = pytest.mark.usefixtures("module_without_figures")


def make_report(folder, predictions):
    """Writes a run with a report; ``predictions`` maps a path to its true and predicted class."""
    (folder / "report").mkdir(parents=True)
    lines = [
        "path,true,top1,p1",
        *(f"{path},{true},{top1},0.5" for path, (true, top1) in predictions.items()),
    ]
    (folder / "report" / "predictions_val.csv").write_text("\n".join(lines) + "\n")
    return folder


def predictions_of_two_runs(both, only_a, only_b, neither):
    """The predictions of runs A and B, given how many images are right in both, one or neither."""
    pairs = [("x", "x")] * both + [("x", "y")] * only_a + [("y", "x")] * only_b
    pairs += [("y", "y")] * neither
    # The true class is "x". A pair has the class that A predicts and the class that B predicts.
    named = {f"{index}.png": pair for index, pair in enumerate(pairs)}
    return (
        {path: ("x", a) for path, (a, _) in named.items()},
        {path: ("x", b) for path, (_, b) in named.items()},
    )


@pytest.fixture
def make_reports(tmp_path):
    """A function that writes a run for each of two sets of predictions, and returns their folders."""

    def make(a, b):
        return make_report(tmp_path / "a", a), make_report(tmp_path / "b", b)

    return make


def test_the_result_has_counts_difference_interval_and_p_value(make_reports):
    result = compare(
        *make_reports(*predictions_of_two_runs(both=50, only_a=5, only_b=20, neither=25))
    )
    assert (result.shared, result.only_in_a, result.only_in_b) == (100, 0, 0)
    counts = (result.both_right, result.only_a_right, result.only_b_right, result.both_wrong)
    assert counts == (50, 5, 20, 25)
    assert (result.accuracy_a, result.accuracy_b) == (0.55, 0.70)
    assert result.difference == 0.15
    assert result.interval[0] < 0.15 < result.interval[1]
    assert result.interval[0] > 0  # 5 against 20 images are a significant difference
    assert result.mcnemar_p == pytest.approx(0.0051, abs=1e-4)


def test_files_are_paired_by_path_and_not_by_order(make_reports):
    a, b = predictions_of_two_runs(both=3, only_a=2, only_b=1, neither=1)
    b = dict(reversed(b.items()))
    b["only b.png"] = ("x", "x")
    result = compare(*make_reports(a, b))
    assert (result.shared, result.only_in_a, result.only_in_b) == (7, 0, 1)
    assert (result.only_a_right, result.only_b_right) == (2, 1)


def test_runs_that_share_no_file_are_refused(make_reports):
    with pytest.raises(UserError, match="shares no file"):
        compare(*make_reports({"1.png": ("x", "x")}, {"2.png": ("x", "x")}))


def test_runs_that_share_only_relabelled_images_are_refused(make_reports):
    a, b = make_reports({"1.png": ("x", "x")}, {"1.png": ("y", "y"), "2.png": ("y", "y")})
    RunPaths(b).data_report.write_text(f"path,fault\n1.png,{RELABELLED}\n")
    message = rf"--fixes relabelled all images that it shares with {re.escape(str(a))} \(1 image\)"
    with pytest.raises(UserError, match=message):
        compare(a, b)


def test_runs_with_different_labels_are_refused(make_reports):
    with pytest.raises(UserError, match=r"labels '1\.png' as 'y', but .* as 'x'"):
        compare(*make_reports({"1.png": ("x", "x")}, {"1.png": ("y", "y")}))


def test_the_error_of_a_run_without_report_names_the_command(make_reports, tmp_path, capsys):
    a, b = make_reports({"1.png": ("x", "x")}, {"1.png": ("x", "x")})
    (b / "report" / "predictions_val.csv").unlink()
    assert main(["compare", str(a), str(b)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"run seedtf evaluate {b} first" in error
    assert main(["compare", str(a), str(tmp_path / "nowhere")]) == 2
    assert "no such run" in capsys.readouterr().err


def test_a_table_that_lacks_a_column_is_refused(make_reports):
    a, b = make_reports({"1.png": ("x", "x")}, {"1.png": ("x", "x")})
    table = b / "report" / "predictions_val.csv"
    table.write_text("path,true\n1.png,x\n")
    with pytest.raises(UserError, match=f"^{re.escape(str(table))}: no column 'top1'"):
        compare(a, b)


def test_the_command_prints_how_many_files_are_not_compared(make_reports, capsys):
    shared = {"1.png": ("x", "x"), "2.png": ("x", "x")}
    a, b = make_reports(shared, {**shared, "3.png": ("x", "x")})
    assert main(["compare", str(a), str(b)]) == 0
    first = "shared    2 files; not compared: 1 in only one of the runs"
    assert capsys.readouterr().out.splitlines()[0] == first
    (b / "data_report.csv").write_text("path,fault,detail\n2.png,relabelled,from y to x\n")
    assert main(["compare", str(a), str(b)]) == 0
    first = "shared    1 file; not compared: 1 in only one of the runs, 1 that --fixes relabelled"
    assert capsys.readouterr().out.splitlines()[0] == first


def test_the_command_compares_real_reports(tiny_folder, tmp_path, capsys):
    run = make_run(tmp_path / "one", tiny_folder)
    other = copy_run(run, tmp_path / "two")
    for folder in (run, other):
        evaluate_run(str(folder))
    assert main(["compare", str(run), str(other / "report")]) == 0
    shown = capsys.readouterr().out
    result = json.loads(shown.splitlines()[-1].removeprefix("RESULT "))
    assert (result["shared"], result["difference"], result["mcnemar_p"]) == (9, 0, 1)
