"""Chunks: when, how much, and that they join."""

from dataclasses import replace

import pytest
import torch

from sonant.families.cosyvoice3.noise import ReferenceNoise, SeededNoise
from sonant.families.cosyvoice3.stream import (
    CONTEXT_TOKENS,
    ChunkSchedule,
    DecodeOptions,
    FlowVoice,
    SpeechDecoder,
    VocoderStream,
)
from sonant.parity.listening import heard


def schedule(prompt, hop=25):
    return ChunkSchedule(prompt, hop=hop, largest=100, lookahead=3)


def test_plans_are_as_recorded(rows):
    for plan in rows["plans"]:
        made = schedule(plan["prompt_tokens"], plan["hop_at_start"])
        calls = [[c.offset, c.given, c.chunked, c.is_final] for c in made.plan(plan["target_tokens"])]
        assert calls == plan["calls"]
        assert made.hop == plan["hop_at_end"]


def test_hops_grow_to_four_times_the_first_and_stay_aligned_with_the_mask():
    made = schedule(30)
    calls = [made.next(1000) for _ in range(6)]
    assert [call.offset for call in calls] == [0, 45, 95, 195, 295, 395]
    assert all((30 + call.offset) % 25 == 0 for call in calls[1:])


@pytest.fixture(scope="module")
def mel():
    return torch.randn(80, 400, generator=torch.Generator().manual_seed(3)) * 2 - 4


@pytest.mark.parametrize("pieces", [[400], [50, 50, 100, 200], [9, 1, 30, 7, 53, 300], [13] * 30 + [10]])
@pytest.mark.slow
def test_vocoder_in_pieces_equals_whole_with_bounded_context(shared_model, mel, pieces):
    config, vocoder = shared_model.config, shared_model.vocoder
    whole = vocoder(mel, SeededNoise(config, 1).source(0, 400))
    stream = VocoderStream(vocoder, SeededNoise(config, 1), context=vocoder.context)
    found, start = [], 0
    for size in pieces:
        start += size
        found.append(stream.push(mel[:, start - size : start], is_final=start == 400))
        assert stream._mel.shape[1] <= vocoder.context + size + config.vocoder.lookahead
    found = torch.cat(found)
    assert found.shape == whole.shape
    assert (found - whole).abs().max() <= 1e-4


def reference(model, prompt_tokens=30):
    rng = torch.Generator().manual_seed(1)
    return FlowVoice(
        tokens=torch.randint(0, 729, (prompt_tokens,), generator=rng),
        mel=torch.randn(2 * prompt_tokens, 80, generator=rng) - 4,
        speaker=torch.randn(192, generator=rng),
    )


def decoder(model, *, streaming=True, noise=None, **options):
    options = DecodeOptions(**{"steps": 1, **options})
    noise = noise or SeededNoise(model.config, 4)
    return SpeechDecoder(
        model.config, model.flow, model.vocoder, reference(model), noise, options, streaming=streaming
    )


def tokens(count):
    return torch.randint(0, 729, (count, 1), generator=torch.Generator().manual_seed(2))


