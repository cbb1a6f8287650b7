"""The trace format, in one file that needs nothing but torch and safetensors.

A trace is a safetensors file. Each tensor is one occurrence of one stage: `name` the first time,
`name@1`, `name@2`, ... after it. The metadata key `sonant_trace` holds JSON: `entries` in the order of
computation (key, kind, shape, dtype, statistics, hash) and whatever else describes the run. A tensor with
more than `max_elements` elements is stored as evenly spaced samples; its statistics are of the whole.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import platform
import re
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

FORMAT = "sonant-trace-1"
METADATA_KEY = "sonant_trace"
KINDS = ("stage", "token", "draw", "input")
"""A computed value; a discrete decision of the decoding loop; a random draw; something given from outside."""

_EDGE = 1 << 20


def sample_positions(elements: int, count: int) -> torch.Tensor:
    """The flat positions [min(count, elements)] that stand for a tensor of `elements` elements."""
    if elements <= count:
        return torch.arange(elements)
    return torch.div(torch.arange(count) * (elements - 1), max(count - 1, 1), rounding_mode="floor")


def statistics(tensor: torch.Tensor) -> dict[str, float]:
    """Minimum, maximum, mean, root mean square and number of non-finite elements, in float64."""
    if tensor.numel() == 0:
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "rms": 0.0, "nonfinite": 0}
    wide = tensor.detach().cpu().double().flatten()
    finite = wide[torch.isfinite(wide)]
    if finite.numel() == 0:
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "rms": 0.0, "nonfinite": wide.numel()}
    return {
        "min": float(finite.min()),
        "max": float(finite.max()),
        "mean": float(finite.mean()),
        "rms": float(finite.pow(2).mean().sqrt()),
        "nonfinite": wide.numel() - finite.numel(),
    }


def tensor_hash(tensor: torch.Tensor) -> str:
    """16 hex digits over dtype, shape and bytes."""
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    state = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    state.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return state.hexdigest()[:16]


def hash_files(folder: str | os.PathLike[str]) -> dict[str, str]:
    """16 hex digits for each file below `folder`, by relative name: size, first and last megabyte."""
    found = {}
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(root, name)
            size = os.path.getsize(path)
            state = hashlib.sha256(f"{size}:".encode())
            with open(path, "rb") as file:
                state.update(file.read(_EDGE))
                if size > _EDGE:
                    file.seek(max(_EDGE, size - _EDGE))
                    state.update(file.read(_EDGE))
            found[os.path.relpath(path, folder).replace(os.sep, "/")] = state.hexdigest()[:16]
    return found


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, torch and the named installed packages, and the processor's kind."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def arithmetic() -> dict[str, Any]:
    """What decides how this process rounds: the processor, its instructions in use, and torch's choices."""
    name = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        name = names[0] if names else ""
    chosen = {k: v for k, v in os.environ.items() if k.startswith(("ATEN_CPU", "ONEDNN_", "DNNL_", "MKL_"))}
    return {
        "processor": name or platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.enabled if hasattr(torch.backends.mkldnn, "enabled") else None,
        "matmul": torch.get_float32_matmul_precision(),
        **({"environment": chosen} if chosen else {}),
    }


