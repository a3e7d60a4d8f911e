"""torchvision beside a CPU-only torch.

The registries' torchvision wheels are CUDA builds: beside a CPU torch their compiled operators do
not load and ``import torchvision`` (and so timm) stops at a missing operator schema. Declaring the
schemas of the two operators that its Python part names lets the rest work; nothing here calls
them. Where torchvision loads by itself this does nothing.
"""

from __future__ import annotations

import torch

_KEEP: list[torch.library.Library] = []  # a library's declarations vanish with it


def import_timm() -> None:
    """Make ``import timm`` work; raises ImportError if it is not installed."""
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEEP.append(library)
    import timm  # noqa: F401
