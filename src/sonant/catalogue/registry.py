"""The list of families, and `load`: a path or name -> Engine.

Where else a family has a place is the table of docs/architecture.md, "A fourth family".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.errors import CheckpointError, RequestError, UnsupportedError
from sonant.request.settings import BY_NAME, DEVICES, check_value

if TYPE_CHECKING:
    import torch

    from sonant.checkpoints.memory import Candidate, Plan
    from sonant.checkpoints.unread import Unread
    from sonant.engine.engine import Engine
    from sonant.engine.model import SpeechModel
    from sonant.request.speech import ModelSpec
    from sonant.voices.library import VoiceLibrary

log = logging.getLogger(__name__)

FAMILIES = ("builtin", "qwen3_tts", "cosyvoice3", "indextts2", "kokoro")
"""Packages of `sonant.families`; each gives `detect(path)`, `describe(path)` and
`load(path, *, device, dtype)`, `footprint(path, *, device, dtype)`, `convert(source, target)` where its
release has pickles, and `tensors_read(path)`, what inference reads of each file, where it reads tensors.
A family with VARIANTS (name -> files, one of which must be there) takes `variant` in all of them. One with
USES_TORCH = False is loaded without device and dtype where nothing but a CPU is asked for."""

BUILTIN = "builtin"
DEFAULT_MODEL = BUILTIN
"""What speaks when no model is named, everywhere: the best voice inside the package."""
BUNDLED = Path(__file__).parents[1] / "assets"
"""Checkpoints inside the package, each in a folder of its name (Sonant Nano)."""
DTYPES = BY_NAME["dtype"].choices


def bundled() -> list[str]:
    """Names of the checkpoints inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def installed() -> list[str]:
    """Names of the models that came with the installation."""
    return [BUILTIN, *bundled()]


def having(package: str, file: str) -> tuple[str, ...]:
    """The families, in the list's order, of which a package holds `file`: a pattern with {} for the name."""
    folder = resources.files(package)
    return tuple(family for family in FAMILIES if folder.joinpath(file.format(family)).is_file())


def is_folderless(family: str) -> bool:
    """Whether a model of the family has no folder: `find` gives an empty path for it."""
    return family == BUILTIN


def detect(path: Path) -> str | None:
    """The family whose checkpoint this folder holds, or None. Imports no torch."""
    for family in FAMILIES:
        if import_module(f"sonant.families.{family}").detect(path):
            return family
    return None


@dataclass(frozen=True)
class Found:
    """A model on disk: its family, its folder, and what more the family's functions are told of it."""

    family: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> Any:
        """The family's package."""
        return import_module(f"sonant.families.{self.family}")


def _split(model: str | os.PathLike[str]) -> tuple[str, str | None]:
    """A model's name or path, and the variant behind a colon: "cosyvoice3-0.5b:rl"."""
    name, colon, variant = str(model).rpartition(":")
    is_variant = bool(colon) and len(name) > 1 and variant.isidentifier() and not os.path.exists(model)
    return (name, variant) if is_variant else (str(model), None)


def locate(model: str | os.PathLike[str]) -> Found:
    """`find`, with the variant that the name asks for. Raises RequestError for one that is not there."""
    family, path = find(model)
    name, variant = _split(model)
    if variant is None:
        return Found(family, path)
    files = getattr(import_module(f"sonant.families.{family}"), "VARIANTS", {}).get(variant, ())
    if not any((path / file).is_file() for file in files):
        raise RequestError(
            f"{name} has no variant {variant!r} on this machine; expected {' or '.join(files) or 'none'} in "
            f"{path}. Leave the variant out, or fetch it with: sonant pull {name} --variant {variant}",
            field="variant",
        )
    return Found(family, path, {"variant": variant})


def find(model: str | os.PathLike[str]) -> tuple[str, Path]:
    """Family and folder of a model given by path, by known name, as OWNER/NAME, or as "builtin".

    A variant of the release may follow a colon. Raises CheckpointError when it is not on disk or of no
    known family.
    """
    model = _split(model)[0]
    if str(model) == BUILTIN and not os.path.isdir(model):
        return BUILTIN, Path()
    path = Path(model)
    is_there = os.path.exists(path)  # False, not an error, for what no path can be
    if not is_there and path.name == str(model) and os.path.isfile(BUNDLED / path.name / "config.json"):
        path, is_there = BUNDLED / path.name, True
    if not is_there:
        from sonant.catalogue import hub

        path = hub.local(str(model))
    if not path.is_dir():
        raise CheckpointError(f"{path} is no folder. Give the folder that holds the checkpoint's files.")
    family = detect(path)
    if family is None:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:12]) or "nothing"
        raise CheckpointError(
            f"{path} is no checkpoint of a known family ({', '.join(FAMILIES[1:])}); it holds: {names}. "
            "Give the folder with the official files."
        )
    return family, path