class TraceWriter:
    """Collects stages in the order of computation and writes one file.

    `stages` is one or several shell patterns separated by commas; tokens, draws and inputs are always
    kept whole, so that a run can be replayed.
    """

    def __init__(self, *, stages: str = "*", max_elements: int | None = None) -> None:
        self.patterns = [pattern.strip() for pattern in stages.split(",") if pattern.strip()]
        self.max_elements = max_elements
        self.entries: list[dict[str, Any]] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[str, int] = {}

    def names(self) -> set[str]:
        """Every name that was offered, kept or not."""
        return set(self._seen)

    def next_key(self, name: str) -> str:
        """The key that the next occurrence of `name` gets."""
        occurrence = self._seen.get(name, 0)
        return name if occurrence == 0 else f"{name}@{occurrence}"

    def skip(self, names: str) -> None:
        """Count an occurrence that this run does not compute: of a name, or of all that fit a pattern."""
        fitting = [name for name in self._seen if fnmatch.fnmatchcase(name, names)]
        for name in fitting or [names]:
            self._seen[name] = self._seen.get(name, 0) + 1

    def add(self, name: str, tensor: torch.Tensor, *, kind: str = "stage") -> str:
        """Store one more occurrence of `name`; its key, "name" or "name@k"."""
        assert kind in KINDS, kind
        assert "@" not in name, name
        key = self.next_key(name)
        self._seen[name] = self._seen.get(name, 0) + 1
        if kind == "stage" and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns):
            return key
        whole = tensor.detach().cpu()
        if whole.is_complex():
            whole = torch.view_as_real(whole)
        entry: dict[str, Any] = {
            "key": key,
            "kind": kind,
            "shape": list(whole.shape),
            "dtype": str(whole.dtype).removeprefix("torch."),
            "statistics": statistics(whole),
            "hash": tensor_hash(whole),
        }
        limit = self.max_elements
        if kind == "stage" and limit is not None and whole.numel() > limit:
            entry["sampled"] = limit
            stored = whole.flatten()[sample_positions(whole.numel(), limit)]
        else:
            stored = whole.clone(memory_format=torch.contiguous_format)
        self.entries.append(entry)
        self.tensors[key] = stored
        return key

    def record(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The JSON part of the file."""
        return {"format": FORMAT, **metadata, "entries": self.entries}

    def save(self, path: str | os.PathLike[str], metadata: dict[str, Any]) -> None:
        """Write the file; `metadata` is plain data (family, made_by, dtype, seed, request, ...)."""
        from safetensors.torch import save_file

        save_file(
            self.tensors,
            os.fspath(path),
            metadata={METADATA_KEY: json.dumps(self.record(metadata), ensure_ascii=False, sort_keys=True)},
        )


def stand_in(*names: str) -> list[str]:
    """Put an empty module in the place of each of these that cannot be imported, and name those.

    For packages that an original imports and a recorded request never calls.
    """
    missing = []
    for name in names:
        try:
            import_module(name)
        except (ImportError, OSError):  # a package built for another torch raises OSError
            missing.append(name)
            _put_empty(name)
    return missing


def _put_empty(name: str) -> None:
    parent, _, last = name.rpartition(".")
    if parent and parent not in sys.modules:
        _put_empty(parent)
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)


def split_key(key: str) -> tuple[str, int]:
    """Name and occurrence of a key: "a.b@3" is ("a.b", 3), "a.b" is ("a.b", 0)."""
    match = re.fullmatch(r"(.*)@(\d+)", key)
    return (match.group(1), int(match.group(2))) if match else (key, 0)


class Hooks:
    """Watches modules and functions of an original and writes what they compute under documented names."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self.held: list[tuple[str, torch.Tensor, str]] | None = None
        """While a list, what is seen is kept here and not yet written."""

    def output(self, module: Any, name: str, change: Any = None) -> None:
        """Record the (first) output of a module; `change` turns it into the documented form."""

        def see(_module: Any, _args: Any, _kwargs: Any, result: Any) -> None:
            self.put(name, result, change)

        module.register_forward_hook(see, with_kwargs=True)

    def input(self, module: Any, name: str, change: Any = None, *, keyword: str | None = None) -> None:
        """Record the first input of a module, or the one given by keyword."""

        def see(_module: Any, args: Any, kwargs: Any) -> None:
            value = args[0] if args else None
            if keyword is not None and keyword in kwargs:
                value = kwargs[keyword]
            self.put(name, value, change)

        module.register_forward_pre_hook(see, with_kwargs=True)

    def result(self, owner: Any, attribute: str, see: Any) -> None:
        """Call `see(result, *args, **kwargs)` after each call of a function or method of `owner`."""
        original = getattr(owner, attribute)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            see(result, *args, **kwargs)
            return result

        setattr(owner, attribute, watched)

    def put(self, name: str, value: Any, change: Any = None, *, kind: str = "stage") -> None:
        """Record one value; `change` may give None to leave it out."""
        while isinstance(value, (tuple, list)):
            value = value[0]
        if not isinstance(value, torch.Tensor) and hasattr(value, "last_hidden_state"):
            value = value.last_hidden_state
        if change is not None:
            value = change(value)
        if value is not None and self.held is not None:
            self.held.append((name, value.detach().clone(), kind))
        elif value is not None:
            self.writer.add(name, value, kind=kind)

    def decoder(self, stack: Any, name: str, code: Any, rotation: str) -> None:
        """Record a decoder stack of `transformers`; function `rotation` of module `code` turns q and k."""
        running: list[str] = []

        def enter(prefix: str) -> Any:
            return lambda *_: running.append(prefix)

        def leave(*_: Any) -> None:
            running.pop()

        def rotated(result: Any, *_args: Any, **_kwargs: Any) -> None:
            if running:
                self.writer.add(f"{running[-1]}.query", result[0])
                self.writer.add(f"{running[-1]}.key", result[1])

        for index, layer in enumerate(stack.layers):
            prefix = f"{name}.layer.{index}"
            self.input(layer, f"{prefix}.in", keyword="hidden_states")
            layer.self_attn.register_forward_pre_hook(enter(prefix))
            layer.self_attn.register_forward_hook(leave)
            self.output(layer.self_attn, f"{prefix}.attention")
            self.output(layer.mlp, f"{prefix}.mlp")
            self.output(layer, f"{prefix}.out")
        self.output(stack.norm, f"{name}.norm")
        self.result(code, rotation, rotated)

    def choices(self, generator: Any, name: str, *, when_greedy: bool = True, tokens: bool = True) -> None:
        """Record scores after all processors of `transformers` generation, and the tokens."""
        processors, criteria = generator._get_logits_processor, generator._get_stopping_criteria

        def scores_seen(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.put(f"{name}.scores", scores)
            return scores

        def token_seen(input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:
            self.put(f"{name}.token", input_ids[:, -1], kind="token")
            return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

        def with_scores(*args: Any, **kwargs: Any) -> Any:
            made = processors(*args, **kwargs)
            config: Any = kwargs["generation_config"] if "generation_config" in kwargs else args[0]
            if when_greedy or config.do_sample:
                made.append(scores_seen)
            return made

        def with_tokens(*args: Any, **kwargs: Any) -> Any:
            made = criteria(*args, **kwargs)
            made.append(token_seen)
            return made

        generator._get_logits_processor = with_scores
        if tokens:
            generator._get_stopping_criteria = with_tokens

    def draws(self) -> None:
        """Record what `multinomial` draws on the CPU as the exponential race that it is.

        The chosen indices are the best of probabilities / race; another implementation can replay the race.
        """
        original = torch.multinomial

        def watched(
            probabilities: torch.Tensor, count: int = 1, replacement: bool = False, **kwargs: Any
        ) -> torch.Tensor:
            count = kwargs.pop("num_samples", count)
            state = torch.random.get_rng_state()
            race = torch.empty_like(probabilities).exponential_(1)
            after = torch.random.get_rng_state()
            torch.random.set_rng_state(state)
            chosen = original(probabilities, count, replacement, **kwargs)
            assert count == 1 or not replacement, "several draws with replacement are no race"
            assert torch.equal(after, torch.random.get_rng_state()), "multinomial draws otherwise here"
            self.writer.add("draw.exponential", race, kind="draw")
            return chosen

        setattr(torch, "multinomial", watched)  # noqa: B010  the type checker knows another signature
        setattr(torch.Tensor, "multinomial", watched)  # noqa: B010
