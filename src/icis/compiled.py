"""Functions as TorchScript, which run without Python's lock, so that threads need not wait."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of this package as TorchScript.

    torch calls it deprecated; where it is gone, the function itself does the same, only slower.
    """
    if not hasattr(torch.jit, "script"):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found: Callable[..., Any] = torch.jit.script(function)
    return found
