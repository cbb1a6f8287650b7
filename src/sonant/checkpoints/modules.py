"""Tensors -> modules: keys renamed by rules, weight norm folded, loaded strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sonant.checkpoints.files import ALIGNMENT
from sonant.checkpoints.unread import leave_unread
from sonant.errors import CheckpointError, ConfigError, few
from sonant.nn.mapped import give_back, trim

Rules = Sequence[tuple[str, str]]
_PACKED = (
    "\nIts matrices are whole numbers, as another program packs them: take the released files, which Sonant "
    "narrows itself (--precision)."
)
_SMALL = 1 << 20  # bytes; copied without a thought for memory
_WRAPPERS = ("model", "state_dict", "module")
_DEEPEST = 8  # wrappers within wrappers; a pickle may hold itself
_TRAINED_IN = ((r"(^|\.)(?:(?:module|_orig_mod)\.)+", r"\1"),)
_WEIGHT_NORM = re.compile(r"\.(weight_[gv]|parametrizations\.weight\.original[01])$")


def own_table(data: Mapping[str, Any], *wrappers: str, where: str = "the checkpoint") -> Mapping[str, Any]:
    """The network's own table in what a program saved: `data`, or what lies there under a name for it.

    `wrappers` are asked for first, then the names that training programs use, and again within; an empty
    table is none. Tables beside it (optimizer states, averages) and numbers are left without a word; tensors
    are told to a surrounding `collecting_unread`.
    """
    for _ in range(_DEEPEST):
        tables = (data.get(name) for name in (*wrappers, *_WRAPPERS))
        own = next((table for table in tables if isinstance(table, Mapping) and table), None)
        if own is None:
            break
        leave_unread(where, {str(key): value for key, value in data.items() if isinstance(value, Tensor)})
        data = own
    return data


def without_training(named: Iterable[tuple[str, Tensor]], where: str = "the checkpoint") -> dict[str, Tensor]:
    """Names and tensors without what training puts before parts of a name (`module.`, `_orig_mod.`).

    Two that are then of one name raise CheckpointError.
    """
    pairs = list(named)
    tensors = dict(pairs)
    sources = _sources((name for name, _ in pairs), _TRAINED_IN, where)
    return {name: tensors[key] for name, key in sources.items()}


def rename(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """The tensors under the names that the rules give: every regex rule is applied in order to every key.

    Two keys that end up with one name raise CheckpointError.
    """
    return {name: tensors[key] for name, key in _sources(tensors, rules).items()}


def _sources(keys: Iterable[str], rules: Rules, where: str = "the checkpoint") -> dict[str, str]:
    """Name after the rules -> the file's key."""
    found: dict[str, str] = {}
    for key in keys:
        name = _renamed(key, rules)
        if name in found:
            raise CheckpointError(
                f"two tensors of {where} map to {name!r} (one is {key!r}). "
                "The file mixes two formats; use the official one."
            )
        found[name] = key
    return found


