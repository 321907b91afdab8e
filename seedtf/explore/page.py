"""Writes the page of ``seedtf explore``, a single HTML file, and the table ``explore.csv``."""

from __future__ import annotations

import colorsys
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seedtf.data.map_files import map_files
from seedtf.data.paths import folder_at, read_file
from seedtf.evaluation.report import read_thumbnail
from seedtf.explore.geometry import project_to_2d
from seedtf.explore.review import (
    NUM_NEIGHBOURS,
    NUM_SHOWN_NEIGHBOURS,
    Review,
    choose_shown,
    table_lines,
)
from seedtf.explore.sources import Explored
from seedtf.files import write_lines, write_text
from seedtf.images.decode import make_decoder
from seedtf.plots.heatmap import draw_heatmap
from seedtf.plots.page import image_uri, render_page
from seedtf.report import report

__all__ = ["WrittenPage", "write_page"]

# A sheet is one image with a square grid of thumbnails.
_THUMBNAIL_SIZE, _THUMBNAILS_PER_ROW = 48, 16
_SUSPECT_SIZE = 128
_MAX_GROUPS, _MAX_POOR = 200, 300
_MAX_DUPLICATE_SETS, _MAX_IMAGES_OF_SET = 200, 12


@dataclass(frozen=True)
class WrittenPage:
    """The result of ``write_page``.

    Attributes:
        page: the path of ``index.html``.
        table: the path of ``explore.csv``.
        num_shown: number of images on the page.
        projection: the method of the map that was used, ``UMAP`` or ``PCA``.
    """

    page: Path
    table: Path
    num_shown: int
    projection: str


def write_page(
    explored: Explored, result: Review, out: Path, *, title: str, method: str, max_pixels: int
) -> WrittenPage:
    """Writes ``index.html`` and ``explore.csv`` into the folder ``out``, which exists.

    Args:
        explored: the images.
        result: the review of these images, from ``review``.
        out: the folder.
        title: the title of the page.
        method: the method of the map, one of ``geometry.MAPS``.
        max_pixels: images with a larger width × height are not read.

    Raises:
        UserError: ``method`` is ``umap``, and umap-learn is not installed.
        OSError: the folder cannot be written.
    """
    shown = choose_shown(explored, result)
    report("map", f"{len(shown):,} of {len(explored.catalog):,} images, in two dimensions")
    points, projection = project_to_2d(explored.features[shown], method)
    page = out / "index.html"
    text = _Page(explored, result, shown, points, max_pixels).render(title, projection)
    write_text(page, text)
    table = out / "explore.csv"
    write_lines(table, table_lines(explored, result, points, shown))
    return WrittenPage(page, table, len(shown), projection)


