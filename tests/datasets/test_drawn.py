"""The drawn data set: the same bytes for the same arguments, and a fair zero-shot task."""

import csv
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icis.datasets.drawn import FAMILIES, MOST_CLASSES, PATTERNS, SHAPES, TEXTURES, draw

SMALL = {
    "classes": 12,
    "unseen": 4,
    "trainval_per_class": 3,
    "test_per_class": 2,
    "image_size": 24,
}
MANY = {**SMALL, "classes": 80, "unseen": 20, "trainval_per_class": 1, "test_per_class": 1}


@dataclass(frozen=True)
class Read:
    """A drawn folder, read with nothing of the module under test but its families."""

    folder: Path
    files: list[dict[str, str]]
    columns: list[str]
    descriptors: dict[str, np.ndarray]

    @classmethod
    def of(cls, folder: Path) -> "Read":
        with (folder / "splits.csv").open(newline="") as stream:
            files = list(csv.DictReader(stream))
        with (folder / "attributes.csv").open(newline="") as stream:
            (first, *columns), *rows = csv.reader(stream)
        assert first == "class"
        return cls(folder, files, columns, {row[0]: np.array(row[1:], float) for row in rows})

    def classes(self, *splits: str) -> set[str]:
        return {row["class"] for row in self.files if row["split"] in splits}

    def families(self, name: str) -> list[np.ndarray]:
        """A class's descriptor, cut at the families."""
        ends = np.cumsum([len(values) for values in FAMILIES.values()])
        return np.split(self.descriptors[name], ends[:-1])

    def main(self, name: str) -> tuple[str, ...]:
        """The most frequent value of every family."""
        parts = zip(FAMILIES.values(), self.families(name), strict=True)
        return tuple(values[part.argmax()] for values, part in parts)

    def main_values(self, *splits: str) -> set[tuple[int, str]]:
        """Every (family's number, main value) of the classes of these splits."""
        return {pair for name in self.classes(*splits) for pair in enumerate(self.main(name))}

    def least_difference(self) -> int:
        """The number of families in which the two most similar classes differ."""
        pairs = combinations(map(self.main, self.descriptors), 2)
        return min(sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs)


def read_bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Read:
    folder = tmp_path_factory.mktemp("small")
    draw(folder, **SMALL)
    return Read.of(folder)


