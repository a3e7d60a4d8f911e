"""A data set that needs no network: pictures of classes composed of visual attributes.

A class is a distribution over the values of eight attribute families (shape, colour, ...), and
that distribution is its descriptor. A picture draws one value a family from it and is then
disturbed as photographs are: pose, light, clutter, occlusion, blur, noise.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from icis.seeding import derive_seed

Array: TypeAlias = NDArray[np.float64]
Field: TypeAlias = Callable[[Array, Array], Array]
Main: TypeAlias = tuple[str, ...]  # a class's main value of every family

SUPERSAMPLING: Final = 2
MAIN_PERCENT: Final = (70, 95)  # a class's share of its main value in a family, drawn per class


def _polygon(sides: int, apothem: float) -> Field:
    normals = [(math.sin(a), -math.cos(a)) for a in np.arange(sides) * math.tau / sides + math.pi]
    return lambda u, v: np.max([u * p + v * q for p, q in normals], axis=0) - apothem


def _box(u: Array, v: Array, width: float, height: float) -> Array:
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def _star(u: Array, v: Array) -> Array:
    sector = math.pi / 5
    folded = np.abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    # The edge from the tip (1, 0) to the valley, in a frame folded at the tip.
    dx, dy = 0.45 * math.cos(sector) - 1, 0.45 * math.sin(sector)
    edge = dy * (radius * np.cos(folded) - 1) - dx * radius * np.sin(folded)
    return edge / math.hypot(dx, dy)


# A shape is negative inside, about the distance to its edge; it fits in the unit circle.
SHAPES: Final[Mapping[str, Field]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.27,
    "square": _polygon(4, 0.7),
    "triangle": _polygon(3, 0.5),
    "star": _star,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.3), _box(u, v, 0.3, 0.95)),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.75 - np.hypot(u - 0.5, v)),
    "bar": lambda u, v: _box(u, v, 0.93, 0.33),
}
# A pattern is the share of the second tint.
PATTERNS: Final[Mapping[str, Field]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "striped": lambda u, v: np.where(v % 0.5 < 0.25, 1.0, 0.0),
    "checked": lambda u, v: np.where((u % 0.7 < 0.35) == (v % 0.7 < 0.35), 1.0, 0.0),
    "dotted": lambda u, v: np.where(np.hypot(u % 0.5 - 0.25, v % 0.5 - 0.25) < 0.16, 1.0, 0.0),
    "shaded": lambda u, v: np.clip((v + 1) / 2, 0, 1),
}
# Hue, saturation, value.
COLOURS: Final[Mapping[str, tuple[float, float, float]]] = {
    "red": (0.0, 0.85, 0.85),
    "orange": (0.08, 0.9, 0.95),
    "yellow": (0.15, 0.85, 0.95),
    "green": (0.33, 0.75, 0.65),
    "cyan": (0.49, 0.7, 0.85),
    "blue": (0.62, 0.8, 0.85),
    "purple": (0.76, 0.7, 0.7),
    "pink": (0.9, 0.45, 0.95),
}
GROUNDS: Final[Mapping[str, tuple[float, float, float]]] = {
    "snow": (0.55, 0.04, 0.92),
    "sand": (0.11, 0.35, 0.8),
    "slate": (0.58, 0.12, 0.5),
    "moss": (0.25, 0.45, 0.4),
    "navy": (0.64, 0.6, 0.28),
    "wine": (0.96, 0.55, 0.35),
}
# Radius of an object and offsets of a layout's objects, in image widths.
SIZES: Final[Mapping[str, float]] = {"small": 0.11, "medium": 0.16, "large": 0.23}
LAYOUTS: Final[Mapping[str, Sequence[tuple[float, float]]]] = {
    "solo": [(0.0, 0.0)],
    "pair": [(-0.22, 0.0), (0.22, 0.0)],
    "trio": [(-0.22, 0.18), (0.22, 0.18), (0.0, -0.2)],
    "quad": [(-0.22, -0.22), (0.22, -0.22), (-0.22, 0.22), (0.22, 0.22)],
}
# Grey of the line around an object; none draws no line.
OUTLINES: Final[Mapping[str, float | None]] = {"bare": None, "inked": 0.08, "chalked": 0.95}


def _grain(x: Array, rng: Generator, cells: int, resample: Image.Resampling) -> Array:
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize(x.shape[::-1], resample), dtype=np.float64)


def _rule(x: Array, rng: Generator) -> Array:
    return np.where((x + rng.random()) % 0.14 < 0.05, -1.0, 0.3)


# A texture is a brightness in -1..1, from turned coordinates in image widths.
TEXTURES: Final[Mapping[str, Callable[[Array, Array, Generator], Array]]] = {
    "flat": lambda x, y, rng: np.zeros_like(x),
    "grainy": lambda x, y, rng: _grain(x, rng, 24, Image.Resampling.NEAREST),
    "cloudy": lambda x, y, rng: _grain(x, rng, 4, Image.Resampling.BICUBIC),
    "ruled": lambda x, y, rng: _rule(y, rng),
    "meshed": lambda x, y, rng: np.minimum(_rule(x, rng), _rule(y, rng)),
}
# In the order of a class's name and of the descriptor's columns.
FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "size": tuple(SIZES),
    "outline": tuple(OUTLINES),
    "pattern": tuple(PATTERNS),
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "layout": tuple(LAYOUTS),
    "texture": tuple(TEXTURES),
    "ground": tuple(GROUNDS),
}
# Fixing all families but the largest leaves one class: the most that differ in two families.
MOST_CLASSES: Final = math.prod(map(len, FAMILIES.values())) // max(map(len, FAMILIES.values()))


@dataclass(frozen=True)
class DrawnClass:
    """A class: whether it is seen, and the distribution over the values of every family."""

    name: str
    seen: bool
    chances: Mapping[str, Array]


@dataclass(frozen=True)
class Thing:
    """An object to paint; lengths in image widths, colours RGB in 0..1, no edge draws no line."""

    shape: str
    pattern: str
    fill: Array
    tint: Array
    edge: float | None
    x: float
    y: float
    radius: float
    angle: float


def draw(
    folder: Path,
    *,
    classes: int = 80,
    unseen: int = 20,
    trainval_per_class: int = 30,
    test_per_class: int = 15,
    image_size: int = 64,
    seed: int = 0,
) -> None:
    """Write `images/<class>/<number>.png`, `attributes.csv` and, last, `splits.csv` into `folder`.

    The same arguments give the same bytes. Any two classes differ in two families or more, and
    every main value of an unseen class is a seen class's too. A seen class has
    `trainval_per_class` trainval and `test_per_class` test_seen images, an unseen class
    `test_per_class` test_unseen ones. Raises ValueError where no such data set exists.
    """
    _check(classes, unseen, trainval_per_class, test_per_class, image_size, seed)
    splits = folder / "splits.csv"
    splits.unlink(missing_ok=True)  # it says that a folder is complete
    drawn = _draw_classes(classes, unseen, seed)
    folder.mkdir(parents=True, exist_ok=True)
    columns = [f"{family}:{value}" for family, values in FAMILIES.items() for value in values]
    descriptors = ([each.name, *np.concatenate([*each.chances.values()])] for each in drawn)
    _write_csv(folder / "attributes.csv", ["class", *columns], descriptors)

    seen_splits = ["trainval"] * trainval_per_class + ["test_seen"] * test_per_class
    unseen_splits = ["test_unseen"] * test_per_class
    rows = []
    for index, each in enumerate(tqdm(drawn, desc="drawing", unit="class", disable=None)):
        (folder / "images" / each.name).mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(seen_splits if each.seen else unseen_splits):
            rng = _rng("picture", seed, index, number)
            file = f"images/{each.name}/{number:04d}.png"
            look = {f: FAMILIES[f][rng.choice(len(p), p=p)] for f, p in each.chances.items()}
            _picture(look, rng, image_size).save(folder / file)
            rows.append([file, each.name, split])
    _write_csv(splits, ["file", "class", "split"], rows)


def _rng(*axes: str | int) -> Generator:
    return default_rng(derive_seed("drawn", *axes))


def _check(classes: int, unseen: int, trainval: int, test: int, image_size: int, seed: int) -> None:
    least = {
        "unseen": (unseen, 1),
        "classes - unseen (the seen classes)": (classes - unseen, 2),
        "trainval_per_class": (trainval, 1),
        "test_per_class": (test, 1),
        "image_size": (image_size, 16),
        "seed": (seed, 0),
    }
    for name, (value, bound) in least.items():
        if value < bound:
            raise ValueError(f"{name} is {value}; it must be {bound} or more")
    if classes > MOST_CLASSES:
        raise ValueError(f"classes is {classes}; at most {MOST_CLASSES} differ in two families")


def _draw_classes(classes: int, unseen: int, seed: int) -> list[DrawnClass]:
    """Distinct classes, sorted by name; the unseen ones recombine main values of the seen ones."""
    rng = _rng("classes", seed)
    taken: set[tuple[int, Main]] = set()
    seen = _distinct(classes - unseen, list(FAMILIES.values()), taken, rng)
    # Sorted, as the order of a set of strings changes from one process to the next.
    known = [tuple(sorted(set(values))) for values in zip(*seen, strict=True)]
    new = _distinct(unseen, known, taken, rng)
    # E.g. `small-inked-striped-red-star-pair-on-flat-sand`, 59 characters at most.
    named = sorted(("-".join((*main[:-2], "on", *main[-2:])), main) for main in seen + new)
    return [
        DrawnClass(name, main in seen, _chances(main, _rng("chances", seed, index)))
        for index, (name, main) in enumerate(named)
    ]


def _chances(main: Main, rng: Generator) -> dict[str, Array]:
    """A distribution a family, in whole percents, with its largest share on the main value."""
    chances = {}
    for (family, values), value in zip(FAMILIES.items(), main, strict=True):
        percent = int(rng.integers(*MAIN_PERCENT, endpoint=True))
        rest = rng.multinomial(100 - percent, rng.dirichlet(np.full(len(values) - 1, 0.5)))
        chances[family] = np.insert(rest, values.index(value), percent) / 100
    return chances


def _distinct(
    count: int, values: Sequence[Main], taken: set[tuple[int, Main]], rng: Generator
) -> list[Main]:
    """`count` combinations, each two or more families away from all others; adds to `taken`."""
    found: list[Main] = []
    for _ in range(100 * count):
        main = tuple(options[rng.integers(len(options))] for options in values)
        # Two combinations differ in one family at most where they agree without some family.
        agreements = {(i, main[:i] + main[i + 1 :]) for i in range(len(main))}
        if taken.isdisjoint(agreements):
            taken |= agreements
            found.append(main)
        if len(found) == count:
            return found
    raise ValueError(
        f"found {len(found)} of {count} classes that differ from all others in two families; "
        "ask for fewer classes, or for more seen ones"
    )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(path)


def _picture(look: Mapping[str, str], rng: Generator, size: int) -> Image.Image:
    """An RGB picture, `size` pixels a side, of the values in `look`, with its nuisances."""
    steps = (np.arange(size * SUPERSAMPLING) + 0.5) / (size * SUPERSAMPLING) - 0.5
    x, y = np.meshgrid(steps, steps)
    canvas = _ground(look, x, y, rng)
    if rng.random() < 0.5:  # a distractor
        shape = FAMILIES["shape"][rng.integers(len(SHAPES))]
        _paint(canvas, steps, _clutter(shape, rng.random(3), 0.07, rng))
    for thing in _things(look, rng):
        _paint(canvas, steps, thing)
    if rng.random() < 0.3:  # an occluder
        _paint(canvas, steps, _clutter("bar", np.full(3, rng.uniform(0.2, 0.8)), 0.3, rng))
    return _photograph(canvas, x, y, rng, size)


def _ground(look: Mapping[str, str], x: Array, y: Array, rng: Generator) -> Array:
    texture = TEXTURES[look["texture"]](*_turn(x, y, rng.normal(0, 0.15)), rng)
    brightness = 1 + rng.uniform(0.15, 0.3) * texture
    return _jitter(GROUNDS[look["ground"]], rng) * brightness[..., None]


def _things(look: Mapping[str, str], rng: Generator) -> Iterator[Thing]:
    fill = _jitter(COLOURS[look["colour"]], rng)
    tint = fill + rng.uniform(0.45, 0.7) * (rng.integers(2) - fill)  # towards black or white
    radius = SIZES[look["size"]] * rng.uniform(0.85, 1.15)
    offsets = LAYOUTS[look["layout"]]
    shift = 0.17 if len(offsets) == 1 else 0.05
    left, top = rng.uniform(-shift, shift, 2)
    for right, down in offsets:
        x, y, angle = rng.normal((left + right, top + down, 0), (0.015, 0.015, 0.4))
        edge = OUTLINES[look["outline"]]
        yield Thing(look["shape"], look["pattern"], fill, tint, edge, x, y, radius, angle)


def _clutter(shape: str, fill: Array, radius: float, rng: Generator) -> Thing:
    x, y = rng.uniform(-0.5, 0.5, 2)
    return Thing(shape, "plain", fill, fill, None, x, y, radius, rng.uniform(0, math.tau))


def _paint(canvas: Array, steps: Array, thing: Thing) -> None:
    """Paint `thing` over `canvas`, in place; `steps` are the coordinates of rows and columns."""
    rows, columns = (np.abs(steps - centre) < thing.radius for centre in (thing.y, thing.x))
    x, y = np.meshgrid(steps[columns] - thing.x, steps[rows] - thing.y)
    u, v = _turn(x / thing.radius, y / thing.radius, thing.angle)
    distance = SHAPES[thing.shape](u, v)[..., None]
    colour = thing.fill + PATTERNS[thing.pattern](u, v)[..., None] * (thing.tint - thing.fill)
    if thing.edge is not None:
        colour = np.where(distance > -0.17, thing.edge, colour)
    window = np.ix_(rows, columns)
    canvas[window] = np.where(distance < 0, colour, canvas[window])


def _photograph(canvas: Array, x: Array, y: Array, rng: Generator, size: int) -> Image.Image:
    """Light, downscaling, blur and the noise of pixels."""
    across, _ = _turn(x, y, rng.uniform(0, math.tau))
    light = rng.uniform(0.7, 1.2) * (1 + rng.uniform(0, 0.5) * across)
    fine = Image.fromarray(_bytes(canvas * light[..., None]))
    coarse = fine.resize((size, size), Image.Resampling.BOX)
    blurred = coarse.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.0) * size / 64))
    noise = rng.normal(0, rng.uniform(0.01, 0.06), (size, size, 3))
    return Image.fromarray(_bytes(np.asarray(blurred) / 255 + noise))


def _turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    sine, cosine = math.sin(angle), math.cos(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _jitter(hsv: tuple[float, float, float], rng: Generator) -> Array:
    hue, saturation, value = np.array(hsv) + rng.normal(0, (0.015, 0.05, 0.05))
    return np.array(hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))


def _bytes(canvas: Array) -> NDArray[np.uint8]:
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
