"""Draw the embedded data set."""

from __future__ import annotations

import os
import shutil

from icis.artifacts import write_json
from icis.config import DrawnDataset
from icis.datasets.drawn import draw
from icis.errors import IcisError
from icis.layout import raw
from icis.plan import Plan


def run(plan: Plan, dataset: str) -> None:
    """Write ``data/raw/<dataset>`` as a whole: drawn beside it, then renamed."""
    config = plan.dataset(dataset)
    if not isinstance(config, DrawnDataset):
        raise IcisError(f"datasets.{dataset} is not drawn: its kind is {config.kind}")
    folder = raw(dataset)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        draw(
            temporary,
            classes=config.classes,
            unseen=config.unseen,
            trainval_per_class=config.trainval_per_class,
            test_per_class=config.test_per_class,
            image_size=config.image_size,
            seed=config.seed,
        )
    except ValueError as error:
        shutil.rmtree(temporary)
        raise IcisError(f"datasets.{dataset}: {error}") from error
    write_json(temporary / "drawn.json", {"fingerprint": plan.draw_fingerprint(dataset)})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
