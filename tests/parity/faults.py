"""A deliberate fault in one of our own networks: what is changed, and which stages must be named for it."""

import inspect
import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F

from sonant.nn.tap import tapped
from sonant.parity import bisect, record
from tests.parity import cases


@dataclass(frozen=True)
class Fault:
    """`stages` are documented names: the first one is where `compare` must point, and `bisect` names all."""

    what: str
    inject: Callable
    stages: tuple[str, ...]
    kind: str = "source"
    """What the table of faults is ordered by."""
    words: str = ""
    """Part of the diagnosis that `compare` must give."""
    ends: bool = False
    """The run takes fewer or more steps: `bisect` says that and names no stage."""
    is_suspicious: bool = False
    """It stays in budget."""


def change(owner, attribute, old, new):
    """An injection that replaces a piece of a function's source by another."""

    def inject(patch):
        found = inspect.unwrap(inspect.getattr_static(owner, attribute))
        is_static, is_cached = isinstance(found, staticmethod), isinstance(found, cached_property)
        function = found.__func__ if is_static else found.func if is_cached else found
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(old) >= 1, f"{attribute} has no {old!r}"
        source = "from __future__ import annotations\n" + source.replace(old, new)
        made = {}
        exec(compile(source, f"<fault in {attribute}>", "exec"), function.__globals__, made)
        if is_cached:
            made[attribute].__set_name__(owner, attribute)
        patch.setattr(owner, attribute, staticmethod(made[attribute]) if is_static else made[attribute])

    return inject


def replace(owner, attribute, value):
    """An injection that puts another value or function in place."""

    def inject(patch):
        patch.setattr(owner, attribute, value)

    return inject


def together(*injections):
    """Several injections that make one fault."""

    def inject(patch):
        for injection in injections:
            injection(patch)

    return inject


def end_at(owner, attribute, old, new, family, token):
    """An injection that takes the id chosen at `token` for the end, put for {id} in the new source."""

    def inject(patch):
        chosen = int(cases.reference(family).by_key[token].stored)
        change(owner, attribute, old, new.format(id=chosen))(patch)

    return inject


def straight_lines(waveform, from_rate, to_rate):
    """A resampler that draws straight lines between samples."""
    length = math.ceil(waveform.shape[-1] * to_rate / from_rate)
    return F.interpolate(waveform[None, None], size=length, mode="linear")[0, 0]


def at(stage, turn):
    """An injection of a wrong value at one stage: what `turn` makes of the right one goes on.

    `stage` is a documented name, with numbers or placeholders; `turn` gets the tensor and the number of times
    that the name was seen before.
    """
    pattern = re.compile(r"(segment\.\d+\.)?" + re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(stage)))

    def wrong(sink):
        seen = {}

        def see(name, tensor):
            if not pattern.fullmatch(name):
                return sink(name, tensor)
            times = seen[name] = seen.get(name, -1) + 1
            turned = turn(tensor, times)
            given = sink(name, turned)
            return turned if given is None else given

        return tapped(see)

    def inject(patch):
        patch.setattr(record, "tapped", wrong)
        patch.setattr(bisect, "tapped", wrong)

    return inject


def loaded(alter):
    """An injection that changes a model after its weights were read."""

    def inject(patch):
        load = cases.load_model

        def other(*arguments, **options):
            model = load(*arguments, **options)
            alter(model)
            return model

        patch.setattr(cases, "load_model", other)

    return inject
