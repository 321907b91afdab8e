"""Draws random images of seedlings of twelve field species, seen from above on soil.

The species differ in the number, arrangement, outline, size and hue of their leaves. Position,
rotation, growth stage, soil, stones, straw, light, blur and noise vary in the same way for all species.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["SPECIES", "Species", "draw_seedling"]

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]

OVERSAMPLE = 3  # images are drawn at this many times their size and then reduced, for smooth edges
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # angle between successive leaves of a rosette
GREENISH, REDDISH, PALE = (122, 150, 84), (146, 84, 84), (188, 200, 150)


@dataclass(frozen=True)
class LeafShape:
    """One kind of leaf.

    Attributes:
        outline: a key of ``PROFILES`` or ``ROUND_OUTLINES``.
        length: length of the leaf in units of the plant's scale. The scale varies from image to image,
            between about 0.5 and 0.8 times the side of the image.
        width: width of the leaf as a fraction of its length.
        petiole: length of the stalk as a fraction of the length of the leaf.
        bend: standard deviation, in radians, of the angle by which the leaf bends.
    """

    outline: str
    length: float
    width: float
    petiole: float = 0.0
    bend: float = 0.25


@dataclass(frozen=True)
class Species:
    """What distinguishes a species.

    Attributes:
        name: the name of the species, which is also the name of the class.
        arrangement: how the leaves grow on the stem: ``tuft``, ``rosette``, ``whorl`` or ``pairs``.
        nodes: the smallest and the largest number of nodes, the points of the stem with leaves.
        leaf: the shape of the leaves.
        colour: RGB of the leaves, 0 to 255.
        stalk: RGB of the stalks of the leaves, 0 to 255.
        seed_leaf: the shape of the first two leaves; None if the plant is drawn without them.
    """

    name: str
    arrangement: str
    nodes: tuple[int, int]
    leaf: LeafShape
    colour: Colour
    stalk: Colour = GREENISH
    seed_leaf: LeafShape | None = None


SPECIES = (
    Species("Black-grass", "tuft", (2, 4), LeafShape("blade", 0.78, 0.08, 0, 1.1),
            (58, 98, 62), REDDISH),
    Species("Charlock", "rosette", (2, 4), LeafShape("lyrate", 0.62, 0.62, 0.25),
            (112, 156, 50), GREENISH, LeafShape("heart", 0.30, 1.25, 0.5)),
    Species("Cleavers", "whorl", (1, 2), LeafShape("spatula", 0.42, 0.27, 0.05),
            (62, 118, 64), GREENISH, LeafShape("ellipse", 0.40, 0.62, 0.35)),
    Species("Common Chickweed", "pairs", (2, 3), LeafShape("ovate", 0.34, 0.66, 0.65),
            (132, 170, 72), PALE),
    Species("Common wheat", "tuft", (2, 3), LeafShape("blade", 0.92, 0.14, 0, 0.2),
            (110, 168, 142), PALE),
    Species("Fat Hen", "pairs", (2, 3), LeafShape("toothed", 0.46, 0.60, 0.35),
            (134, 160, 128), REDDISH),
    Species("Loose Silky-bent", "tuft", (8, 12), LeafShape("blade", 0.66, 0.055, 0, 0.8),
            (148, 178, 100), PALE),
    Species("Maize", "tuft", (2, 4), LeafShape("blade", 0.92, 0.20, 0, 0.6),
            (84, 148, 56), PALE),
    Species("Scentless Mayweed", "rosette", (4, 8), LeafShape("feather", 0.52, 0.42, 0.1),
            (92, 140, 66), GREENISH),
    Species("Shepherds Purse", "rosette", (6, 10), LeafShape("spatula", 0.46, 0.42, 0.3),
            (116, 152, 84), GREENISH),
    Species("Small-flowered Cranesbill", "rosette", (3, 6), LeafShape("palmate", 0.44, 1.05, 0.7),
            (98, 142, 78), REDDISH),
    Species("Sugar beet", "pairs", (1, 2), LeafShape("ovate", 0.56, 0.60, 0.3),
            (66, 132, 48), PALE, LeafShape("strap", 0.56, 0.24, 0.2)),
)  # fmt: skip


# The width of a leaf at each point t of the midrib, from 0 (base) to 1 (tip), as a fraction of
# ``LeafShape.width``. Values below 0 count as 0.
PROFILES: dict[str, Callable[[Floats], Floats]] = {
    "blade": lambda t: np.minimum(1.0, 0.5 + 4 * t) * (1 - t**2.2),
    "ovate": lambda t: np.sin(np.pi * t**0.62) * (1 - 0.25 * t),
    "ellipse": lambda t: np.sqrt(np.maximum(0.0, 1 - (2 * t - 1) ** 2)),
    "spatula": lambda t: np.sin(np.pi * t**1.9) * 0.88 + 0.12 * (1 - t),
    "strap": lambda t: np.sqrt(np.maximum(0.0, 1 - (2 * t - 1) ** 6)),
    "toothed": lambda t: np.sin(np.pi * t**0.75) * (0.72 + 0.28 * (1 - (5 * t) % 1)),
    # a large round lobe at the tip, and two pairs of small lobes below it
    "lyrate": lambda t: np.maximum(
        np.sqrt(np.maximum(0.0, 1 - ((t - 0.68) / 0.32) ** 2)),
        (0.24 - 0.2 * np.cos(8.5 * np.pi * t)) * (t < 0.5),
    ),
    "feather": lambda t: 0.07 + np.sin(np.pi * t**0.8) * (np.abs((9 * t) % 1 - 0.5) < 0.17),
}

# For a round leaf whose length and width are 1, the distance from its centre to its edge at each
# angle a, in radians: 0 is the tip, ±π the stalk.
ROUND_OUTLINES: dict[str, Callable[[Floats], Floats]] = {
    # seven lobes, and a notch at the stalk
    "palmate": lambda a: 0.4 + 0.1 * np.cos(7 * a) - 0.3 * np.exp(-12 * (np.abs(a) - np.pi) ** 2),
    "heart": lambda a: 0.5 - 0.2 * np.exp(-5 * a**2),
}


def draw_seedling(species: Species, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draws a random image of ``species``: uint8 RGB ``[size, size, 3]``.

    Example:
        >>> draw_seedling(SPECIES[0], 32, np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    light = rng.uniform(0, 2 * math.pi)
    canvas = _draw_soil(size * OVERSAMPLE, light, rng)
    polygons = list(_plant_polygons(species, size * OVERSAMPLE, light, rng))
    canvas = _cast_shadow(canvas, [points for points, _ in polygons], light, rng)
    _paint(canvas, polygons)
    return _photograph(canvas.reduce(OVERSAMPLE), light, rng)


Polygon = tuple[Floats, tuple[int, ...]]  # the points [n, 2] in canvas pixels, and RGB or RGBA


@dataclass(frozen=True)
class PlacedLeaf:
    """A leaf: its shape, the start of its stalk [2], its direction in radians, its length in pixels."""

    shape: LeafShape
    base: Floats
    angle: float
    length: float


def _plant_polygons(
    species: Species, size: int, light: float, rng: np.random.Generator
) -> Iterator[Polygon]:
    """Yields the polygons of a random plant in the order in which they are painted.

    ``size`` is the side of the canvas in pixels; ``light`` is the direction, in radians, in which the
    light shines and shadows fall.
    """
    stage = rng.uniform()
    scale = size / 2 * (1.15 + 0.3 * stage) * rng.uniform(0.9, 1.1)
    centre = size * rng.uniform(0.43, 0.57, 2)
    tint = np.array(species.colour) * rng.uniform(0.9, 1.1) + rng.normal(0, [6, 4, 5])
    for leaf in _arrange(species, stage, scale, centre, rng):
        green = tint * rng.uniform(0.9, 1.1)
        yield from _leaf_polygons(leaf, green, np.array(species.stalk), light, rng)


def _arrange(
    species: Species, stage: float, scale: float, centre: Floats, rng: np.random.Generator
) -> Iterator[PlacedLeaf]:
    """Yields the leaves from the oldest, which is painted first, to the youngest.

    ``stage`` is the growth stage, 0 to 1; ``scale`` is the length in pixels of a leaf of length 1.
    """
    turn = rng.uniform(0, 2 * math.pi)
    low, high = species.nodes
    num_nodes = low + round(stage * (high - low))
    if species.seed_leaf:
        for angle in (turn + math.pi / 2, turn - math.pi / 2):
            yield PlacedLeaf(species.seed_leaf, centre, angle, scale * species.seed_leaf.length)
    for node in range(num_nodes):
        shrink = {"tuft": 0.12, "rosette": 0.07, "pairs": 0.3, "whorl": 0.45}[species.arrangement]
        length = scale * species.leaf.length * (1 - shrink) ** node
        for angle in _angles(species.arrangement, node, num_nodes):
            jitter = rng.normal(0, 0.25 if species.arrangement == "tuft" else 0.1)
            drawn_length = length * rng.uniform(0.8, 1.05)
            base = centre + rng.normal(0, 0.012 * scale, 2)
            yield PlacedLeaf(species.leaf, base, turn + angle + jitter, drawn_length)


def _angles(arrangement: str, node: int, num_nodes: int) -> list[float]:
    """The angles, in radians, of the leaves at one node of a stem with ``num_nodes`` nodes."""
    if arrangement == "rosette":
        return [node * GOLDEN_ANGLE]
    if arrangement == "pairs":  # each pair is perpendicular to the previous one
        return [node * math.pi / 2, node * math.pi / 2 + math.pi]
    if arrangement == "whorl":
        return [(k + node / 2) * math.pi / 3 for k in range(6)]
    # The leaves of a grass grow in opposite pairs; each further pair is turned, so that the leaves
    # spread like a fan.
    return [node * math.pi + (node // 2) * math.pi / max(num_nodes / 2, 2)]


def _outline(name: str) -> Floats:
    """A closed polygon [n, 2]: x from 0 (base) to 1 (tip) along the midrib, y within about ±0.5."""
    if name in ROUND_OUTLINES:
        angle = np.linspace(-np.pi, np.pi, 90, endpoint=False)
        radius = ROUND_OUTLINES[name](angle)
        return np.stack([0.5 + radius * np.cos(angle), radius * np.sin(angle)], 1)
    t = np.linspace(0, 1, 60)
    half_width = np.maximum(0, PROFILES[name](t)) / 2
    lean = 0.35 * half_width if name == "feather" else 0 * half_width
    upper = np.stack([t + lean, half_width], 1)
    return np.concatenate([upper, (upper * [1, -1])[::-1]])


def _bend(points: Floats, leaf: PlacedLeaf, bend: float) -> Floats:
    """Maps points of a leaf of length 1 to canvas pixels; its midrib becomes an arc of ``bend`` rad."""
    along, across = points[:, 0], points[:, 1]
    bend = bend if abs(bend) > 1e-3 else 1e-3
    turn = leaf.angle + along * bend
    start = leaf.angle
    x = (np.sin(turn) - math.sin(start)) / bend - across * np.sin(turn)
    y = (math.cos(start) - np.cos(turn)) / bend + across * np.cos(turn)
    return leaf.base + leaf.length * np.stack([x, y], 1)


def _leaf_polygons(
    leaf: PlacedLeaf, green: Floats, stalk: Floats, light: float, rng: np.random.Generator
) -> Iterator[Polygon]:
    """Yields the polygons of a leaf, in the order in which they are painted.

    They are the shadow, the stalk, the whole leaf, one half in another shade and the lighter middle,
    followed by the midrib unless the leaf is narrow.
    """
    shape = leaf.shape
    bend = rng.normal(0, shape.bend)
    outline = _outline(shape.outline) * [1, shape.width * rng.uniform(0.88, 1.12)]
    outline[:, 0] = shape.petiole + outline[:, 0] * (1 - 0.3 * shape.petiole)
    thickness = max(0.05, 0.12 * shape.width) if shape.petiole else 0.04
    stalk_outline = np.array([[0, 1], [1, 0.6], [1, -0.6], [0, -1]]) * [
        shape.petiole + 0.12,
        thickness / 2,
    ]
    shade = 18 * math.sin(leaf.angle - light)

    whole = _bend(outline, leaf, bend)
    yield whole + 0.035 * leaf.length * _direction(light), (10, 14, 6, 90)
    yield _bend(stalk_outline, leaf, bend), _rgb(stalk)
    yield whole, _rgb(green - shade)
    half = outline.clip([-9, 0], [9, 9])  # the half of the leaf with y ≥ 0
    yield _bend(half, leaf, bend), _rgb(green + shade)
    yield _bend(outline * [0.94, 0.5] + [0.03, 0], leaf, bend), (*_rgb(green * 1.12), 90)
    if shape.width > 0.07:
        rib = np.array([[0, 0.012], [0.85, 0.004], [0.85, -0.004], [0, -0.012]])
        rib[:, 0] = shape.petiole + rib[:, 0]
        yield _bend(rib, leaf, bend), (*_rgb(green * 0.7 + 80), 170)


def _draw_soil(size: int, light: float, rng: np.random.Generator) -> Image.Image:
    """Draws crumbly earth with stones and straw: an RGB image of ``size`` × ``size`` pixels."""
    earth = np.array([118, 96, 76]) * rng.uniform(0.6, 1.15) + rng.normal(0, 4, 3)
    relief = np.zeros((size, size))
    for cells, height in ((4, 9), (12, 10), (32, 12), (size // OVERSAMPLE, 11)):
        patch = Image.fromarray(rng.normal(0, height, (cells, cells)).astype(np.float32))
        relief += np.asarray(patch.resize((size, size), Image.Resampling.BICUBIC))
    pixels = earth + relief[..., None] * [1.0, 0.93, 0.85]
    canvas = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    polygons: list[Polygon] = []
    for _ in range(rng.integers(4, 34)):
        polygons += _stone_polygons(size, light, rng)
    for _ in range(rng.integers(0, 4)):
        placed = PlacedLeaf(
            SPECIES[0].leaf, rng.uniform(0, size, 2), rng.uniform(0, 6.3), 0.2 * size
        )
        straw_outline = np.array([[0, 1], [1, 1], [1, -1], [0, -1]]) * [1, rng.uniform(0.015, 0.05)]
        colour = _rgb(np.array([168, 146, 100]) * rng.uniform(0.7, 1.1))
        polygons.append((_bend(straw_outline, placed, 0.1), colour))
    _paint(canvas, polygons)
    return canvas


def _stone_polygons(size: int, light: float, rng: np.random.Generator) -> list[Polygon]:
    """The polygons of a stone: its shadow, its body and its lit side."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = size * min(0.012 + rng.exponential(0.016), 0.09) * rng.uniform(0.8, 1.2, 14)
    shape = np.stack([radius * np.cos(angle), radius * np.sin(angle) * rng.uniform(0.6, 1)], 1)
    centre, away_from_light = rng.uniform(0, size, 2), _direction(light) * radius.mean()
    grey = np.array([128, 122, 114]) * rng.uniform(0.6, 1.35) + rng.normal(0, 5, 3)
    return [
        (centre + shape * 1.05 + 0.4 * away_from_light, (16, 12, 8, 120)),
        (centre + shape, _rgb(grey)),
        (centre + shape * 0.6 - 0.2 * away_from_light, (*_rgb(grey + 26), 130)),
    ]