@pytest.fixture(scope="module", params=[0, 1, 2])
def many(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Read:
    folder = tmp_path_factory.mktemp("many")
    draw(folder, **MANY, seed=request.param)
    return Read.of(folder)


def test_same_arguments_same_bytes_in_another_process(small: Read, tmp_path: Path) -> None:
    # Another process has another order of sets of strings.
    code = "from pathlib import Path; from icis.datasets.drawn import draw; "
    code += f"draw(Path({str(tmp_path)!r}), **{SMALL})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert read_bytes(tmp_path) == read_bytes(small.folder)


def test_another_seed_draws_other_classes_and_pictures(small: Read, tmp_path: Path) -> None:
    draw(tmp_path, **SMALL, seed=1)
    assert Read.of(tmp_path).descriptors.keys() != small.descriptors.keys()
    pictures = [
        {content for path, content in read_bytes(folder).items() if path.endswith(".png")}
        for folder in (tmp_path, small.folder)
    ]
    assert pictures[0].isdisjoint(pictures[1])


def test_pictures_do_not_depend_on_how_many_follow(small: Read, tmp_path: Path) -> None:
    draw(tmp_path, **{**SMALL, "trainval_per_class": 4})
    longer = read_bytes(tmp_path)
    for path, content in read_bytes(small.folder).items():
        if path.endswith(".png"):
            assert longer[path] == content, path


def test_every_class_has_its_share_of_every_split(small: Read) -> None:
    counts = Counter((row["class"], row["split"]) for row in small.files)
    seen, unseen = small.classes("trainval"), small.classes("test_unseen")
    assert (len(seen), len(unseen)) == (8, 4)
    assert counts == {
        **{(name, "trainval"): 3 for name in seen},
        **{(name, "test_seen"): 2 for name in seen},
        **{(name, "test_unseen"): 2 for name in unseen},
    }
    assert seen | unseen == small.descriptors.keys()


def test_splits_list_exactly_the_files_drawn(small: Read) -> None:
    listed = [row["file"] for row in small.files]
    assert len(set(listed)) == len(listed)
    assert {*listed, "splits.csv", "attributes.csv"} == read_bytes(small.folder).keys()
    assert all(row["file"].startswith(f"images/{row['class']}/") for row in small.files)


def test_pictures_are_rgb_of_the_size_asked_and_all_different(small: Read) -> None:
    contents = set()
    for row in small.files:
        with Image.open(small.folder / row["file"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (24, 24))
            assert np.asarray(image).std() > 3, row["file"]
            contents.add(image.tobytes())
    assert len(contents) == len(small.files)


def test_descriptors_are_distributions_over_eight_families(many: Read) -> None:
    assert many.columns == [f"{family}:{v}" for family, values in FAMILIES.items() for v in values]
    assert len(FAMILIES) == 8
    assert 35 <= len(many.columns) <= 50
    for name, descriptor in many.descriptors.items():
        assert descriptor.min() >= 0
        assert descriptor.max() <= 1
        for part in many.families(name):
            assert part.sum() == pytest.approx(1)
            assert part.max() > 0.5


def test_any_two_classes_differ_in_two_families(many: Read) -> None:
    assert many.least_difference() >= 2


def test_seen_classes_have_every_main_value_of_the_unseen(many: Read) -> None:
    seen = many.main_values("trainval", "test_seen")
    assert seen >= many.main_values("test_unseen")


def test_names_are_short_slugs_of_the_main_values(many: Read) -> None:
    for name in many.descriptors:
        words = [word for word in name.split("-") if word != "on"]
        assert tuple(words) == many.main(name)
        assert len(name) <= 60
        assert name.isascii()


def test_no_name_can_exceed_60_characters_or_be_ambiguous() -> None:
    values = [value for family in FAMILIES.values() for value in family]
    assert len(set(values)) == len(values)
    assert all(value.isalpha() and value.islower() for value in values)
    longest = sum(max(map(len, family)) for family in FAMILIES.values())
    assert longest + len("-on") + len(FAMILIES) - 1 <= 60


def test_pictures_show_the_descriptor(tmp_path: Path) -> None:
    """The mean brightness of pictures follows the grounds that their class's descriptor says."""
    draw(tmp_path, **{**MANY, "trainval_per_class": 8, "image_size": 16})
    read = Read.of(tmp_path)
    bright, stated = [], []
    for name in sorted(read.classes("trainval")):
        files = [row["file"] for row in read.files if row["class"] == name]
        bright.append(np.mean([np.asarray(Image.open(tmp_path / file)) for file in files]))
        snow, sand, _, _, navy, wine = read.families(name)[-1]
        stated.append(snow + sand - navy - wine)
    assert np.corrcoef(bright, stated)[0, 1] > 0.8


@pytest.mark.parametrize("fields", [SHAPES, PATTERNS], ids=["shapes", "patterns"])
def test_values_of_a_family_look_different(fields: dict) -> None:
    steps = np.linspace(-1, 1, 65)
    u, v = np.meshgrid(steps, steps)
    drawn = {
        name: field(u, v) < (0.5 if fields is PATTERNS else 0) for name, field in fields.items()
    }
    for one, other in combinations(drawn, 2):
        assert np.mean(drawn[one] != drawn[other]) > 0.04, (one, other)


def test_shapes_fit_in_the_window_they_are_painted_in() -> None:
    steps = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(steps, steps)
    for name, field in SHAPES.items():
        assert np.hypot(u, v)[field(u, v) < 0].max() <= 1, name


def test_textures_keep_their_range() -> None:
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 48), np.linspace(-0.5, 0.5, 48))
    for (name, texture), seed in product(TEXTURES.items(), range(3)):
        brightness = texture(x, y, np.random.default_rng(seed))
        assert brightness.shape == x.shape
        assert np.abs(brightness).max() <= 1.3, name  # a bicubic overshoots
        assert (brightness.std() > 0.1) == (name != "flat")


@pytest.mark.parametrize("seed", range(3))
def test_two_seen_classes_make_many_unseen_ones(seed: int, tmp_path: Path) -> None:
    draw(tmp_path, **{**MANY, "classes": 14, "unseen": 12, "image_size": 16}, seed=seed)
    read = Read.of(tmp_path)
    assert len(read.classes("trainval")) == 2
    assert len(read.classes("test_unseen")) == 12
    assert read.main_values("trainval") >= read.main_values("test_unseen")
    assert read.least_difference() >= 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"unseen": 12}, r"seen classes\) is 0; it must be 2 or more"),
        ({"unseen": 11}, r"seen classes\) is 1; it must be 2 or more"),
        ({"unseen": 0}, "unseen is 0; it must be 1 or more"),
        ({"trainval_per_class": 0}, "trainval_per_class is 0"),
        ({"test_per_class": 0}, "test_per_class is 0"),
        ({"image_size": 15}, "image_size is 15; it must be 16 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": MOST_CLASSES + 1}, f"at most {MOST_CLASSES}"),
        # Two seen classes recombine to 2**8 combinations, of which half differ in two families.
        ({"classes": 200, "unseen": 198}, "of 198 classes .* ask for fewer classes"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    wrong: dict[str, int], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match=message):
        draw(folder, **{**SMALL, **wrong})
    assert not folder.exists()


def test_a_stopped_run_leaves_no_splits(
    small: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, **SMALL, seed=1)
    saved = 0

    def stop(image: Image.Image, path: Path) -> None:
        nonlocal saved
        saved += 1
        if saved == 5:
            raise KeyboardInterrupt
        path.write_bytes(b"")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path, **SMALL)
    assert not (tmp_path / "splits.csv").exists()

    draw(tmp_path, **SMALL)
    again = read_bytes(tmp_path)
    assert all(again[path] == content for path, content in read_bytes(small.folder).items())
