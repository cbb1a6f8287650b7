"""A GPU in name, with values: tensors of DEVICE are worked out on the CPU, by torch's rules for devices.

What mixes devices fails as it would on a GPU, and so does a look at a value, or a copy between the devices,
inside a recording. Tokens and samples are those of the CPU, so whole requests can be compared. Streams,
kernels and their rounding are not tested by it.
"""

import threading
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from sonant.engine.decoding import DecodingThread
from sonant.engine.loop import Loop
from sonant.engine.preparing import PreparingThread
from sonant.nn.replay import Replay

DEVICE = torch.device("cuda:0")
aten = torch.ops.aten
LOOKS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten._unique2")


class There(torch.Tensor):
    """A tensor of DEVICE; `inner` is what it holds."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self, *, tensor_contents=None):
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _is_there(x):
    return isinstance(x, There)


def _inner(x):
    return x.inner if _is_there(x) else x


_state = SimpleNamespace(looks=0)
_thread = threading.local()


def _refuse(what):
    if getattr(_thread, "is_recording", False):
        raise RuntimeError(f"{what} inside a recording")


def _run(func, args, kwargs):
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = any(map(_is_there, flat))
    name = str(func).removesuffix(".default")
    target = kwargs.get("device")
    if func in (aten._to_copy.default, aten.copy_.default):
        return _copy(func, args, kwargs, target)
    if target is not None and torch.device(target).type == "cuda":
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": None}
        there = True
    if not there:
        return func(*args, **kwargs)
    _same_place(name, flat)
    if func in (aten.index.Tensor, aten.index_put_.default) and any(
        x is not None and (x.dtype in (torch.bool, torch.uint8) or not _is_there(x)) for x in args[1]
    ):
        _refuse(f"{name} that waits for the device")
    if any(name.startswith(look) for look in LOOKS):
        _state.looks += 1
        _refuse(name)
    if func is aten._local_scalar_dense.default:
        return func(_inner(args[0]))
    made = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    return _wrapped(func, made, args)


def _same_place(name, given):
    stray = [x for x in given if isinstance(x, torch.Tensor) and not _is_there(x) and x.ndim]
    if stray:
        raise RuntimeError(
            f"{name}: expected all tensors on one device; one of {tuple(stray[0].shape)} is elsewhere"
        )


def _wrapped(func, made, args):
    if func._schema.is_mutable and args and _is_there(args[0]) and isinstance(made, torch.Tensor):
        return args[0]
    if func._schema.is_mutable and func._schema.returns == []:
        return None
    return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) and not _is_there(x) else x, made)


def _copy(func, args, kwargs, target):
    if func is aten.copy_.default:
        to, source = args[0], args[1]
        if _is_there(to) != _is_there(source) and source.ndim + to.ndim:
            _refuse("a copy between the devices")
        _inner(to).copy_(_inner(source))
        return to
    source = args[0]
    goes_there = _is_there(source) if target is None else torch.device(target).type == "cuda"
    if goes_there != _is_there(source):
        _refuse("a copy between the devices")
    rest = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "non_blocking")}
    made = func(_inner(source), **rest)
    return There(made) if goes_there else made


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Calls that ask for the device's driver before anything else, in ways that do not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        x = args[0] if args else None
        if func is torch.Tensor.__getitem__:
            return self.get(*args)
        if func is torch.Tensor.__setitem__:
            return self.set(*args)
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else _copy(aten._to_copy.default, (made,), {}, device)
        if func is torch.Tensor.copy_:
            return _copy(aten.copy_.default, args, {}, None)
        if not _is_there(x):
            return func(*args, **kwargs)
        if func is torch.Tensor.nonzero:
            _state.looks += 1
            _refuse("nonzero")
            return There(x.inner.nonzero())
        if func is torch.Tensor.new_tensor:
            return _copy(aten._to_copy.default, (x.inner.new_tensor(*args[1:], **kwargs),), {}, DEVICE)
        if func == torch.Tensor.data.__set__:
            x.inner = args[1].inner
        elif func is torch.Tensor.contiguous:
            return x if x.inner.is_contiguous() else x.clone(memory_format=torch.contiguous_format)
        elif func in (torch.Tensor.tolist, torch.Tensor.__int__, torch.Tensor.__float__):
            _state.looks += 1
            _refuse("a look at a value")
            return func(x.inner)
        elif func is torch.Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        elif func in (
            torch.stft,
            torch.istft,
            torch.Tensor.stft,
            torch.Tensor.istft,
            torch.Tensor.__invert__,
        ):
            _same_place(str(func), tree_flatten((args, kwargs))[0])
            return There(func(*tree_map(_inner, args), **tree_map(_inner, kwargs)))
        return func(*args, **kwargs)

    def get(self, x, index):
        parts = index if isinstance(index, tuple) else (index,)
        keys = [part for part in parts if isinstance(part, torch.Tensor)]
        if not _is_there(x):
            assert not any(map(_is_there, keys)), "a tensor of the CPU indexed by one of the GPU"
            return x[index]
        self.check(keys)
        with torch._C.DisableTorchFunction():
            return There(x.inner[tuple(_inner(part) for part in parts)])

    def set(self, x, index, value):
        parts = index if isinstance(index, tuple) else (index,)
        keys = [part for part in parts if isinstance(part, torch.Tensor)]
        if not _is_there(x):
            assert not any(map(_is_there, keys)), "a tensor of the CPU indexed by one of the GPU"
            if _is_there(value):
                _refuse("a copy between the devices")
            x[index] = _inner(value)
            return
        self.check(keys)
        if isinstance(value, torch.Tensor) and not _is_there(value) and value.ndim:
            assert not keys, "values of the CPU put at places of the GPU"
            _refuse("a copy between the devices")
        x.inner[tuple(_inner(part) for part in parts)] = _inner(value)

    @staticmethod
    def check(keys):
        if any(key.dtype == torch.bool or not _is_there(key) for key in keys):
            _state.looks += 1
            _refuse("an index that waits for the device")


def _capture(replay, work):
    """A recorder: the work may not look at anything; to replay it is to do it again."""
    _thread.is_recording = True
    try:
        work()
    finally:
        _thread.is_recording = False
    return SimpleNamespace(replay=work)


@contextmanager
def gpu_with_values():
    """Inside, DEVICE is there; yields a namespace whose `looks` counts how often the host waited."""
    event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)
    stream = SimpleNamespace(synchronize=lambda: None)
    _state.looks = 0
    with ExitStack() as stack:
        for name in ("zeros", "ones"):  # memory cannot be pinned without a driver
            stack.enter_context(mock.patch.object(torch, name, _unpinned(getattr(torch, name))))
        for name, value in (
            ("_lazy_init", lambda: None),
            ("Event", lambda: event),
            ("current_stream", lambda device=None: stream),
        ):
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(Replay, "_capture", _capture))
        # Views of tensors of inference mode cannot be made up.
        for name, value in (("__enter__", _without_gradients), ("__exit__", _as_it_was)):
            stack.enter_context(mock.patch.object(torch.inference_mode, name, value))
        for kind in (Loop, DecodingThread, PreparingThread):  # modes are a thread's own
            stack.enter_context(mock.patch.object(kind, "_run", _as_here(kind._run)))
        stack.enter_context(_Calls())
        stack.enter_context(_Factories())
        yield _state


def _as_here(run):
    def inside(engine):
        with _Calls(), _Factories():
            run(engine)

    return inside


def _unpinned(make):
    return lambda *given, pin_memory=False, **options: make(*given, **options)


def _without_gradients(mode):
    mode.before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)


def _as_it_was(mode, *_):
    torch._C._set_grad_enabled(mode.before)