def describe(model: str | os.PathLike[str]) -> ModelSpec:
    """What a model on disk is and can do, read from its configs; its weights are not loaded."""
    found = locate(model)
    return found.package.describe(found.path, **found.options)


def numbers_read(model: str | os.PathLike[str], *, strict: bool = False) -> dict[str, int] | None:
    """Of each file of weights that inference opens, by its path in the folder, how many numbers it reads.

    Files that are not named are never opened. None for a family that does not tell. What the opened files
    hold beyond that is told in one warning, or is a CheckpointError if `strict`.
    """
    model_found = locate(model)
    if not hasattr(model_found.package, "tensors_read"):
        return None
    from sonant.checkpoints.unread import collecting_unread

    with collecting_unread() as unread:
        found = model_found.package.tensors_read(model_found.path, **model_found.options)
    _judge_unread(unread, strict=strict)
    return {name: sum(tensor.numel() for tensor in tensors.values()) for name, tensors in found.items()}


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *, strict: bool = False) -> None:
    """Write a checkpoint as safetensors into the new folder `target`: only what inference reads.

    What else the files hold is told in one warning, or is a CheckpointError if `strict`. Raises
    UnsupportedError for a family whose release is safetensors already.
    """
    found = locate(source)
    if not hasattr(found.package, "convert"):
        raise UnsupportedError(
            f"{source} ({found.family}) has nothing to convert: it brings safetensors, or no folder at all; "
            "expected a release with .pt or .pth files. Use it as it is."
        )
    from sonant.checkpoints.unread import collecting_unread

    with collecting_unread() as unread:
        found.package.tensors_read(found.path, **found.options)
    _judge_unread(unread, strict=strict)
    found.package.convert(found.path, Path(target), **found.options)


