"""A deliberate fault in one of our own networks: what is changed, and which stages must be named for it."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Fault:
    """`stages` are documented names: the first one is where `compare` must point, and `bisect` names all."""

    what: str
    inject: Callable
    stages: tuple[str, ...]


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
