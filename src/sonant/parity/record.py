"""Record one request: every tapped stage, every random draw, and what the run was made of."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import sonant
from sonant.engine.model import SpeechModel
from sonant.nn.tap import tapped
from sonant.parity.layout import orders, relative, squeezed
from sonant.parity.reference.tracefile import TraceWriter, arithmetic, versions
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable
from sonant.parity.task import Task, perform
from sonant.parity.trace import Trace, from_writer

PACKAGES = ("numpy", "safetensors", "onnxruntime", "transformers", "tokenizers", "sentencepiece", "soxr")

_DRAWS: dict[Any, str] = {
    torch.randn: "normal",
    torch.rand: "uniform",
    torch.randn_like: "normal",
    torch.rand_like: "uniform",
    torch.randint: "integers",
    torch.bernoulli: "bernoulli",
    Tensor.normal_: "normal",
    Tensor.uniform_: "uniform",
    Tensor.exponential_: "exponential",
    Tensor.bernoulli_: "bernoulli",
}


class DrawWatch(TorchFunctionMode):
    """Shows every random tensor that torch draws inside the block to a sink, which may replace it."""

    def __init__(self, sink: Callable[[str, Tensor], Tensor | None]) -> None:
        super().__init__()
        self.sink = sink

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.multinomial, Tensor.multinomial):
            return self._multinomial(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        return self._seen(f"draw.{_DRAWS[func]}", result) if func in _DRAWS else result

    def _seen(self, name: str, drawn: Tensor) -> Tensor:
        replaced = self.sink(name, drawn)
        # What was drawn for another number of candidates says nothing here.
        return drawn if replaced is None or replaced.shape != drawn.shape else drawn.copy_(replaced)

    def _multinomial(
        self,
        probabilities: Tensor,
        count: int,
        replacement: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The same draw as torch's on a CPU, taken apart: a race of exponential times, and who wins it."""
        assert count == 1 or not replacement, "several draws with replacement are no race"
        race = torch.empty_like(probabilities).exponential_(1, generator=generator)
        race = self._seen("draw.exponential", race)
        return (probabilities / race).topk(count, dim=-1).indices


class Recorder:
    """A sink that writes what it sees; tokens and draws of `forced` go on in place of the run's own."""

    def __init__(self, writer: TraceWriter, table: StageTable, forced: Trace | None = None) -> None:
        self.writer = writer
        self.table = table
        self.forced = forced

    def __call__(self, name: str, tensor: Tensor) -> Tensor | None:
        kind = self.table.kind(name)
        given = None
        if self.forced is not None and kind in {"token", "draw"}:
            given = replacement(self.forced, self.writer.next_key(name), tensor)
            if given is not None and given.shape != tensor.shape:
                given = None  # for another length or number of candidates it says nothing
        # A token is noted as the run's own choice, a draw as what was put in its place.
        self.writer.add(name, tensor if given is None or kind == "token" else given, kind=kind)
        return given


def replacement(reference: Trace, key: str, tensor: Tensor) -> Tensor | None:
    """The reference's value of a stage on the device and in the dtype of `tensor`; None when not whole."""
    entry = reference.by_key.get(key)
    if entry is None or entry.sampled is not None:
        return None
    value = entry.stored.to(tensor.device, tensor.dtype)
    if value.shape != tensor.shape and value.numel() == tensor.numel():
        value = in_layout_of(tensor, value)
    return value


def in_layout_of(tensor: Tensor, value: Tensor) -> Tensor:
    """`value`, which another port may keep with its axes in another order, in the shape of `tensor`.

    Where several orders fit, the one whose values are nearest.
    """
    if squeezed(value.shape) == squeezed(tensor.shape):
        return value.reshape(tensor.shape)
    fitting = [made for made, _, _ in orders(tuple(tensor.shape), value)]
    if not fitting:
        return value.reshape(tensor.shape)
    return min(fitting, key=lambda made: relative(tensor, made)).contiguous()


def surroundings(model: SpeechModel, dtype: str) -> dict[str, Any]:
    """What a run of this model in this process is made of, besides the request."""
    return {
        "made_by": f"sonant {sonant.__version__}",
        "family": model.spec.family,
        "model": model.spec.name,
        "fingerprint": model.spec.fingerprint,
        "dtype": dtype,
        "device": str(getattr(model, "device", "cpu")),
        "versions": versions(*PACKAGES),
        "threads": torch.get_num_threads(),
        "arithmetic": arithmetic(),
    }


def record(
    model: SpeechModel,
    task: Task,
    *,
    stages: str = "*",
    max_elements: int | None = None,
    forced: Trace | None = None,
    dtype: str = "float32",
    table: StageTable | None = None,
) -> Trace:
    """The trace of one request. With `forced`, decoding goes on from that trace's tokens and draws."""
    table = table or stage_table(model.spec.family)
    writer = TraceWriter(stages=stages, max_elements=max_elements)
    for name, clip in task.clips().items():
        writer.add(f"input.{name}", torch.from_numpy(clip.samples.copy()), kind="input")
    sink = Recorder(writer, table, forced)
    with tapped(sink), DrawWatch(sink):
        perform(model, task)
    metadata: dict[str, Any] = {
        **surroundings(model, dtype),
        "stages": stages,
        "seed": task.request.seed,
        "request": task.data(),
    }
    names = writer.names()
    metadata["unmatched_patterns"] = [
        pattern for pattern in writer.patterns if not any(fnmatch.fnmatchcase(n, pattern) for n in names)
    ]
    if forced is not None:
        metadata |= {"forced": True, "forced_by": forced.tokens_hash()}
    return from_writer(writer, metadata)
