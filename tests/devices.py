"""Devices that are not here: what can be said of a step without them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Watched(TorchDispatchMode):
    """Refuses what would make the processor wait for a device, or leave it for another.

    The device is torch's "meta", which has shapes and no memory.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.WAITING), f"{func} waits"
        result = func(*args, **(kwargs or {}))
        flat, _ = tree_flatten((args, kwargs or {}, result))
        tensors = [each for each in flat if isinstance(each, torch.Tensor) and each.ndim]
        assert {each.device.type for each in tensors} <= {"meta"}, f"{func} on another device"
        if "index" in str(func):
            assert all(each.dtype != torch.bool for each in tensors), "a mask must be counted"
        return result
