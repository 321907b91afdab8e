"""``seedtf embed``: the features of a network or a run for every image, computed once and cached."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_run import make_run

from seedtf.commands.main import main
from seedtf.data.catalog import scan_folder
from seedtf.errors import UserError
from seedtf.evaluation import embed as embed_module
from seedtf.evaluation.embed import embed_images
from seedtf.evaluation.embedder import Embedder, open_embedder
from seedtf.images.decode import make_decoder
from seedtf.model.network import load_model
from seedtf.runs.paths import RunPaths

SIZE = 16


def pixels_of(folder: Path) -> np.ndarray:
    decode = make_decoder(SIZE)
    paths = scan_folder(folder).absolute_paths()
    return np.stack([decode(Path(path).read_bytes()).numpy() for path in paths])


def embed_tiny(data: Path, cache: Path, **flags: object) -> embed_module.Embeddings:
    options = {"image_size": SIZE, "weights": "none", "cache_dir": str(cache), "batch_size": 4}
    return embed_images(data, "tiny", **{**options, **flags})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run_dir(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("embedded") / "run", tiny_folder)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which every network that is built during the test adds its name."""
    built: list[str] = []
    real_init = Embedder.__init__

    def recording_init(self: Embedder, name: str, *args: object, **kwargs: object) -> None:
        real_init(self, name, *args, **kwargs)  # type: ignore[arg-type]
        real_build = self.build

        def recording_build() -> keras.Model:
            built.append(name)
            return real_build()

        object.__setattr__(self, "build", recording_build)  # because the dataclass is frozen

    monkeypatch.setattr(Embedder, "__init__", recording_init)
    return built


def test_the_features_are_what_the_head_of_the_run_reads(
    tiny_folder: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npy"
    assert main(["embed", str(tiny_folder), f"--model={run_dir}", f"--out={out}"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.split("RESULT ")[1])
    assert (result["images"], result["dimensions"], result["left_out"]) == (18, 64, 0)
    network = load_model(RunPaths(run_dir).best)
    features_model = keras.Model(network.input, network.get_layer("logits").input)
    expected = features_model.predict(pixels_of(tiny_folder).astype(np.float32), verbose=0)
    features = np.load(out)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    rows = out.with_suffix(".csv").read_text("utf-8").splitlines()
    catalog = scan_folder(tiny_folder)
    labels = [catalog.class_names[label] for label in catalog.labels]
    assert rows == ["file,label", *map(",".join, zip(catalog.paths, labels, strict=True))]


def test_a_second_call_builds_no_network_and_decodes_nothing(
    tiny_copy: Path, tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_tiny(tiny_copy, tmp_path)
    assert (builds, first.from_cache) == (["Tiny"], False)
    with monkeypatch.context() as patch:
        patch.setattr(embed_module, "make_batch_decoder", None)
        second = embed_tiny(tiny_copy, tmp_path)
    assert (builds, second.from_cache) == (["Tiny"], True)
    np.testing.assert_array_equal(second.features, first.features)
    os.utime(next(tiny_copy.rglob("*.png")), (0, 0))  # as if another file had replaced this one
    assert not embed_tiny(tiny_copy, tmp_path).from_cache


def test_the_cache_is_not_used_for_other_weights_at_the_same_path(
    tiny_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    features = []
    for seed in (0, 1):
        shutil.rmtree(run, ignore_errors=True)
        make_run(run, tiny_folder, seed=seed)
        embeddings = embed_images(tiny_folder, run, cache_dir=str(tmp_path / "cache"))
        assert not embeddings.from_cache
        features.append(embeddings.features)
    assert not np.allclose(*features)


def test_a_file_that_cannot_be_decoded_is_named_and_has_no_row(
    tiny_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = embed_tiny(tiny_copy, tmp_path / "cache").features
    bad = tiny_copy / "alder" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    flags = ["--model=tiny", f"--image_size={SIZE}", "--weights=none", "--batch_size=4"]
    for overwrite in ([], ["--overwrite"]):  # the second call reads the features from the cache
        out = tmp_path / "features.npy"
        assert main(["embed", str(tiny_copy), f"--out={out}", *flags, *overwrite]) == 3
        assert (
            "1 file without a row; the first is alder/2.png: truncated" in capsys.readouterr().err
        )
        np.testing.assert_allclose(np.load(out), np.delete(whole, 2, axis=0), rtol=1e-5, atol=1e-6)
        rows = out.with_suffix(".csv").read_text("utf-8").splitlines()
        assert "alder/2.png,alder" not in rows
        assert len(rows) == 1 + 17


def test_a_folder_without_labels_gives_a_table_without_a_label_column(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, path in enumerate(sorted(tiny_folder.rglob("*.png"))[::-1]):
        shutil.copy(path, plain / f"img{number:02}.png")
    out = tmp_path / "plain.npy"
    flags = ["--model=tiny", f"--image_size={SIZE}", "--weights=none", f"--out={out}"]
    assert main(["embed", str(plain), *flags]) == 0
    assert "labels    none" in capsys.readouterr().out
    names = [f"img{number:02}.png" for number in range(18)]
    assert out.with_suffix(".csv").read_text("utf-8").splitlines() == ["file", *names]
    expected = embed_tiny(tiny_folder, tmp_path).features[::-1]
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-5, atol=1e-6)


def test_a_table_that_contradicts_the_folders_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    for path in ("train/x/1.png", "train/y/1.png", "test/x/2.png", "test/y/2.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copyfile(tiny_folder / "alder" / "0.png", tmp_path / path)
    rows = "train/x/1.png,x,val\ntrain/y/1.png,y,train\ntest/x/2.png,x,test\ntest/y/2.png,y,test\n"
    (tmp_path / "metadata.csv").write_text(f"file_name,label,split\n{rows}")
    with pytest.raises(UserError, match="lies in the folder train"):
        embed_module.list_catalog(str(tmp_path))


def test_an_interrupted_call_leaves_no_cache_file(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embed_module, "map_file_batches", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed_tiny(tiny_folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_features_are_computed_even_if_the_cache_cannot_be_written(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    embeddings = embed_tiny(tiny_folder, tmp_path / "file" / "cache")
    assert embeddings.features.shape == (18, 64)
    assert "not used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--model=tinny"], "--model=tinny"),
        ([], "--model: is missing"),
        (["--model={run}", "--image_size=32"], "--image_size=32: the run was trained at 16"),
        (["--model=tiny", "--weights=none", "--out=features.txt"], "ends with .npy"),
        (["--model=tiny", "--weights=none", "--out={run}/classes.npy"], "already exists"),
        (["--model=tiny", "--weights=none", "--layout=table"], "no table of labels"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(
    flags: list[str],
    text: str,
    tiny_folder: Path,
    run_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run_dir / "classes.csv").touch()  # the table that would be written beside classes.npy
    given = [flag.replace("{run}", str(run_dir)) for flag in flags]
    assert main(["embed", str(tiny_folder), *given]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert text in error[0]


def test_a_missing_folder_or_a_folder_without_usable_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DATA_DIR="):
        embed_tiny(tmp_path / "missing", tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of 1 images can be decoded, first 1\.png"):
        embed_tiny(tmp_path / "images", tmp_path)


def test_the_cache_key_depends_on_network_weights_and_size() -> None:
    keys = {
        open_embedder("tiny", 16, "none").key,
        open_embedder("tiny", 32, "none").key,
        open_embedder("ResNet50", 32, "none").key,
        open_embedder("ResNet50", 32).key,
    }
    assert len(keys) == 4
    assert open_embedder("TINY", 16, "none").key in keys
