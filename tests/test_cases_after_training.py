"""Cases that people have reported: checkpoints, reports, resuming, submissions, styles of flags."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_run import copy_run, draw_classes, make_run

from seedtf.commands.arguments import parse_given_flags
from seedtf.commands.main import main
from seedtf.commands.predict import PredictConfig
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier, Prediction
from seedtf.evaluation.evaluate import Predictions, compute_report
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.predict import list_images
from seedtf.evaluation.report import ReportContext, write_report
from seedtf.evaluation.submission import read_sample, write_submission
from seedtf.model.network import build_network, save_model
from seedtf.plots.base import DPI
from seedtf.plots.report import draw_confusion
from seedtf.runs.folder import find_run, resolve_weights
from seedtf.runs.open import load_run
from seedtf.runs.saved_config import continued_config, load_resumed, resumed_config
from seedtf.training.machine import Machine
from seedtf.training.plan import Plan, make_plan
from seedtf.training.resolve import resolve
from seedtf.training.setup import load_training_data
from seedtf.tuning.records import trial_config
from seedtf.tuning.space import SEARCHABLE, first_values


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("data") / "photos", ["maize", "wheat"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos) -> Path:
    """A run whose last model and best model predict differently. No test may change the run."""
    run_dir = make_run(tmp_path_factory.mktemp("runs") / "oak", photos)
    other = build_network(model="tiny", num_classes=2, image_size=16, weights="none")
    save_model(other, run_dir / "checkpoints" / "last.keras")
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    return copy_run(finished, tmp_path / "run")


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# a checkpoint where a run folder is expected, and the reverse


def test_predict_takes_a_checkpoint_inside_a_run(run_dir, photos, tmp_path, capsys):
    tables = []
    for name in ("best", "last"):
        file, out = run_dir / "checkpoints" / f"{name}.keras", tmp_path / f"{name}.csv"
        assert main(["predict", str(file), str(photos), f"--out={out}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith("run ")] == [
            f"run       {run_dir}, with {file}"
        ]
        tables.append(out.read_text())
    assert main(["predict", str(run_dir), str(photos), f"--out={tmp_path / 'run.csv'}"]) == 0
    assert (tmp_path / "run.csv").read_text() == tables[0] != tables[1]


@pytest.mark.usefixtures("without_figures")
def test_the_report_of_a_checkpoint_does_not_replace_that_of_the_best_model(run_dir):
    best = evaluate_run(str(run_dir / "checkpoints" / "best.keras"))
    last = evaluate_run(str(run_dir / "checkpoints" / "last.keras"))
    assert best.page.parent == run_dir / "report"
    assert last.page.parent == run_dir / "report-last"
    assert best.report.loss != last.report.loss


def test_any_keras_file_and_the_folder_of_checkpoints_lead_to_the_run(run_dir, monkeypatch):
    copied = Path(shutil.copy(run_dir / "checkpoints" / "last.keras", run_dir / "mine.keras"))
    assert find_run(copied) == (run_dir, copied)
    assert find_run(run_dir / "checkpoints") == (run_dir, None)
    monkeypatch.chdir(run_dir / "checkpoints")
    assert find_run("best.keras") == (run_dir.resolve(), None)
    assert load_run("last.keras").checkpoint == Path("last.keras")


def test_a_keras_file_outside_of_every_run_is_refused(run_dir, photos, tmp_path, capsys):
    copied = Path(shutil.copy(run_dir / "checkpoints" / "best.keras", tmp_path / "alone.keras"))
    assert main(["predict", str(copied), str(photos), f"--out={tmp_path / 'p.csv'}"]) == 2
    assert "alone.keras: lies in no run folder" in capsys.readouterr().err
    assert main(["export", str(run_dir / "nothing.keras")]) == 2
    assert "nothing.keras: no such file" in capsys.readouterr().err


def test_snapshots_cannot_be_combined_with_a_checkpoint(run_dir, capsys):
    assert main(["evaluate", str(run_dir / "checkpoints" / "last.keras"), "--snapshots"]) == 2
    assert "last.keras; pass the run folder" in capsys.readouterr().err


def test_weights_may_be_a_run_folder(run_dir, photos, capsys):
    best = run_dir / "checkpoints" / "best.keras"
    weights = resolve_weights(str(run_dir))
    assert weights == str(best)
    build_network(model="tiny", num_classes=3, image_size=24, weights=weights)
    assert "all weights were loaded except the classifier" in capsys.readouterr().out
    assert resolve_weights("none") == "none"
    best.unlink()
    with pytest.raises(UserError, match=r"the run has no .*best.keras yet"):
        resolve_weights(str(run_dir))
    with pytest.raises(UserError, match="not a run of seedtf train"):
        resolve_weights(str(photos))


# reports


@pytest.mark.usefixtures("without_figures")
def test_reports_on_two_folders_of_the_same_name_are_both_kept(run_dir, tmp_path, monkeypatch):
    for site in ("siteA", "siteB"):
        draw_classes(tmp_path / site / "test", ["maize", "wheat"], per_class=3)
    folders = []
    for site in ("siteA", "siteB", "siteB"):
        monkeypatch.chdir(tmp_path / site)
        folders.append(evaluate_run(str(run_dir), data_dir="test").page.parent.name)
    assert folders == ["report-test", "report-test-2", "report-test-2"]
    values = json.loads((run_dir / "report-test" / "report.json").read_text())
    assert values["data_root"] == str(tmp_path / "siteA" / "test")


@pytest.mark.usefixtures("without_figures")
def test_a_data_folder_called_tta8_does_not_share_the_report_of_tta_8(run_dir, tmp_path):
    data = draw_classes(tmp_path / "tta8", ["maize", "wheat"], per_class=3)
    assert evaluate_run(str(run_dir), data_dir=str(data)).page.parent.name == "report-tta8-2"
    assert evaluate_run(str(run_dir), tta=8).page.parent.name == "report-tta8"


@pytest.mark.parametrize("size", [300, 3000])
def test_the_confusion_matrix_of_many_classes_is_an_image_of_bounded_size(size):
    confusion = np.diag(np.full(size, 5))
    confusion[size - 1, 7] = 9
    confusion[4, size - 2] = 3
    figure = draw_confusion(confusion, [f"class {n}" for n in range(size)], title="run")
    axes = figure.axes[0]
    assert np.shape(axes.images[0].get_array()) == (80, 80)
    named = [tick.get_text() for tick in axes.get_yticklabels()]
    assert {"class 4", "class 7", f"class {size - 1}", f"class {size - 2}"} <= set(named)
    assert f"80 most confused of {size:,} classes" in axes.get_title()
    assert axes.images[0].get_array().max() == 1
    assert max(figure.get_size_inches()) * DPI < 2600


def test_the_report_of_ten_thousand_classes_is_written(tmp_path):
    labels = np.arange(0, 10_000, 500)
    probabilities = np.full((len(labels), 10_000), 1e-5, np.float32)
    probabilities[np.arange(len(labels)), (labels + labels // 5000) % 10_000] = 0.9
    names = tuple(f"class {n}" for n in range(10_000))
    paths = tuple(f"{n}.png" for n in labels)
    report = compute_report(Predictions(paths, labels, probabilities, names), precision_target=0.9)
    context = ReportContext(
        run_dir=tmp_path,
        data="test",
        data_root=tmp_path,
        model="tiny",
        image_size=16,
        tta=1,
        skipped=(),
    )
    write_report(report, context, tmp_path / "report")
    cells = read_table(tmp_path / "report" / "confusion_matrix.csv")
    assert len(cells) == 20
    assert cells[-1] == {"true": "class 9500", "predicted": "class 9501", "count": "1"}
    assert (tmp_path / "report" / "report.json").stat().st_size < 3_000_000


# which files predict takes


def test_a_quoted_pattern_is_expanded(photos):
    maize = sorted(str(path) for path in (photos / "maize").iterdir())
    assert list(list_images([str(photos / "maize" / "*.png")])) == maize
    assert list(list_images([str(photos / "**" / "0-*.png")])) == maize
    assert list(list_images([str(photos / "**" / "maize")])) == maize
    assert len(list(list_images([str(photos / "**")]))) == 8
    assert len(list(list_images([str(photos / "*")]))) == 8
    with pytest.raises(UserError, match="no file matches"):
        list(list_images([str(photos / "*.gif")]))


def test_a_file_whose_name_looks_like_a_pattern_is_taken_as_that_file(tmp_path):
    for name in ("leaf[1].png", "leaf1.png"):
        (tmp_path / name).write_bytes(b"x")
    assert list(list_images([str(tmp_path / "leaf[1].png")])) == [str(tmp_path / "leaf[1].png")]
    dangling = tmp_path / "z.png"  # a broken link is listed too, so that predict can name it
    dangling.symlink_to(tmp_path / "nowhere")
    assert str(dangling) in list(list_images([str(tmp_path / "*.png")]))


def test_each_file_comes_once_in_the_order_given(photos, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(photos / "wheat")
    first = str(photos / "wheat" / "1-2.png")
    paths = list(list_images([first, str(photos / "maize"), str(photos / "wheat"), str(link)]))
    assert paths[0] == first
    names = [Path(path).name for path in paths]
    assert names[1:5] == ["0-0.png", "0-1.png", "0-2.png", "0-3.png"]
    assert len(paths) == len(set(names)) == 8


# flags as other tools write them


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train data=photos epochs=2", "write --data_dir=photos --epochs=2"),
        ("train —epochs=2 --data_dir=x", "write --epochs=2"),
        ("train --data_dir=x --epochs = 2", "write --epochs=value, without blanks"),
        ("train --data_dir=x --epochs= 2", "write --epochs=value, without blanks"),
        ("train --data_dir=x --strict True", "write --strict"),
        ("train --data_dir=x --zero-init-residual False", "write --nozero_init_residual"),
        ("train --data_dir=x --strict=yes", "write --strict=true"),
        ("predict run photos --no-overwrite", "write --nooverwrite"),
        ("train --data_dir=x --lr=0,001", "write --lr=0.001"),
        ("train --data_dir=x --weight_decay=0,05", "write --weight_decay=0.05"),
        ("train --data_dir=x --val_fraction=15%", "write --val_fraction=0.15"),
        ("train --data_dir=x --image_size=64x64", "write --image_size=64"),
        ("train --data_dir=x --image_size=64x48", "pass one whole number, such as 64"),
        ("train --data_dir=x --epochs=1e2", "write --epochs=100"),
        ("train --data_dir=x --max_pixels=1,000,000", "write --max_pixels=1000000"),
        ("train --data_dir=x --weights=None", "write --weights=none"),
        ("train --data_dir=x --weights=ImageNet", "write --weights=imagenet"),
        ("train --data_dir=x --optimizer=Adam", "write --optimizer=adam"),
        ("train --data_dir=x --strategy=None", "write --strategy=none"),
        ("train --data_dir=x --run_dir=None", "leave the flag out"),
        ("train --data_dir=x --learning_rate=0.1", "did you mean 'lr'?"),
        ("train --data_dir=x --imgsz=64", "did you mean 'image_size'?"),
        ("predict run photos out=p.csv", "write --out=p.csv"),
    ],
)
def test_a_flag_in_another_style_is_answered_with_what_to_type(command, message, capsys):
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_one_dash_before_the_full_name_of_a_flag_is_enough():
    given = parse_given_flags(
        TrainConfig, "train", ["-data-dir", "x", "-epochs=2", "--shear", "-5"]
    )
    assert given == {"data_dir": "x", "epochs": 2, "shear": -5.0}


def test_a_file_whose_name_looks_like_a_flag_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out=1.png").write_bytes(b"")
    given = parse_given_flags(
        PredictConfig, "predict", ["run", "out=1.png"], ("run_or_export", "files_or_folders...")
    )
    assert given["files_or_folders"] == ("out=1.png",)


# resuming, continuing, tiny folders


def test_resume_without_a_value_takes_the_run_in_run_dir(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"run_dir": str(run_dir), "image_size": 16}
    assert resumed_config("newest", given).resume == str(run_dir)
    with pytest.raises(UserError, match="no such run"):
        resumed_config("newest", {"run_dir": "nothing"})
    with pytest.raises(UserError, match="there is no run below runs/"):
        resumed_config("newest", {})


def test_the_same_command_resumes_with_relative_weights(run_dir, tmp_path, monkeypatch):
    settings = json.loads((run_dir / "config.json").read_text())
    settings["weights"] = str(run_dir / "checkpoints" / "best.keras")
    (run_dir / "config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    for weights in ("run", "run/checkpoints/best.keras"):
        assert resumed_config("run", {"weights": weights}).weights == settings["weights"]
    with pytest.raises(UserError, match="leave the flag out, or start a new run"):
        resumed_config("run", {"weights": "run/checkpoints/last.keras"})


def make_plan_for(data: Path, **flags) -> Plan:
    config = TrainConfig(data_dir=data, model="tiny", weights="none", image_size=8, **flags)
    settings = resolve(config, Machine())
    return make_plan(settings, load_training_data(settings.config))


def test_the_default_batch_shrinks_to_the_training_images_and_says_so(photos):
    plan = make_plan_for(photos, val_fraction=0.25)
    assert (plan.config.batch_size, plan.steps_per_epoch) == (6, 1)
    assert plan.batch_size_note.startswith("6 images instead of 32")
    given = make_plan_for(photos, val_fraction=0.25, batch_size=5)
    assert (given.config.batch_size, given.batch_size_note) == (5, "")
    with pytest.raises(UserError, match="--batch_size=7: more than the 6 training images"):
        make_plan_for(photos, val_fraction=0.25, batch_size=7)


@pytest.mark.parametrize(
    ("replicas", "val_fraction", "size", "reason"),
    [
        (2, 0.25, 6, "there are no more for training"),
        (3, 0.5, 3, "there are 4 for training and 3 devices share a batch evenly"),
    ],
)
def test_the_note_on_a_smaller_batch_names_the_devices_only_if_they_are_a_reason(
    photos, replicas, val_fraction, size, reason
):
    flags = {"model": "tiny", "weights": "none", "image_size": 8, "val_fraction": val_fraction}
    settings = resolve(TrainConfig(data_dir=photos, **flags), Machine())
    devices = replace(settings.devices, replicas=replicas)
    plan = make_plan(replace(settings, devices=devices), load_training_data(settings.config))
    assert plan.batch_size_note.startswith(f"{size} images instead of 32, because {reason};")
    many = replace(plan, num_train=33, config=replace(plan.config, batch_size=30))
    assert f"because {replicas} devices share a batch evenly;" in many.batch_size_note


def test_lr_find_shrinks_the_default_batch_as_train_does(photos, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise UserError("before the first step")

    monkeypatch.setattr("seedtf.training.lr_finder.run.sweep_lr", stop)
    flags = ["--model=tiny", "--weights=none", "--image_size=8", f"--out={tmp_path / 'out'}"]
    assert main(["lr_find", f"--data_dir={photos}", *flags]) == 2
    shown = capsys.readouterr()
    assert "batch     6 images instead of 32" in shown.out
    assert "before the first step" in shown.err
    assert main(["lr_find", f"--data_dir={photos}", *flags, "--batch_size=32"]) == 2
    assert "--batch_size=32: more than the 6 training images" in capsys.readouterr().err


def test_the_flags_of_a_trial_leave_out_the_default_batch_size():
    config = TrainConfig(data_dir="sample")
    assert "batch_size" not in trial_config(config, {"lr": 0.1}, Path("trial")).to_flagfile()
    assert first_values([SEARCHABLE["batch_size"]], config) == {"batch_size": 32}


def test_preview_draws_a_folder_of_four_images_and_needs_data_dir(tmp_path, capsys):
    data = draw_classes(tmp_path / "four", ["maize", "wheat"], per_class=2)
    out = tmp_path / "four.png"
    flags = [f"--data_dir={data}", "--image_size=16", "--mixup=0.2", f"--out={out}"]
    assert main(["preview", *flags]) == 0
    assert out.stat().st_size > 1000
    assert main(["preview", f"--out={out}", "--continue=run"]) == 2
    assert "--data_dir is missing" in capsys.readouterr().err


def test_continue_starts_a_new_run_from_the_best_weights_and_the_split(run_dir, photos, capsys):
    settings = json.loads((run_dir / "config.json").read_text())
    settings |= {"data_dir": str(photos), "run_dir": str(run_dir), "epochs": 3, "lr": 0.02}
    (run_dir / "config.json").write_text(json.dumps(settings))
    given = parse_given_flags(TrainConfig, "train", [f"--continue={run_dir}", "--epochs=20"])
    config = continued_config(given["continue_from"], given)
    shown = capsys.readouterr().out
    assert shown.startswith(f"continue  {run_dir}: a new run")
    assert "the optimizer's state is not taken over" in shown
    assert (config.epochs, config.lr, config.run_dir, config.resume) == (20, 0.02, "", "")
    assert config.weights == str(run_dir / "checkpoints" / "best.keras")
    dataset = load_training_data(config)
    validation = [dataset.store.catalog.paths[index] for index in dataset.split.val]
    rows = read_table(run_dir / "split.csv")
    assert validation == [row["file"] for row in rows if row["split"] == "val"]
    assert "--continue" not in config.to_flagfile()
    from_python = TrainConfig(continue_from=run_dir, epochs=20)
    assert load_resumed(from_python) == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights=none"], "leave --weights out"),
        (["--continue=nothing"], "--continue=nothing: no such run"),
    ],
)
def test_what_cannot_be_continued_is_refused(run_dir, flags, message, capsys):
    assert main(["train", f"--continue={run_dir}", *flags]) == 2
    assert message in capsys.readouterr().err


# sample submissions


CLASSES = ("Fat Hen", "Maize", "wheat")


def make_classifier() -> Classifier:
    """A classifier that gives probability 0.5 to the class whose name is the content of a file."""

    def classify(files, k):
        # False sorts before True, so the class in the file comes first.
        names = [sorted(CLASSES, key=file.decode().__ne__) for file in files]
        values = tuple(np.float32([0.5, 0.25, 0.25])[:k])
        return [Prediction(tuple(each[:k]), values) for each in names]

    return Classifier(3, lambda data: data, classify)


@pytest.fixture
def unlabelled(tmp_path) -> Path:
    """A folder of files for ``make_classifier``, one for each class, and a text file."""
    folder = tmp_path / "test"
    folder.mkdir()
    for number, name in enumerate(CLASSES):
        (folder / f"id{number}.png").write_text(name)
    (folder / "id0.txt").write_text("notes")
    return folder


def submission_lines(folder: Path, *lines: str) -> list[str]:
    """The lines of the submission for a folder, given the lines of a sample submission."""
    sample, out = folder.parent / "sample.csv", folder.parent / "out.csv"
    sample.write_text("".join(f"{line}\n" for line in lines))
    inputs = [str(folder)]
    write_submission(make_classifier(), inputs, read_sample(str(sample)), out, batch_size=2)
    return out.read_text().splitlines()


@pytest.mark.parametrize("form", ["id{}", "id{}.png", "test/id{}.png", "./test/id{}", "test\\id{}"])
def test_ids_without_suffix_and_with_folders_are_matched(unlabelled, form):
    ids = [form.format(number) for number in (2, 0)]
    lines = submission_lines(unlabelled, "id_code,diagnosis", *(f"{name},0" for name in ids))
    assert lines == ["id_code,diagnosis", f"{ids[0]},wheat", f"{ids[1]},Fat Hen"]


def test_one_column_for_each_class_receives_the_probabilities(unlabelled):
    lines = submission_lines(unlabelled, "wheat,id,fat_hen,Maize", "0,id0,0,1", "0,id2,0,1")
    assert lines == ["wheat,id,fat_hen,Maize", "0.25,id0,0.5,0.25", "0.5,id2,0.25,0.25"]


def test_columns_that_are_not_the_classes_are_named(unlabelled):
    with pytest.raises(UserError, match="column 'oak' is no class of the model"):
        submission_lines(unlabelled, "id,wheat,Fat Hen,oak", "id0,0,0,0")
    with pytest.raises(UserError, match="class 'Maize' has no column"):
        submission_lines(unlabelled, "id,wheat,Fat Hen", "id0,0,0")
    with pytest.raises(UserError, match="row 2 has 2 columns"):
        submission_lines(unlabelled, "id,wheat,Fat Hen", "id0,0")


def test_a_folder_in_an_id_chooses_between_files_of_the_same_name(unlabelled):
    for site, name in (("a", "Maize"), ("b", "wheat")):
        (unlabelled / site).mkdir()
        (unlabelled / site / "same.png").write_text(name)
    assert submission_lines(unlabelled, "id,label", "b/same.png,x")[1] == "b/same.png,wheat"
    with pytest.raises(UserError, match="has the same name as"):
        submission_lines(unlabelled, "id,label", "same,x")
