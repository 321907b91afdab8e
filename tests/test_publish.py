"""``seedtf publish`` writes or uploads the export and a model card, and removes local paths."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path

import pytest

from seedtf.commands.main import run_command
from seedtf.config.flags import field_types
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.export.local_paths import (
    EMPTIED_FLAGS,
    SHORTENED_FLAGS,
    UNCHANGED_FLAGS,
    remove_local_paths,
)
from seedtf.export.model_card import render_model_card
from seedtf.export.publish import publish_run
from seedtf.runs.paths import RunPaths

NAMES = ["maize", "a|b <wheat>"]


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """The files of an evaluated and exported run; text files take the place of the SavedModel."""
    paths = RunPaths(tmp_path / "runs" / "oak")
    paths.report.root.mkdir(parents=True)
    settings = {"model": "ResNet50", "image_size": 64, "epochs": 5, "recipe": "fast"}
    paths.config.write_text(json.dumps({**settings, "weights": "none", "resolved": {}}))
    paths.env.write_text(
        json.dumps({"seedtf": "1", "tensorflow": "2.21.0", "device": "CPU, 2 cores"})
    )
    paths.classes.write_text("".join(f"{name}\n" for name in NAMES))
    rows = ["file,label,split", *(f"m{n}.png,maize,train" for n in range(3))]
    rows += ["m9.png,maize,val", *(f"w{n}.png,a|b <wheat>,val" for n in range(2))]
    paths.split.write_text("".join(f"{row}\n" for row in rows))
    report = {
        "images": 3,
        "accuracy": 2 / 3,
        "accuracy_interval_95": [0.2, 0.9],
        "macro_f1": None,
        "loss": 0.5,
        "temperature": 1.25,
        "ece": {"before": 0.2, "after": 0.1},
        "class_names": NAMES,
        "per_class": [
            {"class": name, "precision": 0.5, "recall": 1.0, "f1": None, "support": 1}
            for name in NAMES
        ],
        "most_confused": [{"true": NAMES[1], "predicted": "maize", "count": 1}],
        "reject": {"threshold": 0.5, "kept_share": 1.0, "precision": 0.7},
        "reject_with_temperature": {"threshold": 0.8, "kept_share": 0.3333, "precision": 1.0},
    }
    paths.report.report_json.write_text(json.dumps(report))
    for version in ("2", "10"):
        (paths.export / version / "variables").mkdir(parents=True)
        (paths.export / version / "saved_model.pb").write_text(version)
    return paths


def test_the_published_folder_has_the_newest_export_the_flags_and_the_card(
    run: RunPaths, tmp_path
) -> None:
    assert run_command("publish", [str(run.root), f"--out={tmp_path / 'out' / 'plants'}"]) == 0
    folder = tmp_path / "out" / "plants"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "classes.txt",
        "config.json",
        "saved_model",
    ]
    assert (folder / "saved_model" / "saved_model.pb").read_text() == "10"
    assert (folder / "saved_model" / "variables").is_dir()
    assert json.loads((folder / "config.json").read_text()) == json.loads(run.config.read_text())
    assert [path.name for path in folder.parent.iterdir()] == ["plants"]


def test_the_card_states_what_was_measured(run: RunPaths, tmp_path) -> None:
    publish_run(run.root, str(tmp_path / "plants"))
    card = (tmp_path / "plants" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: tf-keras\npipeline_tag: image-classification\n")
    for line in (
        "# plants",
        "| class | train | val |",
        "| maize | 3 | 1 |",
        "| a\\|b &lt;wheat> | 0 | 2 |",
        "| accuracy | 0.6667 |",
        "| macro-F1 | – |",
        "| expected calibration error with temperature 1.250, as exported | 0.1000 |",
        "* a\\|b &lt;wheat>, predicted as maize: 1",
    ):
        assert line in card.splitlines(), line
    assert "66.7% of the predictions were correct (95 % interval 20.0% to 90.0%)" in card
    assert "below 0.8000 are rejected, 33.3% of the validation images remain" in card
    assert "initial weights: random" in card


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resolved": {"split": "drawn"}}, "The validation images were drawn at random."),
        # --continue passes the split of the earlier run as --split_csv
        (
            {"split_csv": "/runs/oak/split.csv", "resolved": {"split": "drawn"}},
            "The validation images were drawn at random.",
        ),
        ({"resolved": {"split": "given"}}, "The split was given by the user."),
        (
            {"split_csv": "/cv/splits/fold-0.csv", "resolved": {"split": "fold"}},
            "The validation images are one fold of a cross-validation.",
        ),
        # runs of an earlier release
        ({"val_dir": "/val"}, "The split was given by the user."),
        ({"split_csv": "/runs/oak/split.csv"}, ""),
        ({}, ""),
        ({"split_csv": "/runs/oak/split.csv", "resolved": {"split": ""}}, ""),
    ],
)
def test_the_card_says_how_the_split_was_made_if_it_is_known(
    run: RunPaths, settings: dict[str, object], sentence: str
) -> None:
    run.config.write_text(json.dumps({**json.loads(run.config.read_text()), **settings}))
    data = render_model_card(run.root, "oak").partition("## Data\n\n")[2].partition("\n\n## ")[0]
    assert data.partition("\n\n")[2] == sentence


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("export", "has no export; run: seedtf export"),
        ("report", "no such file; run: seedtf evaluate"),
        ("split", "cannot be read"),
    ],
)
def test_a_missing_part_of_the_run_is_named_and_no_folder_is_left(
    run, tmp_path, missing, message
) -> None:
    if missing == "report":
        run.report.report_json.unlink()
    else:
        getattr(run, missing).rename(tmp_path / "gone")
    with pytest.raises(UserError, match=message):
        publish_run(run.root, str(tmp_path / "plants"))
    assert not (tmp_path / "plants").exists()


def test_an_existing_folder_and_a_missing_out_are_refused(run: RunPaths, tmp_path, capsys) -> None:
    (tmp_path / "plants").mkdir()
    assert run_command("publish", [str(run.root), f"--out={tmp_path / 'plants'}"]) == 2
    assert "already exists; pass a new folder" in capsys.readouterr().err
    assert run_command("publish", [str(run.root)]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_an_upload_sends_the_same_files_to_a_private_repository(run: RunPaths, monkeypatch) -> None:
    calls = []

    class HfApi:
        def create_repo(self, repository, **options):
            calls.append((repository, options))

        def upload_folder(self, *, repo_id, folder_path):
            calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=HfApi))
    assert publish_run(run.root, "hf://me/plants") == "https://huggingface.co/me/plants"
    assert calls == [
        ("me/plants", {"exist_ok": True, "private": True}),
        ("me/plants", ["README.md", "classes.txt", "config.json", "saved_model"]),
    ]
    with pytest.raises(UserError, match="is not of the form hf://user/name"):
        publish_run(run.root, "hf://plants")


def test_a_failed_upload_is_a_user_error(run: RunPaths, monkeypatch) -> None:
    class HfApi:
        def create_repo(self, repository, **options):
            raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=HfApi))
    with pytest.raises(UserError, match=r"^--out=hf://me/plants: upload failed \(no"):
        publish_run(run.root, "hf://me/plants")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub; run: pip install 'seedtf\[hub\]'"):
        publish_run(run.root, "hf://me/plants")


def test_published_files_contain_no_local_path_and_the_run_does_not_change(
    run: RunPaths, tmp_path
) -> None:
    secret = tmp_path / "ann" / "customer"
    flags = {name: f"{secret}/{name}.x" for name in (*EMPTIED_FLAGS, *SHORTENED_FLAGS)}
    resolved = {"data_root": f"{secret}/photos", "stages": [{"size": 64}]}
    run.config.write_text(
        json.dumps({**json.loads(run.config.read_text()), **flags, "resolved": resolved})
    )
    for version in ("2", "10"):
        parity = run.export / version / "assets.extra" / "parity.json"
        parity.parent.mkdir()
        rows = [{"format": "onnx", "refused": [f"{secret}/a.png: corrupt"], "kept": True}]
        parity.write_text(
            json.dumps({"version": int(version), "run": f"{secret}/oak", "rows": rows})
        )
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}

    folder = tmp_path / "plants"
    publish_run(run.root, str(folder))
    for path in folder.rglob("*"):
        assert path.is_dir() or b"customer" not in path.read_bytes(), path
    config = json.loads((folder / "config.json").read_text())
    assert (config["data_dir"], config["run_dir"]) == ("data_dir.x", "")
    assert config["resolved"] == {"data_root": "photos", "stages": [{"size": 64}]}
    assert json.loads((folder / "saved_model/assets.extra/parity.json").read_text()) == {
        "version": 10,
        "run": "oak",
        "rows": [{"format": "onnx", "refused": ["a.png: corrupt"], "kept": True}],
    }
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before


def test_a_damaged_parity_json_is_not_published(run: RunPaths, tmp_path) -> None:
    parity = run.export / "10" / "assets.extra" / "parity.json"
    parity.parent.mkdir()
    parity.write_text('{"run": "/home/ann/')
    with pytest.raises(UserError, match=r"parity\.json is damaged .*; export the run again"):
        publish_run(run.root, str(tmp_path / "plants"))
    assert not (tmp_path / "plants").exists()


@pytest.mark.parametrize(
    ("name", "value", "published"),
    [
        ("data_dir", "sample", "sample"),
        ("data_dir", "gs://bucket/photos/", "photos"),
        ("data_dir", "../ann/photos", "photos"),
        ("data_dir", "/home/ann/", "home"),  # The last part of this path is the user's name.
        ("data_dir", "/Users/ann", "home"),
        ("data_service", "host-7.example:5000", ""),
        ("weights", "imagenet", "imagenet"),
        ("weights", "/home/ann/runs/oak/checkpoints/best.keras", "best.keras"),
        ("model", "ResNet50", "ResNet50"),
        ("model", "hf://timm/resnet18.a1_in1k", "hf://timm/resnet18.a1_in1k"),
        ("model", "/home/ann/resnet50", "./resnet50"),
        ("group_regex", r"/(plant\d+)/", r"/(plant\d+)/"),
        ("a_later_flag", "/home/ann/photos", "photos"),
        ("class_weights", "a:2,b:3", "a:2,b:3"),
    ],
)
def test_a_path_is_published_as_its_last_part(name: str, value: str, published: str) -> None:
    assert remove_local_paths({name: value}) == {name: published}
    assert remove_local_paths({"resolved": [{name: value}]}) == {"resolved": [{name: published}]}


def test_every_flag_with_a_text_is_listed_as_a_path_or_as_something_else() -> None:
    type_of = field_types(TrainConfig)
    texts = {
        flag.name
        for flag in dataclasses.fields(TrainConfig)
        if type_of[flag.name] is str and not flag.metadata["choices"]
    }
    columns = {"file_column", "label_column", "split_column", "group_by"}
    words = {"class_weights", "progressive_sizes", "track"}
    # ``run`` is no flag, but a key of parity.json.
    assert texts - columns - words == {*EMPTIED_FLAGS, *SHORTENED_FLAGS, *UNCHANGED_FLAGS} - {"run"}


def test_the_published_flags_are_still_a_valid_train_config() -> None:
    config = TrainConfig(
        data_dir="/home/ann/photos",
        labels_csv="/home/ann/labels.csv",
        group_by="plant",
        model="/home/ann/vit",
        weights="/home/ann/best.keras",
        cache_dir="/home/ann/cache",
    )
    published = TrainConfig(**remove_local_paths(config.as_dict()))
    changed = {
        name: value
        for name, value in published.as_dict().items()
        if value != config.as_dict()[name]
    }
    assert changed == {
        "data_dir": "photos",
        "labels_csv": "labels.csv",
        "model": "./vit",
        "weights": "best.keras",
        "cache_dir": "",
    }
