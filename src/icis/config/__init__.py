"""The typed model of an experiment file; ``params.yaml`` is one."""

from icis.config.datasets import (
    AnyDataset,
    Dataset,
    DescriptorSource,
    DrawnDataset,
    FileDescriptors,
    ImageNetDataset,
    ImagesDataset,
    TextDescriptors,
    WordDescriptors,
    Xlsa17Dataset,
)
from icis.config.experiment import NEED_HELD_OUT, Experiment, Figure, HeldOut, Table
from icis.config.models import AnyHead, Backbone, GivenHead, SeenHead, Training, Transform
from icis.config.reading import parse_experiment, read_experiment

__all__ = [
    "NEED_HELD_OUT",
    "AnyDataset",
    "AnyHead",
    "Backbone",
    "Dataset",
    "DescriptorSource",
    "DrawnDataset",
    "Experiment",
    "Figure",
    "FileDescriptors",
    "GivenHead",
    "HeldOut",
    "ImageNetDataset",
    "ImagesDataset",
    "SeenHead",
    "Table",
    "TextDescriptors",
    "Training",
    "Transform",
    "WordDescriptors",
    "Xlsa17Dataset",
    "parse_experiment",
    "read_experiment",
]