def choose_device(name: str = "auto") -> torch.device:
    """The torch device for "auto", "cpu", "cuda", "cuda:1", "mps". Raises RequestError if absent."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError(f"{name!r} is no device; expected {DEVICES}.", field="device") from error
    is_there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }.get(device.type, False)
    if not is_there:
        raise RequestError(
            f"device {name!r} is not available to this build of torch. Use --device cpu, or install torch "
            "for your accelerator.",
            field="device",
        )
    return device


def choose_dtype(name: str = "auto") -> torch.dtype:
    """The torch dtype of the autoregressive half; "auto" is float32."""
    import torch

    check_value(BY_NAME["dtype"], name)
    return torch.float32 if name == "auto" else getattr(torch, name)


def precisions(model: str | os.PathLike[str]) -> tuple[str, ...]:
    """What `precision` of `load` may be for a model on a CPU."""
    family, _ = find(model)
    package: Any = import_module(f"sonant.families.{family}")
    return ("auto", "full", *getattr(package, "PRECISIONS", ()))


def choose_precision(
    model: str | os.PathLike[str], name: str = "auto", *, device: str = "auto", dtype: str = "auto"
) -> str:
    """The precision that `load` takes for this name on this machine; nothing is loaded.

    One that is named stays, and so does "auto" where a model has one form only. Else "auto" is, on a CPU and
    in float32, what the family chooses for the folder, or lossless: where `dtype` asks for float32 by name,
    where the family has no choice, and without the kernels in C, as narrow weights cost time then. On other
    devices and in other dtypes it is "full". Raises CheckpointError as `find`, RequestError for no dtype.
    """
    offered = precisions(model)
    if name != "auto" or offered == ("auto", "full"):
        return name
    where = choose_device().type if device == "auto" else device.partition(":")[0]
    if where != "cpu" or choose_dtype(dtype) != choose_dtype("float32"):
        return "full"
    from sonant import native

    family, path = find(model)
    package: Any = import_module(f"sonant.families.{family}")
    if dtype == "auto" and hasattr(package, "automatic_precision") and native.library() is not None:
        return str(package.automatic_precision(path))
    return "lossless" if "lossless" in offered else "full"


def check_precision(model: str | os.PathLike[str], precision: str, where: torch.device) -> None:
    """Raise UnsupportedError for one that the model has not, or has not there."""
    offered = precisions(model)
    if precision not in ("auto", "full") and (precision not in offered or where.type != "cpu"):
        raise UnsupportedError(
            f"{model} has no precision {precision!r} on {where.type}; on a CPU it has: "
            f"{', '.join(offered)}. Leave it out, or use --dtype.",
            field="precision",
        )


def load_model(
    model: str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: str | None = None,
    strict: bool = False,
) -> SpeechModel:
    """The model itself, without an engine around it.

    `precision` says how a CPU keeps the weights of the autoregressive half. None or "full": as `dtype` says,
    in torch, every tensor within reach of a recording. "lossless": bfloat16 weights stay two bytes wide and
    are computed with in float32, which is twice as fast and equal up to the order of sums. "int8" is near
    lossless, "int4" has lower fidelity, "mixed" lies between them. "auto" is what `choose_precision` says:
    int8 for models of the released sizes, where its loss was measured and there are kernels in C for it, and
    `dtype` is "auto" too; lossless for others where it can be had, else full. Raises UnsupportedError where
    the family or the device has no such form.

    Tensors of the files that no network reads are left out with one warning; `strict` makes them a
    CheckpointError. Missing and misshapen ones always are.
    """
    found = locate(model)
    is_plain = device in ("auto", "cpu") and dtype in DTYPES and precision in (None, "auto", "full")
    if is_plain and not getattr(found.package, "USES_TORCH", True):
        return found.package.load(found.path)  # torch would take longer than all the rest
    where = choose_device(device)
    options: dict[str, str] = dict(found.options)
    precision = choose_precision(model, precision or "full", device=where.type, dtype=dtype)
    check_precision(model, precision, where)
    if precision not in ("auto", "full"):
        options["precision"] = precision
    if where.type == "cuda":
        import torch

        # torch's default rounds the inputs of float32 convolutions to 10 bits; here float32 is float32.
        torch.backends.cudnn.allow_tf32 = False
    from sonant.checkpoints.unread import collecting_unread
    from sonant.nn.mapped import trim

    with collecting_unread() as unread:
        made = found.package.load(found.path, device=where, dtype=choose_dtype(dtype), **options)
    _judge_unread(unread, strict=strict)
    trim()
    return made


def _judge_unread(unread: Unread, *, strict: bool) -> None:
    """One warning for what nothing reads in a checkpoint's files, or an error."""
    from sonant.checkpoints.unread import told_unread

    if unread and strict:
        raise CheckpointError(
            f"tensors that nothing reads: {told_unread(unread)}; expected none, as strict loading was asked "
            "for. Leave strict (--strict) out to speak without them, or use the official files."
        )
    if unread:
        log.warning("tensors that nothing reads are left out: %s", told_unread(unread))


def plan(
    model: str | os.PathLike[str],
    *,
    memory_limit: int | str,
    device: str = "auto",
    dtype: str = "auto",
    precision: str | None = "auto",
    slots: int = 4,
    taken: int | None = None,
) -> Plan:
    """How `load` would load the model below a limit; nothing is loaded.

    `taken` is what the process has in memory already, measured now if it is not given; on an accelerator, 0.
    A precision or dtype that is named stays; "auto" may give way to a narrower one, the precision of a CPU
    where `dtype` is "auto" too.
    Raises RequestError when nothing fits, UnsupportedError for a precision that `load` would refuse.
    """
    from sonant.checkpoints.memory import choose, parse_size, resident_bytes

    where = choose_device(device)
    if taken is None:
        taken = resident_bytes() if where.type == "cpu" else 0
    candidates = _candidates(model, where, dtype, precision)
    offered = [name for name in precisions(model) if name not in ("auto", "full")]
    is_named = precision not in (None, "auto", *offered[-1:])  # "auto" has tried the narrowest
    narrower = f", --precision {offered[-1]}" if offered and is_named and where.type == "cpu" else ""
    if offered and precision == "auto" and dtype != "auto" and where.type == "cpu":
        narrower = ", --dtype auto"
    if where.type != "cpu" and dtype != "bfloat16":
        narrower = ", --dtype bfloat16"
    hint = f"Give a higher one, a smaller model{narrower}, or close what else runs in this process."
    limit = parse_size(memory_limit)
    return choose(str(model), candidates, slots=slots, limit=limit, taken=taken, hint=hint)