class _Page:
    """Computes the variables of the template, and renders the template."""

    def __init__(
        self,
        explored: Explored,
        result: Review,
        shown: np.ndarray,
        points: np.ndarray,
        max_pixels: int,
    ) -> None:
        self.explored, self.result, self.shown, self.points = explored, result, shown, points
        self.max_pixels = max_pixels
        # The sheets and the script identify an image by its place: its index in ``shown``.
        self.place_of = {index: place for place, index in enumerate(shown.tolist())}

    def render(self, title: str, projection: str) -> str:
        """The page as text."""
        explored, result = self.explored, self.result
        suspects = set(result.suspects.tolist())
        return render_page(
            __package__,
            "explore.html.jinja",
            title=title,
            predicted_by=explored.predicted_by,
            num_images=len(explored.catalog),
            classes=explored.catalog.class_names,
            colors=_colors(len(explored.catalog.class_names)),
            num_shown=len(self.shown),
            num_wrong=int(result.wrong.sum()),
            num_differ=int(
                (explored.probabilities.argmax(axis=1) != explored.catalog.labels).sum()
            ),
            faults=explored.catalog.faults,
            sheets=[_webp(sheet, 55) for sheet in self._sheets()],
            size=_THUMBNAIL_SIZE,
            suspects=list(self._suspects()),
            dots=self._dots(suspects),
            projection=projection,
            near_duplicates=self._near_duplicate_sets(),
            num_near_duplicates=len(result.near_duplicates),
            outliers=[self._card(index) for index in result.outliers.tolist()],
            num_neighbours=NUM_NEIGHBOURS,
            poor=[
                {**self._card(index), "faults": faults}
                for index, faults in sorted(result.poor.items())[:_MAX_POOR]
            ],
            num_poor=len(result.poor),
            groups=result.groups[:_MAX_GROUPS],
            num_groups=len(result.groups),
            data=self._data(),
        )

    def _sheets(self) -> Iterator[np.ndarray]:
        """Yields the sheets, uint8 ``[h, w, 3]``, each with up to 256 thumbnails, in order of place."""
        catalog = self.explored.catalog.take(self.shown)
        side = _THUMBNAIL_SIZE
        thumbnails = np.zeros((len(catalog), side, side, 3), np.uint8)
        decode = make_decoder(side, self.max_pixels)

        def draw(index: int, path: str) -> None:
            thumbnails[index] = decode(read_file(path, self.max_pixels)).numpy()

        map_files(catalog, draw, "thumbnails")
        per_row, per_sheet = _THUMBNAILS_PER_ROW, _THUMBNAILS_PER_ROW**2
        for start in range(0, len(thumbnails), per_sheet):
            part = thumbnails[start : start + per_sheet]
            num_rows = -(-len(part) // per_row)
            padded = np.zeros((num_rows * per_row, *part.shape[1:]), np.uint8)
            padded[: len(part)] = part
            grid = padded.reshape(num_rows, per_row, side, side, 3)
            yield grid.swapaxes(1, 2).reshape(num_rows * side, per_row * side, 3)

    def _card(self, index: int) -> dict[str, Any]:
        """The values of one image that every section of the page shows."""
        explored, names = self.explored, self.explored.catalog.class_names
        label, proposed = explored.catalog.labels[index], self.result.proposed[index]
        return {
            "place": self.place_of.get(index, -1),
            "path": explored.catalog.paths[index],
            "label": names[label],
            "quality": float(self.result.quality[index]),
            "proposed": names[proposed],
            "probability": float(explored.probabilities[index, proposed]),
            "side": explored.sides[index],
            "thumbnail": self._thumbnail(index),
        }

    def _thumbnail(self, index: int) -> tuple[int, int, int] | None:
        """The number of the sheet, x and y in pixels; None if the image is not on the page."""
        place = self.place_of.get(index)
        if place is None:
            return None
        sheet, cell = divmod(place, _THUMBNAILS_PER_ROW**2)
        row, column = divmod(cell, _THUMBNAILS_PER_ROW)
        return sheet, column * _THUMBNAIL_SIZE, row * _THUMBNAIL_SIZE

    def _suspects(self) -> Iterator[dict[str, Any]]:
        """Yields for each suspect the values of ``_card``, its image, heat map and neighbours."""
        explored, result = self.explored, self.result
        root, indices = folder_at(str(explored.catalog.root)), result.suspects.tolist()
        heats = explored.compute_heatmaps(indices, result.proposed[result.suspects])
        for index, heat in zip(indices, heats, strict=True):
            path = root / explored.catalog.paths[index]
            image = read_thumbnail(path, _SUSPECT_SIZE, explored.fit, self.max_pixels)
            heatmap = None if image is None or heat is None else draw_heatmap(image, heat)
            neighbours = result.neighbours[index, :NUM_SHOWN_NEIGHBOURS].tolist()
            yield {
                **self._card(index),
                "wrong": bool(result.wrong[index]),
                "image": None if image is None else _webp(image, 70),
                "heat": None if heatmap is None else _webp(heatmap, 50),
                "near": [self._card(neighbour) for neighbour in neighbours],
            }

    def _dots(self, suspects: set[int]) -> list[list[tuple[int, int, bool]]]:
        """For each class, the dots of its images: x, y, and whether the image is a suspect."""
        labels = self.explored.catalog.labels
        dots: list[list[tuple[int, int, bool]]] = [[] for _ in self.explored.catalog.class_names]
        for index, point in zip(self.shown.tolist(), self._coordinates(), strict=True):
            dots[labels[index]].append((*point, index in suspects))
        return dots

    def _coordinates(self) -> list[tuple[int, int]]:
        """x and y of each image on the map, from 20 to 980; y increases downwards, as in SVG."""
        scaled = np.rint(20 + 960 * self.points).astype(int)
        return [(x, 1000 - y) for x, y in scaled.tolist()]

    def _near_duplicate_sets(self) -> list[dict[str, Any]]:
        pairs = zip(self.result.near_duplicates, self.result.across, strict=True)
        return [
            {
                "across": across,
                "clashing": len({self.explored.catalog.labels[index] for index in part}) > 1,
                "cards": [self._card(index) for index in part[:_MAX_IMAGES_OF_SET]],
                "num_more": max(len(part) - _MAX_IMAGES_OF_SET, 0),
            }
            for part, across in list(pairs)[:_MAX_DUPLICATE_SETS]
        ]

    def _data(self) -> dict[str, Any]:
        """The values that the script of the page needs; the images are in order of place."""
        explored, result = self.explored, self.result
        catalog = explored.catalog
        digest = hashlib.blake2b(digest_size=12)
        for path in catalog.paths:
            digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
        # explore.js reads these values by their position in the row.
        rows = [
            [
                catalog.paths[index],
                int(catalog.labels[index]),
                *point,
                int(result.proposed[index]),
                round(float(result.quality[index]), 3),
                round(float(explored.probabilities[index, result.proposed[index]]), 3),
            ]
            for index, point in zip(self.shown.tolist(), self._coordinates(), strict=True)
        ]
        return {
            "key": f"seedtf-explore-{digest.hexdigest()}",
            "classes": catalog.class_names,
            "earlier": explored.earlier,
            "size": _THUMBNAIL_SIZE,
            "columns": _THUMBNAILS_PER_ROW,
            "images": rows,
        }


def _webp(image: np.ndarray, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
    return image_uri(buffer.getvalue(), "webp")


def _colors(count: int) -> Sequence[str]:
    """``count`` colours as ``#rrggbb``, with evenly spaced hues, alternately light and dark."""
    colors = []
    for number in range(count):
        lightness = 0.62 if number % 2 else 0.42
        channels = colorsys.hls_to_rgb(number / count, lightness, 0.75)
        colors.append("#" + "".join(f"{round(255 * value):02x}" for value in channels))
    return colors
