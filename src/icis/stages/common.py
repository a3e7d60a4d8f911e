"""What the stages share: device, progress bars, locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from tqdm import tqdm

from icis.config import ImageNetDataset, ImagesDataset, Xlsa17Dataset
from icis.datasets.paths import expand
from icis.datasets.sources import ImageSource, open_source, with_parts
from icis.errors import IcisError
from icis.layout import raw

if TYPE_CHECKING:
    import polars as pl

    from icis.methods.base import Progress
    from icis.plan import Plan


def pick_device(wanted: str = "auto") -> str:
    """Return the torch device: ``auto`` takes a GPU where there is one."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise IcisError(f"device {wanted} is asked for, but torch sees no GPU; use cpu or auto")
    return wanted


def trains_together(device: str) -> bool:
    """Whether trainings of one shape run as one program: on a GPU, which one alone leaves idle.

    On the CPU a loop is faster. ``ICIS_TOGETHER=1`` or ``0`` decides otherwise.
    """
    wanted = os.environ.get("ICIS_TOGETHER", "")
    if wanted not in ("", "0", "1"):
        raise IcisError(f"ICIS_TOGETHER is {wanted!r}: set it to 1 or 0, or leave it out")
    return wanted == "1" if wanted else device.startswith("cuda")


def device_name(device: str) -> str:
    """Return the device as it is recorded beside results."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


@contextmanager
def epochs_bar(label: str, total: int) -> Iterator[Progress]:
    """Show a progress bar of epochs with the loss; nothing where stderr is no terminal."""
    with tqdm(total=total, desc=label, unit="epoch", disable=None, leave=False) as bar:

        def progress(epoch: int, loss: float) -> None:
            bar.update(epoch - bar.n)
            bar.set_postfix(loss=f"{loss:.4g}", refresh=False)

        yield progress


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Take tiny numbers for 0, which is faster: Adam's moments decay into denormals."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Keep two processes from working on one output at a time.

    A job that outlives a killed Snakemake may still be running when the next run starts it anew.
    """
    lock = Path(".snakemake/icis/locks") / f"{str(output).replace('/', '~')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def images_config(plan: Plan, dataset: str) -> ImagesDataset:
    """Return the data set as images with a table of splits.

    A drawn data set is one, once it is drawn.
    """
    data = plan.dataset(dataset)
    if data.kind == "drawn":
        return ImagesDataset(
            kind="images",
            root=str(raw(dataset)),
            descriptors=data.descriptors,
            batch_size=data.batch_size,
            split_version=data.split_version,
        )
    if not isinstance(data, ImagesDataset):
        raise IcisError(f"datasets.{dataset} has no table of images: its kind is {data.kind}")
    return data


def image_source(plan: Plan, dataset: str, frame: pl.DataFrame | None = None) -> ImageSource:
    """Return the source of the data set's images, by the names that they have in its index.

    ``frame`` is the index: where its images are parts of files, it tells which.
    """
    data = plan.dataset(dataset)
    if isinstance(data, Xlsa17Dataset):
        if data.images is None:
            raise IcisError(f"datasets.{dataset} has features only; set its images to a folder")
        root = data.images
    elif isinstance(data, ImageNetDataset):
        root = data.root
    else:
        root = images_config(plan, dataset).root
    source = open_source(expand(root))
    return source if frame is None else with_parts(source, frame)