def _candidates(
    model: str | os.PathLike[str], where: torch.device, dtype: str, precision: str | None
) -> list[Candidate]:
    """Ways to load, the wanted one first, then ever smaller ones where that may be chosen."""
    from sonant.checkpoints.memory import Candidate

    found = locate(model)
    offered = precisions(model)

    def made(dtype: str, precision: str) -> Candidate:
        options = found.options if precision == "full" else {**found.options, "precision": precision}
        needed = found.package.footprint(found.path, device=where, dtype=choose_dtype(dtype), **options)
        return Candidate(dtype=dtype, precision=precision, footprint=needed)

    wanted = choose_precision(model, precision or "full", device=where.type, dtype=dtype)
    check_precision(model, wanted, where)
    kept = str(choose_dtype(dtype)).removeprefix("torch.")
    first = made(kept, wanted if wanted != "auto" else "full")
    others = []
    if precision == "auto" and dtype == "auto" and where.type == "cpu":
        others = [made(kept, name) for name in offered if name not in ("auto", "full", wanted)]
    elif dtype == "auto" and where.type != "cpu" and kept == "float32":
        others = [made("bfloat16", "full")]
    smaller = [c for c in others if c.footprint.weights < first.footprint.weights]
    return [first, *sorted(smaller, key=lambda c: -c.footprint.weights)]


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: str | None = "auto",
    slots: int = 4,
    voices: VoiceLibrary | None = None,
    memory_limit: int | str | None = None,
    strict: bool = False,
    keeps_past: bool = True,
    **engine_options: Any,
) -> Engine:
    """An engine that speaks with `model`: a checkpoint folder, a known name on disk, or "builtin".

    `precision` and `strict` as for `load_model`. `memory_limit`, in bytes or such as "6GB", is for the whole
    process, or for the accelerator's memory: "auto" precision gives way to a narrower one, where `dtype` is
    "auto" too, and `slots` to fewer, until the model fits; a warning says so, and RequestError is raised when
    nothing fits.
    `keeps_past`: whether streams may keep what they would have to compute again (CosyVoice3, on a CPU).
    """
    find(model)  # a wrong name is told before torch is imported
    from sonant.engine.engine import Engine
    from sonant.voices.library import VoiceLibrary

    if memory_limit is not None:
        planned = plan(
            model, memory_limit=memory_limit, device=device, dtype=dtype, precision=precision, slots=slots
        )
        for remark in planned.remarks:
            log.warning("memory limit: %s", remark)
        dtype, precision, slots = planned.dtype, planned.precision, planned.slots
        keeps_past = keeps_past and planned.keeps_past
        engine_options.setdefault("cache_positions", planned.cache_positions)
        limit_device(device, memory_limit)
    made = load_model(model, device=device, dtype=dtype, precision=precision, strict=strict)
    if hasattr(made, "keeps_past") and made.keeps_past:
        made.keeps_past = keeps_past and (memory_limit is not None or _has_room(made, slots))
    return Engine(
        made, slots=slots, voices=voices if voices is not None else VoiceLibrary(), **engine_options
    )


def _has_room(model: Any, slots: int) -> bool:
    """Whether half of the machine's memory holds what streams keep of their past; a warning where not."""
    from sonant.checkpoints.memory import machine_bytes, show

    needed, whole = model.past_bytes(slots), machine_bytes()
    if whole is None or needed <= whole // 2:
        return True
    log.warning(
        "%d streams at a time would keep %s of their past, more than half of this machine's %s; they compute "
        "it again. Fewer slots leave room for it.", slots, show(needed), show(whole),
    )  # fmt: skip
    return False


def limit_device(device: str, memory_limit: int | str) -> None:
    """Let torch take no more than this of a CUDA device's memory; other devices have no such switch."""
    import torch

    from sonant.checkpoints.memory import parse_size

    where = choose_device(device)
    if where.type != "cuda":
        return
    index = torch.cuda.current_device() if where.index is None else where.index
    whole = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, parse_size(memory_limit) / whole), index)
