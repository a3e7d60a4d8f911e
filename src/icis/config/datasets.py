"""Data sets and their descriptors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from icis.config.names import Count, Name
from icis.schema import Strict


class FileDescriptors(Strict):
    """A vector for every class, from a .mat, .npy, .csv or .parquet file."""

    kind: Literal["file"] = "file"
    file: str
    """The file; ``${NAME}`` and ``${NAME:-default}`` are taken from the environment,
    ``fetched:SOURCE/PATTERN`` is a file of a source that ``icis data`` fetches. A relative path
    that does not exist here is looked for inside the data set's ``root``."""
    key: str = "att"
    """.mat: the variable, [d, C] or [C, d]."""
    classes: str | None = None
    """.npy, .mat: a text file with a class name per row (text after a tab is ignored). Default:
    the names in the .mat file, else the order of the data set's classes."""
    class_column: str = "class"
    """.csv, .parquet: the column of class names; every other column is a component."""
    normalize: Literal["none", "l2"] = "none"
    """Scale each class's vector to length 1."""
    optional: bool = False
    """Where the file is absent, leave the cells that need it empty instead of refusing to run."""


class WordDescriptors(Strict):
    """The vector of every class's name, from a table of word vectors; words are averaged."""

    kind: Literal["words"]
    vectors: str
    """A text file of word vectors (a word and its components a line; a first line of two counts is
    skipped), also as .gz or .bz2."""
    names: str | None = None
    """A text file that gives classes the names to look up: class, tab, name. By default names are
    made from the class names: ``002.Laysan_Albatross`` is laysan albatross, ``grizzly+bear`` is
    grizzly bear, a wnid of ImageNet is its first synonym."""
    normalize: Literal["none", "l2"] = "l2"
    """Scale each class's vector to length 1."""
    optional: bool = False
    """Where the file is absent, leave the cells that need it empty instead of refusing to run."""


