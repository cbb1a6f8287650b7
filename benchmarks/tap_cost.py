"""What inactive taps cost: the same decoding with them and with every `tap(name, x)` compiled as `x`.

    python benchmarks/tap_cost.py MODEL [--voice CLIP] [--transcript TEXT] [--frames N] [--rounds N]

All versions run in one process on the same loaded model, in turns and in random order, in processor time on
one thread. Two answers: the median of the ratios within a round, and the ratio of the fastest runs, which a
busy machine disturbs less. A second copy of the code without taps is the control: how far two equal versions
come apart.
"""

import argparse
import ast
import inspect
import random
import statistics
import sys
import time
from pathlib import Path
from types import CodeType, FunctionType

import torch

from sonant.catalogue.registry import load_model
from sonant.nn.tap import tap, tapped
from sonant.parity.task import Task, perform
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest


class _Untapped(ast.NodeTransformer):
    def visit_Call(self, node):
        self.generic_visit(node)
        is_tap = isinstance(node.func, ast.Name) and node.func.id == "tap" and len(node.args) == 2
        return node.args[1] if is_tap else node


def codes_in(code):
    """Every code object below this one, by qualified name."""
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value.co_qualname, value
            yield from codes_in(value)


def functions_of(module):
    """The functions and methods that a module defines, without their decorators."""
    owners = [module, *(value for value in vars(module).values() if inspect.isclass(value))]
    for owner in owners:
        for value in vars(owner).values():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            value = inspect.unwrap(value) if callable(value) else value
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                yield value


def switches():
    """(function, its code, the same without taps, a copy of that) for each function that has a tap."""
    found = []
    for name, module in sorted(sys.modules.items()):
        if (
            not name.startswith("sonant.")
            or getattr(module, "tap", None) is not tap
            or name == tap.__module__
        ):
            continue
        tree = _Untapped().visit(ast.parse(inspect.getsource(module)))
        plain = dict(codes_in(compile(ast.fix_missing_locations(tree), module.__file__, "exec")))
        for function in functions_of(module):
            code = function.__code__
            other = plain.get(code.co_qualname, code)  # methods that a dataclass makes are not in the source
            if code.co_code != other.co_code or code.co_consts != other.co_consts:
                found.append((function, code, other, other.replace()))
    return found


def measure(model, task, *, rounds):
    """Seconds of each round with inactive taps, without taps, and of the control; tap calls of one run."""
    calls = 0

    def count(_name, _tensor):
        nonlocal calls
        calls += 1

    with tapped(count):
        perform(model, task)
    found = switches()
    assert found, "no function with a tap was found"

    def run(version):
        for function, *codes in found:
            function.__code__ = codes[version]
        start = time.process_time()
        perform(model, task)
        return time.process_time() - start

    rows = []
    order = random.Random(0)
    versions = [0, 1, 2]
    try:
        for version in versions:
            run(version)
        for _ in range(rounds):
            order.shuffle(versions)
            seconds = {version: run(version) for version in versions}
            rows.append([seconds[version] for version in range(3)])
    finally:
        for function, code, *_ in found:
            function.__code__ = code
    return rows, calls


def compared(rows, version):
    """How much longer than the code without taps, in percent: by the median of the ratios, by the fastest."""
    median = statistics.median(row[version] / row[1] for row in rows)
    fastest = min(row[version] for row in rows) / min(row[1] for row in rows)
    return f"{100 * (median - 1):+.2f} % / {100 * (fastest - 1):+.2f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--text", default="One two three.")
    parser.add_argument("--voice", help="reference audio file, or a preset")
    parser.add_argument("--transcript")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model, device="cpu")
    voice = arguments.voice
    if voice and Path(voice).is_file():
        voice = model.encode_voice(Audio.read(arguments.voice), arguments.transcript)
    sampling = Sampling(max_frames=arguments.frames)
    request = SpeechRequest(arguments.text, voice=voice, seed=0, sampling=sampling)
    rows, calls = measure(model, Task(request=request), rounds=arguments.rounds)
    fastest = min(row[1] for row in rows)
    print(
        f"{model.spec.name}: {calls} taps in {1000 * fastest:.1f} ms, {arguments.rounds} rounds; "
        "median / fastest"
    )
    print(f"  inactive taps {compared(rows, 0)}, control {compared(rows, 2)}")


if __name__ == "__main__":
    main()