def _cast_shadow(
    ground: Image.Image, shapes: list[Floats], light: float, rng: np.random.Generator
) -> Image.Image:
    """``ground`` with the shadow of the plant, which is slightly above the ground."""
    mask = Image.new("L", ground.size)
    draw = ImageDraw.Draw(mask)
    offset = _direction(light) * ground.width * rng.uniform(0.015, 0.05)
    darkness = int(rng.uniform(90, 190))  # 255 would be fully dark
    for points in shapes:
        draw.polygon((points + offset).ravel().tolist(), fill=darkness)
    mask = mask.filter(ImageFilter.GaussianBlur(ground.width * rng.uniform(0.008, 0.03)))
    return Image.composite(Image.new("RGB", ground.size, (14, 12, 10)), ground, mask)


def _photograph(image: Image.Image, light: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """``image`` with uneven light, colour cast, slight blur and noise: uint8 RGB [size, size, 3]."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7) * image.width / 96))
    pixels = np.asarray(image, np.float64)
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, image.width)])
    slope = -rng.uniform(0, 0.22) * (x * math.cos(light) + y * math.sin(light))
    pixels = pixels * (rng.uniform(0.85, 1.2) + slope)[..., None] * rng.normal(1, 0.02, 3)
    pixels += rng.normal(0, rng.uniform(1, 4), pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def _paint(canvas: Image.Image, polygons: list[Polygon]) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")  # In this mode, colours with an alpha are blended.
    for points, colour in polygons:
        draw.polygon(points.ravel().tolist(), fill=colour)


def _rgb(colour: Floats) -> tuple[int, ...]:
    return tuple(int(value) for value in colour.clip(0, 255))


def _direction(angle: float) -> Floats:
    return np.array([math.cos(angle), math.sin(angle)])
