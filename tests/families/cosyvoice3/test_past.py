"""Streams that keep what they have solved: equal to the whole under the streaming mask, and bounded."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.families.cosyvoice3 import estimator, stream
from sonant.families.cosyvoice3.noise import SeededNoise
from sonant.families.cosyvoice3.past import FlowPast, KeptPrompts, PastSize, PromptPast, visible
from sonant.families.cosyvoice3.stream import DecodeOptions, FlowVoice, SpeechDecoder
from sonant.nn.tap import tapped
from sonant.request.speech import Sampling, SpeechRequest

EXACT = {"kept": torch.float32, "steps": 2}


class Bins:
    """Instead of a vocoder: one sample for each value of the mel, which says all and takes no time."""

    def __init__(self, *_, **__):
        pass

    def push(self, mel, *, is_final):
        return (0.1 * mel).tanh().T.flatten()


@pytest.fixture(autouse=True)
def no_vocoder(monkeypatch):
    monkeypatch.setattr(stream, "VocoderStream", Bins)
    with torch.inference_mode():
        yield


def voice_of(tokens, frames=None):
    rng = torch.Generator().manual_seed(1)
    frames = 2 * tokens if frames is None else frames
    return FlowVoice(
        tokens=torch.randint(0, 729, (tokens,), generator=rng),
        mel=torch.randn(frames, 80, generator=rng) - 4,
        speaker=torch.randn(192, generator=rng),
    )


def tokens_of(count):
    return torch.randint(0, 729, (count, 1), generator=torch.Generator().manual_seed(2))


def decoder_of(model, voice, noise=None, prompts=None, **options):
    return SpeechDecoder(
        model.config,
        model.flow,
        model.vocoder,
        voice,
        noise or SeededNoise(model.config, 4),
        DecodeOptions(**{**EXACT, **options}),
        streaming=True,
        prompts=prompts,
    )


def streamed(model, voice, tokens, **options):
    """Mel [M, T] of a stream, and the frames that each run of the flow worked on."""
    mels, worked = [], []
    made = decoder_of(model, voice, **options)

    def sink(name, tensor):
        if name.endswith("vocoder.mel"):
            mels.append(tensor.clone())
        elif name.endswith("step.0.x"):
            worked.append(tensor.shape[-1])

    with tapped(sink):
        made.push(tokens)
        made.finish()
    return torch.cat(mels, dim=1), worked


def whole(model, voice, tokens):
    """Mel [M, T] of all tokens at once, under the streaming mask."""
    noise = SeededNoise(model.config, 4).flow(2 * (len(voice.tokens) + len(tokens)))
    steps = EXACT["steps"]
    return model.flow(voice.tokens, tokens[:, 0], voice.mel, voice.speaker, noise, chunked=True, steps=steps)


@pytest.mark.parametrize(("prompt", "hop"), [(30, 25), (25, 50), (1, 100), (130, 25)])
def test_a_stream_equals_the_whole_under_the_streaming_mask(shared_model, prompt, hop):
    voice, tokens = voice_of(prompt), tokens_of(190)
    mel, worked = streamed(shared_model, voice, tokens, hop=hop)
    expected = whole(shared_model, voice, tokens)
    assert mel.shape == expected.shape
    assert (mel - expected).abs().max() <= 1e-4
    assert sum(worked) == 2 * (prompt + 190), "no frame is solved twice"


def test_chunks_before_the_last_are_the_originals_own(shared_model):
    """The original solves the last one under full attention, a stream here under its mask to the end."""
    voice, tokens = voice_of(30), tokens_of(60)
    found, original = (
        streamed(shared_model, voice, tokens, context_tokens=context)[0]
        for context in (stream.CONTEXT_TOKENS, None)
    )
    apart = (found - original).abs()
    assert apart[:, : 2 * 45].max() <= 1e-4
    assert apart[:, 2 * 45 :].max() > 1e-2


@pytest.mark.parametrize("frames", [57, 60, 61])
def test_a_prompt_mel_of_another_length_than_its_tokens_changes_nothing_of_that(shared_model, frames):
    voice, tokens = voice_of(30, frames), tokens_of(70)
    mel, _ = streamed(shared_model, voice, tokens)
    assert (mel - whole(shared_model, voice, tokens)).abs().max() <= 1e-4


def windowed_mask(positions, chunk, *, pinned, window):
    """[T, T] by the words of the docs, frame by frame."""
    rows = []
    for query in positions.tolist():
        own = query // chunk * chunk
        rows.append(
            [key < own + chunk and (key < pinned or key >= own - window) for key in positions.tolist()]
        )
    return torch.tensor(rows)


def test_beyond_the_window_a_frame_sees_the_prompt_and_the_window(shared_model, monkeypatch):
    voice, tokens = voice_of(30), tokens_of(240)
    found = [streamed(shared_model, voice, tokens, hop=hop, context_tokens=50)[0] for hop in (25, 100)]
    assert (found[0] - whole(shared_model, voice, tokens)).abs().max() > 1e-2, "the window matters"

    def masked(positions, chunk):
        return windowed_mask(positions, chunk, pinned=100, window=100)

    monkeypatch.setattr(estimator, "chunk_mask", masked)
    expected = whole(shared_model, voice, tokens)
    for mel in found:
        assert (mel - expected).abs().max() <= 1e-4


def test_the_mask_is_left_out_where_everything_may_be_seen(shared_model):
    config = shared_model.config.flow.transformer
    size = PastSize(config=config, steps=1, prompt=30, window=50)
    frames = torch.arange(100)
    assert visible(frames[50:], frames, 50, size) is None
    mask = visible(frames, frames, 50, size)
    assert mask.tolist() == windowed_mask(frames, 50, pinned=50, window=50).tolist()


def test_keeping_bfloat16_costs_little(shared_model):
    voice, tokens = voice_of(30), tokens_of(190)
    exact, _ = streamed(shared_model, voice, tokens)
    mel, _ = streamed(shared_model, voice, tokens, kept=torch.bfloat16)
    apart = (mel - exact).pow(2).mean().sqrt() / exact.std()
    assert 0 < apart < 4e-3


def test_memory_is_told_in_advance_and_below_it_frames_are_solved_again(shared_model):
    voice, tokens = voice_of(30), tokens_of(190)
    config = shared_model.config.flow.transformer
    size = PastSize(config=config, steps=EXACT["steps"], prompt=60, window=400)
    needed = size.bytes(4)
    past = FlowPast(size, torch.float32, torch.device("cpu"))
    assert needed == past._kept.numel() * 4
    kept, worked = streamed(shared_model, voice, tokens, memory=needed)
    solved, more = streamed(shared_model, voice, tokens, memory=needed - 1)
    assert sum(worked) == 440
    assert more == [150, 250, 440]
    assert (kept - solved).abs().max() <= 1e-4, "within the context both see the same"


def test_streams_together_equal_streams_alone(shared_model):
    """Two decoders whose chunks alternate."""
    voices = [voice_of(30), voice_of(41)]
    tokens = tokens_of(120)
    alone = []
    for voice in voices:
        made = decoder_of(shared_model, voice)
        alone.append(torch.cat([*(made.push(part) for part in tokens.split(40)), made.finish()]))
    together = [decoder_of(shared_model, voice) for voice in voices]
    found = [[], []]
    for part in tokens.split(40):
        for made, samples in zip(together, found, strict=True):
            samples.append(made.push(part))
    for made, samples, expected in zip(together, found, alone, strict=True):
        assert torch.equal(torch.cat([*samples, made.finish()]), expected)


@pytest.fixture
def pasts(monkeypatch):
    """Weak references to every past that is made."""
    made = []

    def noted(*args):
        past = FlowPast(*args)
        made.append(weakref.ref(past))
        return past

    monkeypatch.setattr(stream, "FlowPast", noted)
    return made


def test_the_end_frees_the_memory(shared_model, pasts):
    made = decoder_of(shared_model, voice_of(30))
    made.push(tokens_of(60))
    assert [past() is not None for past in pasts] == [True]
    made.finish()
    assert [past() for past in pasts] == [None]


def test_cancelling_frees_the_memory(shared_model, told, pasts, monkeypatch):
    request = SpeechRequest(
        "The lake is quiet today.", voice=told, seed=3, sampling=Sampling(flow_steps=1, max_frames=400)
    )
    is_under_way, is_cancelled = threading.Event(), threading.Event()
    push = Bins.push

    def paused(self, mel, *, is_final):
        is_under_way.set()
        assert is_cancelled.wait(30)
        return push(self, mel, is_final=is_final)

    monkeypatch.setattr(Bins, "push", paused)
    with Engine(shared_model, slots=1) as engine:
        chunks = engine.stream(request)
        assert is_under_way.wait(30)
        assert [past() is not None for past in pasts] == [True]
        chunks.cancel()
        is_cancelled.set()
        engine.synthesize(SpeechRequest("Yes.", voice=told, sampling=Sampling(flow_steps=1, max_frames=5)))
        gc.collect()
        assert [past() for past in pasts] == [None]


def test_streamed_requests_together_equal_requests_alone(shared_model, told, untold):
    sampling = Sampling(flow_steps=1, max_frames=70)
    requests = [
        SpeechRequest("The lake is quiet today.", voice=voice, seed=seed, sampling=sampling)
        for seed, voice in enumerate((told, untold, told))
    ]
    with Engine(shared_model, slots=3) as engine:
        alone = [np.concatenate([c.samples for c in engine.stream(request)]) for request in requests]
        streams = [engine.submit(request, streaming=True) for request in requests]
        for expected, chunks in zip(alone, streams, strict=True):
            assert np.array_equal(np.concatenate([c.samples for c in chunks]), expected)


def test_a_model_may_be_told_to_keep_nothing(shared_model, told, monkeypatch, pasts):
    request = SpeechRequest(
        "The lake is quiet today.", voice=told, seed=3, sampling=Sampling(flow_steps=1, max_frames=70)
    )
    found = []
    for keeps in (True, False):
        monkeypatch.setattr(shared_model, "keeps_past", keeps)
        with Engine(shared_model, slots=1) as engine:
            found.append(np.concatenate([chunk.samples for chunk in engine.stream(request)]))
        assert len(pasts) == 1
    assert found[0].shape == found[1].shape


def test_the_next_stream_of_a_voice_begins_with_what_the_last_kept_of_it(shared_model):
    tokens, prompts = tokens_of(60), KeptPrompts(1 << 30)

    def frames(voice, seed, **options):
        noise = SeededNoise(shared_model.config, seed, prompt=2 * len(voice.tokens))
        return streamed(shared_model, voice, tokens, noise=noise, prompts=prompts, **options)

    first, worked = frames(voice_of(60), 1)
    again, fewer = frames(voice_of(60), 1)
    assert torch.equal(first, again)
    assert sum(worked) - sum(fewer) == 100, "57 tokens of 60 are followed by all that they look ahead to"
    _, other_seed = frames(voice_of(60), 2)
    assert other_seed == fewer
    for voice, options in ((voice_of(61), {}), (voice_of(60, 119), {}), (voice_of(60), {"guidance": 0.1})):
        made, worked = frames(voice, 1, **options)
        assert sum(worked) == 2 * (len(voice.tokens) + 60)
        expected = streamed(
            shared_model,
            voice,
            tokens,
            noise=SeededNoise(shared_model.config, 1, prompt=2 * len(voice.tokens)),
            **options,
        )
        assert torch.equal(made, expected[0])
    assert sum(frames(voice_of(60), 1, steps=1)[1]) == 240


def test_prompts_used_longest_ago_are_dropped_for_new_ones():
    def prompt(frames):
        return PromptPast(torch.zeros(1, 1, 1, 1, frames, 1), ())

    prompts = KeptPrompts(4 * 10)
    prompts.keep(b"a", prompt(5))
    prompts.keep(b"b", prompt(5))
    prompts.find(b"a")
    prompts.keep(b"c", prompt(4))
    prompts.keep(b"too large", prompt(11))
    assert [prompts.find(key) is not None for key in (b"a", b"b", b"c", b"too large")] == [
        True, False, True, False,
    ]  # fmt: skip
