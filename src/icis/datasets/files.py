"""The files that an experiment names, by their keys, so that an absent one is named early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icis import layout
from icis.config import (
    AnyDataset,
    Backbone,
    DescriptorSource,
    DrawnDataset,
    GivenHead,
    ImageNetDataset,
    ImagesDataset,
    TextDescriptors,
    WordDescriptors,
    Xlsa17Dataset,
)
from icis.datasets.paths import expand
from icis.datasets.sources import open_source
from icis.errors import IcisError
from icis.fetching.benchmarks import unavailable
from icis.fetching.catalogue import source_of

IMAGENET = "imagenet-1k"
"""The classes of a head whose rows are ImageNet's classes in the order of sorted wnids."""
DRAWN = "attributes.csv"
"""The descriptors that a drawn data set brings with it."""


@dataclass(frozen=True)
class GivenFile:
    """A file by its key in the experiment file; a relative name may also lie inside ``root``.

    One that ``icis data`` fetches is stood for by its source's receipt.
    """

    key: str
    name: str
    root: str | None = None

    def path(self) -> Path:
        """Return where the file lies; for one inside a tar, the tar."""
        source = source_of(self.name)
        if source is not None:
            return layout.receipt(source)
        path = expand(self.name)
        if self.root is None or path.is_absolute() or path.is_file():
            return path
        root = expand(self.root)
        return root if root.is_file() else root / path

    def problem(self) -> str | None:
        """Say why the file cannot be read, if so."""
        source = source_of(self.name)
        if source is not None:
            reason = None if layout.receipt(source).exists() else unavailable(source)
            return None if reason is None else f"{self.key}: {reason}"
        try:
            path = self.path()
            if self.root is not None and path == expand(self.root):
                if open_source(path).has(self.name):
                    return None
                return f"{self.key}: {self.name} is neither a file here nor inside {path}"
        except IcisError as error:
            return f"{self.key}: {error}"
        return None if path.exists() else f"{self.key}: {path} does not exist"


def index_files(dataset: str, data: AnyDataset) -> Iterator[GivenFile]:
    """Yield the files that an index is read from; none where the data set is drawn."""
    where = f"datasets.{dataset}"
    if isinstance(data, Xlsa17Dataset):
        yield GivenFile(f"{where}.splits", data.splits)
        key = "labels" if data.labels else f"features.{next(iter(data.features))}"
        yield GivenFile(f"{where}.{key}", data.labels_file)
        for key, name in (("images", data.images), ("boxes", data.boxes)):
            if name is not None:
                yield GivenFile(f"{where}.{key}", name)
    elif isinstance(data, ImageNetDataset):
        yield GivenFile(f"{where}.root", data.root)
    elif isinstance(data, ImagesDataset):
        yield GivenFile(f"{where}.root", data.root)
        yield GivenFile(f"{where}.splits", data.splits, data.root)
        if data.class_list is not None:
            yield GivenFile(f"{where}.class_list", data.class_list, data.root)


def images_files(dataset: str, data: AnyDataset) -> Iterator[GivenFile]:
    """Yield the folder of images, where it is named apart from a table of splits."""
    if isinstance(data, Xlsa17Dataset) and data.images is not None:
        yield GivenFile(f"datasets.{dataset}.images", data.images)
    elif isinstance(data, ImageNetDataset):
        yield GivenFile(f"datasets.{dataset}.root", data.root)


def descriptor_files(dataset: str, data: AnyDataset, descriptor: str) -> Iterator[GivenFile]:
    """Yield the files that a data set's descriptor is made of."""
    where, source = f"datasets.{dataset}.descriptors.{descriptor}", data.descriptors[descriptor]
    drawn = isinstance(data, DrawnDataset) and getattr(source, "file", None) == DRAWN
    if not drawn:
        root = data.root if isinstance(data, ImagesDataset) else None
        yield from _source_files(where, source, root)


def _source_files(where: str, source: DescriptorSource, root: str | None) -> Iterator[GivenFile]:
    if isinstance(source, WordDescriptors):
        named = {"vectors": source.vectors, "names": source.names}
    elif isinstance(source, TextDescriptors):
        folder = source.model.removeprefix("local-dir:")
        local = folder if folder != source.model else None
        named = {"model": local, "descriptions": source.descriptions, "names": source.names}
    else:
        yield GivenFile(f"{where}.file", source.file, root)
        named = {"classes": source.classes}
    for key, name in named.items():
        if name is not None:
            yield GivenFile(f"{where}.{key}", name)


def weight_files(name: str, backbone: Backbone) -> Iterator[GivenFile]:
    """Yield the files of a backbone in a folder."""
    if backbone.weights.startswith("local-dir:"):
        folder = backbone.weights.removeprefix("local-dir:")
        for file in ("config.json", "model.safetensors"):
            yield GivenFile(f"backbones.{name}.weights", f"{folder}/{file}")


def head_files(slug: str, head: GivenHead) -> Iterator[GivenFile]:
    """Yield the files of a given head; the backbone's own classifier has none of its own."""
    where = f"heads.{slug.removeprefix('given-')}"
    if head.file is not None:
        yield GivenFile(f"{where}.file", head.file)
    if head.classes is not None and head.classes != IMAGENET and not is_array(head):
        yield GivenFile(f"{where}.classes", head.classes)


def is_array(head: GivenHead) -> bool:
    """Say whether the head's class names are an array in its .npz, not a text file."""
    npz = head.file is not None and head.file.endswith(".npz")
    return npz and head.classes is not None and not head.classes.endswith(".txt")


def head_descriptor_files(slug: str, head: GivenHead, descriptor: str) -> Iterator[GivenFile]:
    """Yield the files that the descriptors of a given head's classes are read from."""
    where = f"heads.{slug.removeprefix('given-')}.descriptors.{descriptor}"
    yield from _source_files(where, head.descriptors[descriptor], None)
