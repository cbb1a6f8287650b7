"""A GPU in name only: tensors with shapes and a device, but without values.

Work that looks at a value, or that mixes devices, fails as it would inside a CUDA graph; what a GPU computes
is not tested by it.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda:0")


@contextmanager
def pretended_gpu():
    """Inside, tensors may be made on DEVICE."""
    zeros, ones = torch.zeros, torch.ones  # memory cannot be pinned without a driver
    with (
        mock.patch("torch.zeros", lambda *a, pin_memory=False, **o: zeros(*a, **o)),
        mock.patch("torch.ones", lambda *a, pin_memory=False, **o: ones(*a, **o)),
        FakeTensorMode(),
        AsOperators(),
    ):
        yield


def moved_there(network, dtype):
    """The network with tensors of DEVICE in the place of its own."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                there = torch.empty(parameter.shape, dtype=dtype, device=DEVICE)
                module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
    return network


class AsOperators(TorchFunctionMode):
    """x[...], x[...] = y and x.copy_(y) as operators: torch's own way asks for the device's driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return self.take(*args)
        if func is torch.Tensor.__setitem__:
            store, index, value = args
            parts = index if isinstance(index, tuple) else (index,)
            if any(isinstance(part, torch.Tensor) for part in parts):
                value = value if isinstance(value, torch.Tensor) else torch.tensor(value, device=store.device)
                places = [None if isinstance(part, slice) else part for part in parts]
                return torch.ops.aten.index_put_(store, places, value)
            place, is_tensor = self.take(store, index), isinstance(value, torch.Tensor)
            return (torch.ops.aten.copy_ if is_tensor else torch.ops.aten.fill_)(place, value)
        if func is torch.Tensor.copy_:
            return torch.ops.aten.copy_(*args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def take(x, index):
        parts = list(index) if isinstance(index, tuple) else [index]
        if ... in parts:
            at = parts.index(...)
            missing = x.ndim - sum(part is not None for part in parts) + 1
            parts[at : at + 1] = [slice(None)] * missing
        dim, tensors = 0, []
        for part in parts:
            if isinstance(part, torch.Tensor):
                tensors.append(part)
                dim += 1
                continue
            assert not tensors, "not needed here"
            if part is None:
                x = torch.ops.aten.unsqueeze(x, dim)
            elif isinstance(part, slice):
                x = torch.ops.aten.slice(x, dim, part.start, part.stop, part.step or 1)
            else:
                x = torch.ops.aten.select(x, dim, part)
                continue
            dim += 1
        return torch.ops.aten.index(x, tensors) if tensors else x