class TextDescriptors(Strict):
    """A text encoder's embedding of every class's name in sentences, or of free descriptions."""

    kind: Literal["text"]
    library: Literal["open_clip", "sentence-transformers"] = "open_clip"
    model: str
    """``hf-hub:ORG/NAME``, ``local-dir:FOLDER``, or what the library itself calls a model:
    ``RN101/openai`` (open_clip's model and weights), a hub name (sentence-transformers)."""
    templates: list[str] = ["a photo of {article} {name}"]
    """Sentences made of a class's name; a class's vector is the normalised mean of their
    normalised embeddings. ``{article}`` is "an" before a, e, i, o, else "a"."""
    descriptions: str | None = None
    """A text file of free descriptions in place of names: class, tab, sentence; a class may have
    several lines, of which the mean is taken. Templates do not apply."""
    names: str | None = None
    """A text file that gives classes the names to use: class, tab, name (see ``words``)."""
    normalize: Literal["none", "l2"] = "l2"
    """Scale each class's vector to length 1."""
    optional: bool = False
    """Where a file is absent, leave the cells that need it empty instead of refusing to run."""

    @field_validator("templates")
    @classmethod
    def _named(cls, value: list[str]) -> list[str]:
        if not value or any("{name}" not in template for template in value):
            raise ValueError("should be sentences, each with {name} in it")
        for template in value:
            try:
                template.format(name="", article="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError("should hold {name} and {article} only, in braces") from error
        return value


def _descriptor_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("kind", "file")
    return getattr(value, "kind", "file")  # what is no mapping at all is refused as one


DescriptorSource = Annotated[
    Annotated[FileDescriptors, Tag("file")]
    | Annotated[WordDescriptors, Tag("words")]
    | Annotated[TextDescriptors, Tag("text")],
    Discriminator(_descriptor_kind),
]


class Dataset(Strict):
    """What all kinds of data sets share."""

    kind: str
    descriptors: dict[Name, DescriptorSource] = {}
    batch_size: Count = 16
    """Rows a batch, for seen heads and injectors that name none themselves."""
    split_version: str = "own"
    """Which published split this is, for the record: for example ``xlsa17-2.0``."""
    optional: bool = False
    """Where its files are absent, leave the cells that need it empty instead of refusing to run."""


class DrawnDataset(Dataset):
    """The embedded data set: images that the project draws itself from visual attributes."""

    kind: Literal["drawn"]
    classes: Count = 80
    unseen: Count = 20
    trainval_per_class: Count = 30
    test_per_class: Count = 15
    image_size: Annotated[int, Field(ge=16)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    descriptors: dict[Name, DescriptorSource] = {
        "att": FileDescriptors(file="attributes.csv", normalize="l2")
    }
    split_version: str = "drawn"

    @model_validator(mode="after")
    def _check(self) -> DrawnDataset:
        if self.unseen > self.classes - 2:
            raise ValueError(
                f"{self.unseen} unseen of {self.classes} classes leave too few seen: "
                "at least 2 classes must be seen"
            )
        return self


class ImagesDataset(Dataset):
    """Images in a folder or a tar, with a CSV or Parquet file of splits."""

    kind: Literal["images"]
    root: str
    """A folder, or an uncompressed .tar that is read in place."""
    splits: str = "splits.csv"
    """The table of splits: a row an image, in ``root`` or elsewhere."""
    file_column: str = "file"
    """The column with the image's path inside ``root``."""
    class_column: str = "class"
    split_column: str = "split"
    """Holds trainval, test_seen or test_unseen."""
    class_list: str | None = None
    """A text file of class names, one a line (text after a tab is ignored), which fixes their
    order. Default: the classes of the splits, sorted."""
    test_only: bool = False
    """All its images are test_seen: it measures S of a given head and nothing else."""


class Xlsa17Dataset(Dataset):
    """Splits, and features or images, in the layout of Xian et al.'s Proposed Splits ("xlsa17").

    ``fetched:SOURCE/PATTERN`` in a path is a file of a source that ``icis data`` fetches.
    """

    kind: Literal["xlsa17"]
    benchmark: str | None = None
    """A data set that ``icis data list`` names: gives ``splits``, ``labels``, ``images``, ``boxes``
    and ``counts`` where they are left out."""
    splits: str
    """The .mat file with ``allclasses_names``, ``trainval_loc``, ``test_seen_loc``,
    ``test_unseen_loc``."""
    labels: str | None = None
    """The .mat file with ``labels`` and ``image_files`` in the order that the splits count in. By
    default the first features file."""
    features: dict[Name, str] = {}
    """Backbone name to a .mat file with ``features`` [D, N], ``labels`` and ``image_files``. Other
    backbones see the images."""
    images: str | None = None
    """The folder or .tar in which the images of ``image_files`` lie; joined by name."""
    boxes: str | None = None
    """aPY: the folder of the lists of objects; an image is the box of an object, not a file."""
    counts: dict[str, Count] = {}
    """Published numbers of classes, seen, unseen, images, trainval, test_seen, test_unseen and
    attributes, which the files must have."""
    split_version: str = "recognise"
    """Which published split this is; ``recognise`` reads it off the file where that can be done."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("benchmark"), str):
            from icis.fetching.benchmarks import benchmark_settings

            data = {**benchmark_settings(data["benchmark"]), **data}
        if "descriptors" not in data and isinstance(data.get("splits"), str):
            data = {**data, "descriptors": {"att": {"file": data["splits"]}}}
        return data

    @model_validator(mode="after")
    def _check(self) -> Xlsa17Dataset:
        if not self.features and self.labels is None:
            raise ValueError(
                "labels or features: one is needed, a .mat file with the images' labels"
            )
        if not self.features and self.images is None:
            raise ValueError("features or images: one is needed to work with")
        return self

    @property
    def labels_file(self) -> str:
        """Return the file that labels and image names are read from."""
        return self.labels or next(iter(self.features.values()))


class ImageNetDataset(Dataset):
    """ImageNet's validation images in a folder that the user has: it measures S of a given head.

    Folders named by wnid, or all images in one folder with ``LOC_val_solution.csv``, or with the
    development kit's ``ILSVRC2012_validation_ground_truth.txt`` and ``meta.mat``.
    """

    kind: Literal["imagenet-val"]
    root: str
    """The folder, or an uncompressed .tar with wnid folders."""

    @property
    def test_only(self) -> bool:
        """Say that all its images are test_seen."""
        return True


AnyDataset = Annotated[
    DrawnDataset | ImagesDataset | Xlsa17Dataset | ImageNetDataset, Field(discriminator="kind")
]
