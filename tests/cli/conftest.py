"""Runs the command line in this process, as a shell would see it."""

import functools
import io
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main

from sonant.cli import app as tree
from tests.toy import ToyModel


@dataclass
class Result:
    code: int
    out: bytes
    err: str

    @property
    def text(self):
        return self.out.decode()


class _Bytes(io.TextIOWrapper):
    """A stdout or stderr that is a pipe."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def value(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.fixture(autouse=True, scope="session")
def one_tree():
    """A process builds its tree of commands once; here one runs hundreds of commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def sonant(monkeypatch, tmp_path):
    """sonant("say", "hi") -> Result; the working directory and the library are in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SONANT_VOICES", str(tmp_path / "voices"))
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path / "models"))

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(tree, "leave", leave)
    monkeypatch.setattr(logging.getLogger("sonant"), "handlers", [])

    def run(*arguments, stdin=b""):
        out, err = _Bytes(), _Bytes()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["sonant", *map(str, arguments)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            with pytest.raises(SystemExit) as caught:
                tree.main()
        return Result(caught.value.code or 0, out.value(), err.value().decode())

    return run


@pytest.fixture
def toy(monkeypatch):
    """Every model is the toy, however it is named; the toy is returned for changes."""
    model = ToyModel()
    monkeypatch.setattr("sonant.catalogue.registry.find", lambda name: ("toy", Path()))
    family = SimpleNamespace(describe=lambda path: model.spec)
    monkeypatch.setitem(sys.modules, "sonant.families.toy", family)
    monkeypatch.setattr("sonant.catalogue.registry.load_model", lambda *args, **options: model)
    return model
