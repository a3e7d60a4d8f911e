"""Small data sets: their classes, attributes, images and splits, in no archive yet."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from icis.seeding import derive_seed

COLOURS = (
    "Red", "Green", "Blue", "White", "Black", "Golden", "Violet", "Grey", "Brown", "Orange",
    "Scarlet", "Olive", "Crimson", "Pale",
)  # fmt: skip
BIRDS = (
    "Albatross", "Auklet", "Blackbird", "Bunting", "Cardinal", "Catbird", "Finch", "Gull", "Jay",
    "Tern",
)  # fmt: skip
ANIMALS = (
    "antelope", "grizzly+bear", "killer+whale", "beaver", "dalmatian", "persian+cat", "horse",
    "german+shepherd", "blue+whale", "siamese+cat", "skunk", "mole", "tiger", "hippopotamus",
    "leopard", "moose", "spider+monkey", "elephant", "gorilla", "ox",
)  # fmt: skip
SCENES = (
    "abbey", "access_road", "airfield", "airlock", "airplane_cabin", "alcove", "alley", "arch",
    "church_indoor", "church_outdoor", "aquarium", "archive", "attic", "bakery_shop", "balcony",
    "bank_vault", "bar", "barn", "basilica", "bathroom", "beach", "bedroom", "bistro_indoor",
    "boathouse", "bookstore",
)  # fmt: skip
THINGS = ("aeroplane", "bicycle", "bird", "boat", "bottle", "monkey", "goat", "mug", "statue")
SPLITS = ("trainval", "test_seen", "test_unseen")


@dataclass(frozen=True)
class Picture:
    """An image of a data set: its class's number, its split, where it lies, its JPEG."""

    label: int
    split: str
    path: str
    jpeg: bytes


@dataclass
class Small:
    """A small data set: names in xlsa17's order, which is no order of the alphabet."""

    name: str
    names: list[str]
    unseen: set[int]
    attributes: np.ndarray
    folder: str
    """The foreign folder that xlsa17's image_files begin with."""
    pictures: list[Picture] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Return the numbers that are published of a data set."""
        splits = [picture.split for picture in self.pictures]
        return {
            "classes": len(self.names),
            "seen": len(self.names) - len(self.unseen),
            "unseen": len(self.unseen),
            "attributes": self.attributes.shape[1],
            "images": len(self.pictures),
            **{split: splits.count(split) for split in SPLITS},
        }


def small(name, names, unseen, *, width, folder, path, trainval=2, test=1, seed=0):
    """Make a small data set; ``path(class name, number)`` is where an image lies."""
    rng = np.random.default_rng(derive_seed("miniature", name, seed))
    order = rng.permutation(len(names))
    names = [names[each] for each in order]
    attributes = rng.random((len(names), width))
    found = Small(name, names, {*range(len(names) - unseen, len(names))}, attributes, folder)
    number = 0
    for label, each in enumerate(names):
        many = trainval + 4 * (label % 5 == 0)  # some classes have enough to hold a tenth out
        splits = ["trainval"] * many + ["test_seen"] * test
        if label in found.unseen:
            splits = ["test_unseen"] * (test + 1)
        for split in splits:
            number += 1
            jpeg = picture(attributes[label], rng)
            found.pictures.append(Picture(label, split, path(each, number), jpeg))
    return found


def picture(attributes, rng, size=48):
    """Return a JPEG whose colour, gradient and stripes show the first attributes."""
    across, down = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    along = across + attributes[5] * down
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * (1 + 7 * attributes[4]) * along)
    light = attributes[:3] * (0.4 + 0.6 * waves[:, :, None]) + 0.2 * attributes[3] * down[..., None]
    noise = rng.normal(0, 0.04, (size, size, 3))
    pixels = (255 * np.clip(light + noise, 0, 1)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=90)
    return data.getvalue()


def cub():
    """Return birds: 130 seen classes, since the paper's curve begins at 125."""
    kinds = [f"{colour}_{bird}" for bird in BIRDS for colour in COLOURS]
    names = [f"{number:03d}.{kind}" for number, kind in enumerate(kinds, start=1)]
    return small(
        "CUB", names, 10, width=12, folder="/BS/Deep/work/MSc/CUB_200_2011/CUB_200_2011/images/",
        path=lambda name, number: f"{name}/{name[4:]}_{number:04d}_{7 * number}.jpg",
    )  # fmt: skip


def awa2():
    """Return animals: the .mat file's names begin with a double slash."""
    return small(
        "AWA2", list(ANIMALS), 4, width=10, trainval=4,
        folder="/BS/xian/work/data/Animals_with_Attributes2//JPEGImages/",
        path=lambda name, number: f"{name}/{name}_{10000 + number}.jpg",
    )  # fmt: skip


def sun():
    """Return scenes, in folders by their first letter, indoor and outdoor one folder deeper."""

    def path(name, number):
        for part in ("_indoor", "_outdoor"):
            if name.endswith(part):
                name = name.removesuffix(part) + "/" + part[1:]
        return f"{name[0]}/{name}/sun_a{number:05d}.jpg"

    return small("SUN", list(SCENES), 5, width=9, folder="/BS/Deep/work/MSc/SUN/images/", path=path)


def flo():
    """Return flowers, all in one folder and without class names."""
    names = [f"class-{number:03d}" for number in range(1, 13)]
    found = small(
        "FLO", names, 3, width=14, folder="/home/someone/flowers/jpg/",
        path=lambda name, number: f"image_{number:05d}.jpg",
    )  # fmt: skip
    found.names.sort()  # classes without names are known by their numbers
    return found


def apy():
    """Return objects; a picture is a box of an image, which several may share."""
    return small(
        "APY", list(THINGS), 3, width=8, folder="/BS/work/aPY/images/",
        path=lambda name, number: f"2008_{number:06d}.jpg",
    )  # fmt: skip


def awa1():
    """Return animals of which there are features, and no images."""
    return small(
        "AWA1", list(ANIMALS), 4, width=10, folder="./features/ResNet101/",
        path=lambda name, number: f"{name}/{name}_{number:04d}.jpg",
    )  # fmt: skip
