"""Data sets and their descriptors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from icis.config.names import Count, Name
from icis.schema import Strict


class DescriptorSource(Strict):
    """A vector for every class, from a .mat, .npy, .csv or .parquet file."""

    file: str
    """The file; ``${NAME}`` and ``${NAME:-default}`` are taken from the environment. A relative
    path that does not exist here is looked for inside the data set's ``root``."""
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
        "att": DescriptorSource(file="attributes.csv", normalize="l2")
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
    """Features and splits in the xlsa17 layout, with any file names."""

    kind: Literal["xlsa17"]
    splits: str
    """The .mat file with ``allclasses_names``, ``trainval_loc``, ``test_seen_loc``,
    ``test_unseen_loc``."""
    features: Annotated[dict[Name, str], Field(min_length=1)]
    """Backbone name to a .mat file with ``features`` [D, N], ``labels`` and ``image_files``."""

    @model_validator(mode="before")
    @classmethod
    def _own_descriptors(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and "descriptors" not in data
            and isinstance(data.get("splits"), str)
        ):
            return {**data, "descriptors": {"att": {"file": data["splits"]}}}
        return data


AnyDataset = Annotated[DrawnDataset | ImagesDataset | Xlsa17Dataset, Field(discriminator="kind")]