def _renamed(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def used(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    rules: Rules = (),
    ignored: Iterable[str] = (),
    where: str = "checkpoint",
) -> dict[str, Tensor]:
    """Those tensors of a file that `load_strict` would put into `module`, under the file's own names.

    Both halves of a weight-normed pair count as their weight. What is missing is not looked for here; what
    would be left out is told to a surrounding `collecting_unread`.
    """
    skip = [re.compile(pattern) for pattern in ignored]
    expected = module.state_dict().keys()
    wanted = {key: t for key, t in tensors.items() if not any(pattern.search(key) for pattern in skip)}
    kept = {
        key: tensor
        for key, tensor in wanted.items()
        if _renamed(_WEIGHT_NORM.sub(".weight", key), rules) in expected
    }
    leave_unread(where, {key: wanted[key] for key in wanted.keys() - kept.keys()})
    return kept


def within(
    module: nn.Module, parts: Iterable[nn.Module], tensors: Mapping[str, Tensor], *, rules: Rules = ()
) -> dict[str, Tensor]:
    """Those tensors of a file that are the weights of linear layers and convolutions inside `parts`.

    `parts` are submodules of `module`, which may be on `meta`; both halves of a weight-normed pair count.
    """
    layers = {id(m) for part in parts for m in part.modules() if isinstance(m, nn.Linear | nn.Conv1d)}
    names = {f"{name}.weight" for name, layer in module.named_modules() if id(layer) in layers}
    return {
        key: t for key, t in tensors.items() if _renamed(_WEIGHT_NORM.sub(".weight", key), rules) in names
    }


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight-normed pairs replaced by their product: w = g * v / ||v|| over all dims but the first.

    Both spellings of torch are known: `X.weight_g`/`X.weight_v` and
    `X.parametrizations.weight.original0`/`original1`. Source: arXiv 1602.07868, eq. 2.
    """
    folded = dict(tensors)
    for gain_suffix, direction_suffix in (
        (".weight_g", ".weight_v"),
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    ):
        for key in [name for name in folded if name.endswith(gain_suffix)]:
            stem = key[: -len(gain_suffix)]
            partner = stem + direction_suffix
            if partner not in folded or not _is_weight_and_norm(folded[partner], folded[key]):
                continue  # where it is read, its weight will be found missing
            gain, direction = folded.pop(key), folded.pop(partner)
            # The same kernel torch's own parametrization runs, so folded weights are bit equal. Narrow pairs
            # are widened first, as a network of float32 that loads them has them.
            wide = torch.promote_types(torch.promote_types(direction.dtype, gain.dtype), torch.float32)
            folded[f"{stem}.weight"] = torch._weight_norm(direction.to(wide), gain.to(wide), 0)
            give_back(direction)
    return folded


def _is_weight_and_norm(direction: Tensor, gain: Tensor) -> bool:
    """Asked before torch is: its kernel reads whatever lies behind a gain that is too short, and divides by
    the size of an empty weight."""
    rows = (len(direction), *[1] * (direction.ndim - 1)) if direction.ndim else None
    floats = direction.is_floating_point() and gain.is_floating_point()
    return floats and gain.shape == rows and direction.numel() > 0


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    rules: Rules = (),
    ignored: Iterable[str] = (),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    where: str = "checkpoint",
) -> None:
    """Put the tensors into `module` (which may be on `meta`), strictly, and set it to eval mode.

    `ignored` are regexes of source keys that inference never reads, each listed with a reason by its
    family. Floating tensors are cast to `dtype` when given. Missing, misshapen and mistyped keys are reported
    together in one CheckpointError, counted and the first few of each by name, and with them what was not
    expected. Unexpected keys alone are left out and told (`collecting_unread`): a head that only training
    used stops nobody.
    """
    skip = [re.compile(pattern) for pattern in ignored]
    wanted = [key for key in tensors if not any(pattern.search(key) for pattern in skip)]
    sources = _sources(wanted, rules)
    named = {name: tensors[key] for name, key in sources.items()}
    expected = module.state_dict()
    missing = sorted(expected.keys() - named.keys())
    unexpected = sorted(named.keys() - expected.keys())
    misshapen = [
        f"{key}: found {tuple(named[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & named.keys())
        if named[key].shape != expected[key].shape
    ]
    mistyped = [
        f"{key}: found {named[key].dtype}, expected {expected[key].dtype}"
        for key in sorted(expected.keys() & named.keys())
        if named[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if missing or misshapen or mistyped:
        parts = [
            _listing(title, names)
            for title, names in (
                ("missing", missing),
                ("unexpected", [f"{name} {tuple(named[name].shape)}" for name in unexpected]),
                ("wrong shape", misshapen),
                ("wrong type", mistyped),
            )
            if names
        ]
        raise CheckpointError(
            f"{where} does not fit {type(module).__name__}:\n"
            + "\n".join(parts)
            + "\nThe weights and the config are of different models, or a file is damaged."
            + (_PACKED if any(_is_packed(named[line.partition(":")[0]]) for line in mistyped) else "")
        )
    leave_unread(where, {sources[name]: named.pop(name) for name in unexpected}, is_logged=True)
    trim()  # what the parts loaded before this one have left
    placed: dict[str, Tensor] = {}
    for key, tensor in named.items():
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        placed[key] = _aligned(tensor.to(device=device or tensor.device, dtype=cast))
        if placed[key] is not tensor:
            give_back(tensor)
    module.load_state_dict(placed, strict=True, assign=True)
    module.requires_grad_(False)
    module.eval()


def _is_packed(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and not tensor.is_floating_point()


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, moved to where torch would put it if it is small and a mapped file has it elsewhere.

    A matrix product on a CPU rounds otherwise at another address. Large tensors stay mapped; what
    `write_tensors` writes needs no move, so a converted checkpoint gives the very samples of its original.
    """
    is_moved = tensor.device.type == "cpu" and tensor.nbytes <= _SMALL and tensor.data_ptr() % ALIGNMENT
    return tensor.clone() if is_moved else tensor


def _listing(title: str, names: Sequence[str]) -> str:
    """How many there are and the first of them: a config of another size misfits every tensor."""
    return f"  {len(names)} {title}:\n" + "\n".join(f"    {line}" for line in few(names))


def build(make: Callable[[], nn.Module]) -> Any:
    """A module built without memory for its weights (on `meta`); fill it with `load_strict`.

    Modules that compute tables in their constructor keep them as plain attributes made on first use.
    Raises ConfigError for sizes that no network can have.
    """
    try:
        with torch.device("meta"):
            return make()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the sizes in the checkpoint's config make no network ({error}). Compare them with the official "
            "config, or download the checkpoint again."
        ) from error