def test_audio_comes_at_the_schedules_own_boundaries(shared_model):
    made = decoder(shared_model)
    lengths = [len(made.push(token[None])) for token in tokens(120)]
    spoken = {index + 1: length for index, length in enumerate(lengths) if length}
    assert spoken == {48: (2 * 45 - 8) * 480, 98: 2 * 50 * 480}
    assert len(made.finish()) == (240 - sum(spoken.values()) // 480) * 480


def test_earlier_frames_are_the_same_in_a_longer_stream(shared_model):
    """The chunk mask shows nothing of later chunks, so a longer prefix repeats what was spoken."""
    made = decoder(shared_model, context_tokens=None)
    made._tokens = tokens(300)[:, 0]
    first, second = [made._mel(made._schedule.next(300)) for _ in range(2)]
    made._schedule.offset = 0
    calls = schedule(30)
    calls.next(300)
    longer = made._mel(replace(calls.next(300), offset=0))
    assert (longer[:, : first.shape[1]] - first).abs().max() <= 1e-4
    assert (longer[:, first.shape[1] :] - second).abs().max() <= 1e-4


def seen_frames(model, made, count):
    """Frames that each run of the flow worked on."""
    frames = []
    solve = model.flow.solve

    def counted(inputs, *args, **kwargs):
        frames.append(inputs.mu.shape[-1])
        return solve(inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.flow, "solve", counted)
        made.push(tokens(count))
        made.finish()
    return frames


@pytest.mark.slow
def test_work_for_a_chunk_that_keeps_nothing_is_bounded_and_grows_in_reference_mode(shared_model):
    bounded = seen_frames(shared_model, decoder(shared_model, memory=0), 500)
    growing = seen_frames(shared_model, decoder(shared_model, context_tokens=None), 500)
    assert max(bounded) <= 2 * (30 + CONTEXT_TOKENS + 100 + 3)
    assert growing == sorted(growing)
    assert growing[-1] == 2 * 530


def test_hop_of_an_earlier_request_only_counts_when_given(shared_model):
    made = decoder(shared_model, hop=100)
    made.push(tokens(250))
    assert [call.offset for call in made.calls] == [0]
    assert made.calls[0].given == 100 + 70 + 3
    fresh = decoder(shared_model)
    fresh.push(tokens(60))
    assert fresh.calls[0].given == 48


def test_another_speed_stretches_the_whole_mel_at_the_end(shared_model):
    plain, fast = decoder(shared_model), decoder(shared_model, speed=1.25)
    assert len(plain.push(tokens(60)))
    assert not len(fast.push(tokens(60)))
    assert len(fast.finish()) == int(120 / 1.25) * 480
    slow = decoder(shared_model, speed=0.5)
    slow.push(tokens(60))
    assert len(slow.finish()) == 240 * 480


def test_a_prompt_whose_mel_is_longer_or_shorter_than_its_tokens_is_cut_by_frames(shared_model):
    """As in voice conversion, which does not trim."""
    for frames in (57, 60, 61):
        voice = replace(reference(shared_model), mel=torch.zeros(frames, 80))
        for streaming in (False, True):
            made = SpeechDecoder(
                shared_model.config,
                shared_model.flow,
                shared_model.vocoder,
                voice,
                SeededNoise(shared_model.config, 4),
                DecodeOptions(steps=1),
                streaming=streaming,
            )
            spoken = len(made.push(tokens(60))) + len(made.finish())
            assert spoken == (2 * 90 - frames) * 480


def test_no_tokens_give_no_audio_and_one_token_two_frames(shared_model):
    for streaming in (False, True):
        assert len(decoder(shared_model, streaming=streaming).finish()) == 0
        made = decoder(shared_model, streaming=streaming)
        made.push(tokens(1))
        assert len(made.finish()) == 960


def test_stages_are_timed(shared_model):
    made = decoder(shared_model)
    made.push(tokens(10))
    made.finish()
    assert set(made.timings) == {"flow", "vocoder"}
    assert all(seconds > 0 for seconds in made.timings.values())


def test_stream_of_the_official_code_is_matched_chunk_by_chunk(shared_model, told, expected):
    voice = FlowVoice(
        **{name: told.tensors[name] for name in ("mel", "speaker")}, tokens=told.tensors["tokens"].long()
    )
    made = SpeechDecoder(
        shared_model.config,
        shared_model.flow,
        shared_model.vocoder,
        voice,
        ReferenceNoise(shared_model.config),
        DecodeOptions(context_tokens=None),
        streaming=True,
    )
    pieces = [made.push(token.reshape(1, 1)) for token in expected["e2e.stream_zero_shot.speech_tokens"]]
    pieces.append(made.finish())
    pieces = [piece for piece in pieces if len(piece)]
    assert len(pieces) == 3
    for index, piece in enumerate(pieces):
        recorded = expected[f"e2e.stream_zero_shot.chunk{index}.wav"][0]
        assert piece.shape == recorded.shape
        # The source's phase adds up rounding of the mel, by processor; what is heard of it is held instead.
        ear = heard(recorded, piece)
        apart = float((piece - recorded).abs().max())
        is_heard_alike = ear.decibels <= 0.1 and ear.convergence <= 0.01
        assert apart <= 2e-3 or (apart <= 6e-3 and is_heard_alike), (apart, ear)
