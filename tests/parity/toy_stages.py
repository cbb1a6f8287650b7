"""The toy model's documented stages and one request, for tests of the machinery."""

from sonant.parity.record import record
from sonant.parity.stages.table import read_table
from sonant.parity.task import Task
from sonant.request.speech import SpeechRequest
from tests.toy import ToyModel

TABLE = read_table(
    "toy",
    {
        "token": "toy.token",
        "decode": [
            ["toy.layer.{layer}.in", "[B, T, D]", "input", "toy.layer.{layer-1}.out", "toy.token"],
            ["toy.layer.{layer}.query", "[B, H, T, head]", "queries", "toy.layer.{layer}.in"],
            ["toy.layer.{layer}.key", "[B, H, T, head]", "keys", "toy.layer.{layer}.in"],
            [
                "toy.layer.{layer}.attention",
                "[B, T, D]",
                "attention",
                "toy.layer.{layer}.in toy.layer.{layer}.query toy.layer.{layer}.key",
            ],
            [
                "toy.layer.{layer}.mlp",
                "[B, T, D]",
                "feed-forward",
                "toy.layer.{layer}.in toy.layer.{layer}.attention",
            ],
            [
                "toy.layer.{layer}.out",
                "[B, T, D]",
                "sum",
                "toy.layer.{layer}.in toy.layer.{layer}.attention toy.layer.{layer}.mlp",
            ],
            ["toy.norm", "[B, T, D]", "the last norm", "toy.layer.{layer}.out"],
            ["toy.logits", "[B, V]", "logits", "toy.norm"],
            ["toy.token", "[]", "the token", "toy.logits draw.exponential", "", "token"],
        ],
        "audio": [
            ["toy.embedded", "[B, D, T]", "embedded", "toy.token"],
            ["toy.conv", "[B, C, T]", "convolution", "toy.embedded"],
            ["toy.up", "[B, 1, S]", "upsampled", "toy.conv"],
            ["output.samples", "[S]", "samples", "toy.up"],
        ],
    },
)


def toy_task(*, seed=7, text="hello you"):
    return Task(request=SpeechRequest(text, seed=seed), max_steps=12)


def toy_trace(model=None, *, seed=7, forced=None, **options):
    model = model or ToyModel(end_bias=float("-inf"))
    return record(model, toy_task(seed=seed), forced=forced, table=TABLE, **options)
