"""The files that an experiment is read from, before its first stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from icis import layout
from icis.config import AnyHead, DrawnDataset, Experiment, GivenHead, Xlsa17Dataset
from icis.datasets.files import (
    GivenFile,
    descriptor_files,
    head_descriptor_files,
    head_files,
    images_files,
    index_files,
    weight_files,
)
from icis.fetching.catalogue import source_of
from icis.references import lookup

if TYPE_CHECKING:
    from icis.plan import Cell


class ExperimentFiles:
    """Which given files each artifact is made of; ``unread_*``: as long as it is not made.

    What was made into an artifact may be gone, for example after ``dvc pull`` on another machine.
    """

    def __init__(self, experiment: Experiment, heads: Mapping[str, AnyHead]) -> None:
        self.experiment, self.heads = experiment, heads

    def index(self, dataset: str) -> list[Path]:
        """Return the files that an index is read from."""
        data = lookup(self.experiment.datasets, dataset, "data set")
        if isinstance(data, DrawnDataset):
            return [layout.raw(dataset) / "splits.csv"]
        return _paths(list(index_files(dataset, data)))

    def descriptor(self, dataset: str, descriptor: str) -> list[Path]:
        """Return the files that a descriptor is made of."""
        return _paths(self._descriptor(dataset, descriptor))

    def features(self, dataset: str, backbone: str) -> list[Path]:
        """Return the files that features are taken from: a features file, or images and weights.

        The images of a drawn data set and of one with a table of splits come with its index.
        """
        return _paths(self._features(dataset, backbone))

    def heads_of(self, head: str, backbone: str) -> list[Path]:
        """Return the files that a given head is read from; none for one that is trained here."""
        return _paths(self.head(head, backbone))

    def head_descriptor(self, head: str, descriptor: str) -> list[Path]:
        """Return the files that the descriptors of a given head's classes are made of."""
        recipe = lookup(self.heads, head, "head")
        assert isinstance(recipe, GivenHead)
        return _paths(list(head_descriptor_files(head, recipe, descriptor)))

    def head(self, head: str, backbone: str) -> list[GivenFile]:
        """Return the files that a given head is read from, by their keys."""
        recipe = lookup(self.heads, head, "head")
        if not isinstance(recipe, GivenHead):
            return []
        own = recipe.file is None and backbone in self.experiment.backbones
        weights = weight_files(backbone, self.experiment.backbones[backbone]) if own else ()
        return [*head_files(head, recipe), *weights]

    def unread_dataset(self, dataset: str, backbone: str) -> list[GivenFile]:
        """Return the files of index and features that are still to be read."""
        found: list[GivenFile] = []
        if not layout.index(dataset).exists():
            found += index_files(dataset, lookup(self.experiment.datasets, dataset, "data set"))
        if not layout.features(dataset, backbone).exists():
            found += self._features(dataset, backbone)
        return found

    def unread_descriptor(self, dataset: str, descriptor: str) -> list[GivenFile]:
        """Return the files of a descriptor that are still to be read."""
        if layout.descriptors(dataset, descriptor).exists():
            return []
        return self._descriptor(dataset, descriptor)

    def unread_head_descriptor(self, head: str, descriptor: str) -> list[GivenFile]:
        """Return the files of a head's descriptors that are still to be read."""
        recipe = lookup(self.heads, head, "head")
        if not isinstance(recipe, GivenHead) or recipe.classes is None:
            return []
        if layout.head_descriptors(head, descriptor).exists():
            return []
        return list(head_descriptor_files(head, recipe, descriptor))

    def sources(self, cells: Iterable[Cell]) -> list[str]:
        """Return the sources that the cells' data sets and descriptors are fetched from, sorted."""
        found: list[GivenFile] = []
        for cell in cells:
            found += index_files(cell.dataset, self.experiment.datasets[cell.dataset])
            found += self._features(cell.dataset, cell.backbone)
            found += self._descriptor(cell.dataset, cell.descriptor)
            if isinstance(cell.recipe, GivenHead) and cell.recipe.classes is not None:
                found += head_descriptor_files(cell.head, cell.recipe, cell.descriptor)
        return sorted({name for file in found if (name := source_of(file.name)) is not None})

    def _descriptor(self, dataset: str, descriptor: str) -> list[GivenFile]:
        data = lookup(self.experiment.datasets, dataset, "data set")
        return list(descriptor_files(dataset, data, descriptor))

    def _features(self, dataset: str, backbone: str) -> list[GivenFile]:
        data = lookup(self.experiment.datasets, dataset, "data set")
        if isinstance(data, Xlsa17Dataset) and backbone in data.features:
            key = f"datasets.{dataset}.features.{backbone}"
            return [GivenFile(key, data.features[backbone])]
        weights = weight_files(backbone, lookup(self.experiment.backbones, backbone, "backbone"))
        return [*images_files(dataset, data), *weights]


def _paths(files: list[GivenFile]) -> list[Path]:
    return list(dict.fromkeys(file.path() for file in files))
