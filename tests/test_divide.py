"""``seedtf folds`` on random folders divides no group, and predicts every non-test image once."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seedtf.commands.main import run_command
from seedtf.data.table_text import read_csv
from seedtf.runs.folds import FoldsPaths

MAX_IMAGES = 36  # including the copies


def draw_image(number: int) -> Image.Image:
    """An image of coarse noise; images of different numbers do not look alike."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Folder:
    """The contents of a random folder: each image shows a plant of a class, and may be a copy.

    Attributes:
        labels, plants: the number of the class and of the plant of each image.
        originals: for each image, the number of the image that it copies, or its own number.
        layout: ``folders``, ``nested`` (a folder for each plant) or ``table``.
        grouped: whether the plants are groups.
        test_fraction, folds, seed: the values of the flags with these names.
    """

    labels: list[int]
    plants: list[int]
    originals: list[int]
    layout: str
    grouped: bool
    test_fraction: float
    folds: str
    seed: int

    def name(self, image: int) -> str:
        file = f"plant{self.plants[image]}_{image}.png"
        label = f"class {self.labels[image]}"
        # The class is part of the name, because seedtf refuses classes that all have the same folders.
        plant = f"{self.labels[image]}-{self.plants[image]}"
        return {"folders": f"{label}/{file}", "nested": f"{label}/{plant}/{file}", "table": file}[
            self.layout
        ]

    def write(self, root: Path) -> None:
        lines = ["file,label\n"]
        for image, original in enumerate(self.originals):
            path = root / self.name(image)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = draw_image(original)
            # A copy of another size is a near duplicate, not an identical file.
            (picture if image == original else picture.resize((40, 40))).save(path)
            lines.append(f"{self.name(image)},class {self.labels[image]}\n")
        if self.layout == "table":
            root.with_suffix(".csv").write_text("".join(lines))

    def flags(self, root: Path) -> list[str]:
        flags = [f"--data_dir={root}", f"--folds={self.folds}", f"--seed={self.seed}"]
        flags += [f"--test_fraction={self.test_fraction}"] if self.test_fraction else []
        flags += [f"--labels_csv={root.with_suffix('.csv')}"] if self.layout == "table" else []
        return flags + ([r"--group_regex=(plant\d+)_"] if self.grouped else [])

    def related(self) -> np.ndarray:
        """For each image, the smallest number of an image that must be in the same fold: int ``[N]``.

        A copy must be in the fold of its original. With ``grouped``, all images of a plant must be in
        one fold. Images that a chain of such pairs connects must be in one fold, too.
        """
        numbers = list(range(len(self.labels)))
        pairs = [(image, original) for image, original in enumerate(self.originals)]
        if self.grouped:
            pairs += [(image, self.plants.index(plant)) for image, plant in enumerate(self.plants)]
        for _ in numbers:
            for first, second in pairs:
                numbers[first] = numbers[second] = min(numbers[first], numbers[second])
        return np.array(numbers)


@st.composite
def folders(draw: st.DrawFn) -> Folder:
    rng = np.random.default_rng(draw(st.integers(0, 2**31 - 1)))
    num_classes = draw(st.integers(2, 3))
    layout = draw(st.sampled_from(["folders", "nested", "table"]))
    num_images = draw(st.integers(6 * num_classes, MAX_IMAGES))
    labels = np.sort(np.arange(num_images) % num_classes)
    plants = rng.integers(0, draw(st.integers(3, num_images)), num_images)
    originals = np.arange(num_images)
    copies = rng.choice(num_images, draw(st.integers(0, num_images // 5)), replace=False)
    sources = np.setdiff1d(np.arange(num_images), copies)
    originals[copies] = rng.choice(sources, len(copies))
    grouped = draw(st.booleans())
    folds = draw(st.sampled_from(["2", "3", "5", "groups"] if grouped else ["2", "3", "5"]))
    return Folder(
        labels.tolist(),
        plants.tolist(),
        originals.tolist(),
        layout,
        grouped,
        draw(st.sampled_from([0.0, 0.2])),
        folds,
        draw(st.integers(0, 9)),
    )


@settings(max_examples=12)
@given(folders())
def test_any_folder_is_divided_so_that_each_image_is_predicted_once(folder: Folder) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary, "data"), Path(temporary, "folds")
        folder.write(root)
        related = folder.related()
        arguments = [*folder.flags(root), "--model=tiny", "--weights=none", f"--out={out}"]
        code = run_command("folds", [*arguments, "--divide_only", "--image_size=16"])
        if code:
            assert code == 2
            # A folder may be refused only if a class is in at most two groups, or if there are at most
            # five groups in all.
            in_few_groups = [
                label
                for label in set(folder.labels)
                if len(set(related[np.array(folder.labels) == label])) <= 2
            ]
            assert in_few_groups or len(set(related)) <= 5
            return
        paths = FoldsPaths(out)
        assert paths.read_settings()["flags"]["folds"] == folder.folds
        fold_of = {row.file: row.fold for row in paths.read_table()}
        names = [folder.name(image) for image in range(len(folder.labels))]
        assert sorted(fold_of) == sorted(names)
        predicted = []
        for number in range(paths.read_settings()["folds"]):
            side_of = dict(read_csv(paths.split(number), ("file", "split"), ""))
            assert sorted(side_of) == sorted(names)
            predicted += [name for name, side in side_of.items() if side == "val"]
            for name, side in side_of.items():
                is_val = fold_of[name] == str(number)
                assert side == ("test" if fold_of[name] == "test" else "val" if is_val else "train")
            sides = np.array([side_of[name] for name in names])
            assert all(len(set(sides[related == group])) == 1 for group in set(related.tolist()))
        assert sorted(predicted) == sorted(n for n in names if fold_of[n] != "test")
