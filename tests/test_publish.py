"""``seedtf publish``: a folder, or an upload, with the export and a model card of the run."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from seedtf.commands.main import run_command
from seedtf.errors import UserError
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
    paths.report.values.write_text(json.dumps(report))
    for version in ("2", "10"):
        (paths.export / version / "variables").mkdir(parents=True)
        (paths.export / version / "saved_model.pb").write_text(version)
    return paths


def test_the_folder_has_the_newest_export_its_flags_and_the_card(run: RunPaths, tmp_path) -> None:
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
    assert (folder / "config.json").read_bytes() == run.config.read_bytes()
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
        "| the same with temperature 1.250, as exported | 0.1000 |",
        "* a\\|b &lt;wheat>, predicted as maize: 1",
    ):
        assert line in card.splitlines(), line
    assert "66.7% of the predictions were correct (95 % interval 20.0% to 90.0%)" in card
    assert "below 0.8000 are rejected, 33.3% of the validation images remain" in card
    assert "initial weights: random" in card


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("export", "has no export; run: seedtf export"),
        ("report", "no such file; run: seedtf evaluate"),
        ("split", "cannot be read"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_left(run, tmp_path, missing, message) -> None:
    getattr(run, missing).rename(tmp_path / "gone") if missing != "report" else (
        run.report.values.unlink()
    )
    with pytest.raises(UserError, match=message):
        publish_run(run.root, str(tmp_path / "plants"))
    assert not (tmp_path / "plants").exists()


def test_an_existing_folder_is_kept(run: RunPaths, tmp_path, capsys) -> None:
    (tmp_path / "plants").mkdir()
    assert run_command("publish", [str(run.root), f"--out={tmp_path / 'plants'}"]) == 2
    assert "already exists; pass a new folder" in capsys.readouterr().err
    assert run_command("publish", [str(run.root)]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_an_upload_sends_the_same_folder(run: RunPaths, monkeypatch) -> None:
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
