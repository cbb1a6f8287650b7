"""The toy model's documented stages and one request, for tests of the machinery."""

from sonant.parity.record import record
from sonant.parity.stages.table import Stage, StageTable, decoder_stages
from sonant.parity.task import Task
from sonant.request.speech import SpeechRequest
from tests.toy import ToyModel

STAGES = (
    *decoder_stages("toy", part="decode", source=("toy.token",), what="toy"),
    Stage(name="toy.logits", shape="[B, V]", what="logits", part="decode", inputs=("toy.norm",)),
    Stage(
        name="toy.token",
        shape="[]",
        what="the token",
        part="decode",
        inputs=("toy.logits", "draw.exponential"),
        kind="token",
    ),
    Stage(name="toy.embedded", shape="[B, D, T]", what="embedded", part="audio", inputs=("toy.token",)),
    Stage(name="toy.conv", shape="[B, C, T]", what="convolution", part="audio", inputs=("toy.embedded",)),
    Stage(name="toy.up", shape="[B, 1, S]", what="upsampled", part="audio", inputs=("toy.conv",)),
    Stage(name="output.samples", shape="[S]", what="samples", part="audio", inputs=("toy.up",)),
)
TABLE = StageTable("toy", STAGES, token="toy.token")


def toy_task(*, seed=7, text="hello you"):
    return Task(request=SpeechRequest(text, seed=seed), max_steps=12)


def toy_trace(model=None, *, seed=7, forced=None, **options):
    model = model or ToyModel(end_bias=float("-inf"))
    return record(model, toy_task(seed=seed), forced=forced, table=TABLE, **options)
