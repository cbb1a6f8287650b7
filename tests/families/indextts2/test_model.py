"""The whole model behind the contract: laws, emotions, caches, options, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError, UnsupportedError, VoiceError
from sonant.families.indextts2 import emotion
from sonant.families.indextts2.model import IndexTTS2
from sonant.families.indextts2.options import MULTILINGUAL_OPTIONS, OPTIONS, PRESETS, IndexOptions
from sonant.families.indextts2.weights import load_gpt
from sonant.nn.tap import tapped
from sonant.request.audio import Audio
from sonant.request.checks import check_request
from sonant.request.speech import Sampling, SpeechRequest, Style
from sonant.request.voice import Voice
from tests.bad_inputs import BadInputs
from tests.families.indextts2.conftest import clip
from tests.laws import FamilyLaws, run_alone, run_together

QUICK = Sampling(max_frames=12, flow_steps=2)


def request(text, voice, **given):
    return SpeechRequest(text, voice=voice, **{"sampling": QUICK, "seed": 7, **given})


class TestLaws(FamilyLaws):
    tolerance = 2e-4  # float32, 2 flow steps, batch sizes change the order of sums

    @pytest.fixture
    def requests(self, voices):
        one = Sampling(max_frames=9, flow_steps=2, beams=1)
        return [
            request("Hello world.", voices[0]),
            request("你好，欢迎使用。", voices[1], seed=3, sampling=one),
            request("A much longer sentence is spoken here by the second voice.", voices[1], seed=4),
        ]


class TestBadInputs(BadInputs):
    @pytest.fixture
    def voice(self, voices):
        return voices[0]

    @pytest.mark.parametrize("audio", [np.zeros(48_000), np.full(48_000, np.nan)])
    def test_an_emotion_clip_without_sound_is_refused(self, engine, voice, audio):
        style = Style(emotion_audio=Audio(audio.astype(np.float32), 24_000))
        with pytest.raises(RequestError, match="emotion clip"):
            engine.segments(request("Hi.", voice, style=style))


def test_float64_batches_are_exact(loaded, checkpoint, voices):
    config = loaded.parts.config
    gpt = load_gpt(checkpoint / "gpt.pth", config, 32, device="cpu", dtype=torch.float64)
    model = IndexTTS2(replace(loaded.parts, gpt=gpt), loaded.spec, device="cpu")
    prompts = [model.prepare(request(text, voices[0]))[0] for text in ("Hello.", "A longer text follows.")]
    alone = [run_alone(model, prompt) for prompt in prompts]
    for one, other in zip(alone, run_together(model, prompts), strict=True):
        assert torch.equal(one, other)


def encoder_runs(call):
    """How often the semantic encoder runs inside `call`."""
    seen = []
    with tapped(lambda name, x: seen.append(name) if name == "w2v.hidden.0" else None):
        call()
    return len(seen)


def test_a_second_sentence_runs_no_encoder(model):
    audio = clip(3)
    assert encoder_runs(lambda: model.encode_voice(audio, None)) == 2
    voice = model.encode_voice(audio, None)
    assert encoder_runs(lambda: model.prepare(request("One.", voice))) == 0
    assert encoder_runs(lambda: model.prepare(request("Two.", voice))) == 0


def test_clips_are_known_by_content(model):
    first = model.encode_voice(clip(3), None)
    style = Style(emotion_audio=clip(4))
    assert encoder_runs(lambda: model.prepare(request("One.", first, style=style))) == 1
    again = Style(emotion_audio=clip(4), emotion_strength=0.3)
    assert encoder_runs(lambda: model.prepare(request("Two.", first, style=again))) == 0
    for seed in range(5, 25):  # more clips than are remembered
        model.preparing.clip_emotion(clip(seed, seconds=0.3))
    assert encoder_runs(lambda: model.preparing.clip_emotion(clip(4))) == 1


def test_a_voice_survives_its_file(model, voices, tmp_path):
    voices[0].save(tmp_path / "ann.voice.safetensors")
    stored = Voice.load(tmp_path / "ann.voice.safetensors")
    with Engine(model) as engine:
        fresh, read = (engine.synthesize(request("Hello.", voice)) for voice in (voices[0], stored))
    assert np.array_equal(fresh.samples, read.samples)


def vector_of(model, voice, style, **options):
    """The emotion vector of a request."""
    prompt = model.prepare(request("Hello.", voice, style=style, options=options))[0]
    return prompt.inputs.decode.emotion


def test_every_emotion_control_changes_the_emotion(model, voices):
    voice = voices[0]
    styles = [
        Style(),
        Style(emotion_audio=clip(4)),
        Style(emotion_audio=clip(4), emotion_strength=0.5),
        Style(emotion_vector=(0, 0.5, 0, 0, 0, 0, 0, 0)),
        Style(emotion_vector=(0, 0.5, 0, 0, 0, 0, 0, 0), emotion_strength=0.5),
        Style(emotion_text="How dare you do that to me!"),
    ]
    vectors = [vector_of(model, voice, style) for style in styles]
    for index, one in enumerate(vectors):
        for other in vectors[index + 1 :]:
            assert not torch.allclose(one, other, atol=1e-4)


def test_emotion_blend_is_linear_in_its_strength(model, voices):
    base = voices[0].tensors["emotion.base"]
    full = vector_of(model, voices[0], Style(emotion_audio=clip(4)))
    half = vector_of(model, voices[0], Style(emotion_audio=clip(4), emotion_strength=0.5))
    none = vector_of(model, voices[0], Style(emotion_audio=clip(4), emotion_strength=0.0))
    assert torch.allclose(none, base)
    assert torch.allclose(half, (base + full) / 2, atol=1e-6)


def test_vectors_are_weighed_as_on_the_web_page_unless_told_otherwise(model, voices):
    parts, voice = model.parts, voices[0]
    given = (1.0, 0.9, 0, 0, 0, 0, 0, 0)
    own = voice.tensors["emotion.own"]
    rows = emotion.nearest_rows(voice.tensors["style"][0], parts.speaker_groups)
    for bias, vector in ((True, emotion.balanced(given)), (False, given)):
        expected = emotion.add_vector(own, emotion.mixed_rows(vector, parts.emotion_groups, rows), vector)
        found = vector_of(model, voice, Style(emotion_vector=given), emotion_bias=bias)
        assert torch.allclose(found, expected, atol=1e-6)


def test_random_rows_follow_a_seed_of_their_own(model, voices):
    style = Style(emotion_vector=(0, 0.5, 0, 0.3, 0, 0, 0, 0), emotion_random=True)
    first = vector_of(model, voices[0], style, emotion_random_seed=1)
    assert torch.equal(first, vector_of(model, voices[0], style, emotion_random_seed=1))
    assert not torch.equal(first, vector_of(model, voices[0], style, emotion_random_seed=2))


def test_the_spoken_text_can_name_its_own_emotion(model, voices):
    text = "How dare you do that to me!"
    own = model.prepare(request(text, voices[0], style=Style(emotion_from_text=True)))[0]
    told = model.prepare(request(text, voices[0], style=Style(emotion_text=text)))[0]
    assert torch.equal(own.inputs.decode.emotion, told.inputs.decode.emotion)


def test_without_the_emotion_model_words_are_refused_and_numbers_work(model, voices):
    bare = IndexTTS2(replace(model.parts, classifier=None), model.spec, device="cpu")
    with pytest.raises(UnsupportedError, match=r"qwen0\.6bemo4-merge"):
        bare.prepare(request("Hi.", voices[0], style=Style(emotion_text="sad")))
    assert bare.prepare(request("Hi.", voices[0], style=Style(emotion_vector=(0.5,) + (0,) * 7)))


def test_segments_have_silence_between_them_but_not_at_the_end(model, voices):
    text = "The first sentence is here. 第二句话在这里，然后结束。"
    options = {"segment_pieces": 20, "interval_silence_ms": 120}
    prompts = model.prepare(request(text, voices[0], options=options))
    assert [prompt.pause_after for prompt in prompts] == [0.12, 0.0]
    assert [prompt.text for prompt in prompts] == [
        "THE FIRST SENTENCE IS HERE. 第 二 句 话 在 这 里 ,", "然 后 结 束 .",
    ]  # fmt: skip
    assert len({prompt.seed for prompt in prompts}) == 2
    default = model.prepare(request(text, voices[0], options={"segment_pieces": 20}))
    assert default[0].pause_after == 0.2
    with Engine(model) as engine:
        stream = engine.stream(request(text, voices[0], options=options))
        chunks = [chunk for chunk in stream if len(chunk.samples)]
    assert len(chunks) == 2  # sound after the first segment, then the second
    assert not chunks[0].samples[-2646:].any()
    assert chunks[0].samples[-2647] != 0


def test_steps_give_nothing_until_the_beams_end(model, voices):
    prompt = model.prepare(request("Hello world.", voices[0]))[0]
    assert prompt.rows == 3
    model.allocate(3, prompt.positions)
    utterance = model.start(prompt, [0, 1, 2])
    counts, final = [], []
    while not final or not final[-1]:
        (step,) = model.step([utterance])
        counts.append(len(step.tokens))
        final.append(step.is_final)
    assert set(counts[:-1]) <= {0}
    assert counts[-1] > 0
    assert step.at_ceiling == (65 not in utterance.state.search.result)
    assert model.cache.lengths == [0, 0, 0]


def test_codes_that_cannot_be_spoken_are_errors(model, voices):
    prompt = model.prepare(request("Hello.", voices[0]))[0]
    nothing = model.decoder(prompt, streaming=False)
    with pytest.raises(GenerationError, match="without a single code"):
        nothing.finish()
    outside = model.decoder(prompt, streaming=False)
    outside.push(torch.tensor([[3], [64], [5]]))
    with pytest.raises(GenerationError, match=r"code 64 at place 1.*mask_start_code"):
        outside.finish()


def test_noise_can_be_given_and_stages_are_timed(model, voices):
    prompt = model.prepare(request("Hello.", voices[0]))[0]
    codes = torch.tensor([[3], [4], [5]])
    frames = prompt.inputs.decode.mel.shape[-1] + 5
    made = []
    for noise in (None, torch.zeros(1, 80, frames), torch.zeros(1, 80, frames)):
        decoder = model.decoder(prompt, streaming=False, noise=noise)
        decoder.push(codes)
        made.append(decoder.finish())
        assert set(decoder.timings) == {"latent", "flow", "vocoder"}
        assert made[-1].shape == (5 * 256,)
    assert torch.equal(made[1], made[2])
    assert not torch.equal(made[0], made[1])


def test_greedy_needs_no_seed_and_sampling_follows_it(model, voices):
    def codes(seed, greedy):
        sampling = Sampling(greedy=greedy, max_frames=12, beams=1, top_k=0, top_p=1.0)
        return run_alone(model, model.prepare(request("Hello.", voices[0], seed=seed, sampling=sampling))[0])

    assert torch.equal(codes(1, True), codes(2, True))
    assert torch.equal(codes(1, False), codes(1, False))
    assert not torch.equal(codes(1, False), codes(2, False))


def test_the_length_guard_follows_the_text(model, voices):
    sampling = Sampling(max_frames=1000)
    short = model.prepare(request("我", voices[0], sampling=sampling))[0]
    assert short.ceiling < 200
    assert short.positions == short.inputs.prefix.shape[0] + 1 + short.ceiling


def test_presets_are_settings_the_model_reads(model):
    assert model.spec.presets is PRESETS
    assert PRESETS["cfg_a_safe"] == {
        "top_k": 0, "top_p": 1.0, "temperature": 0.8, "repetition_penalty": 1.05,
        "flow_steps": 25, "guidance": 0.7,
    }  # fmt: skip
    for preset in PRESETS.values():
        assert not preset.keys() - model.spec.sampling.keys()
        Sampling(**preset).over(model.spec.sampling)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"beams": 3}, "no option 'beams'"),
        ({"segment_pieces": 0}, "1 to "),
        ({"segment_pieces": 119}, "this model takes 1 to 118"),
        ({"segment_pieces": 12.5}, "a whole number"),
        ({"interval_silence_ms": -1}, "0 to 10,000"),
        ({"emotion_bias": "yes"}, "true or false"),
        ({"typical_mass": True}, "a number"),
        ({"typical_mass": 2}, "1e-06 to 1"),
    ],
)
def test_wrong_options_are_named(loaded, options, expected):
    def check():
        check_request(SpeechRequest("Hi.", options=options), loaded.spec)
        IndexOptions.of(options, longest_segment=118)

    with pytest.raises(RequestError, match=expected):
        check()


def test_options_are_documented_in_the_spec(model):
    assert model.spec.options is OPTIONS
    assert set(OPTIONS) | set(MULTILINGUAL_OPTIONS) == set(IndexOptions.__dataclass_fields__)


def test_requests_the_model_cannot_serve(model, voices):
    with pytest.raises(RequestError, match="needs the voice of a clip"):
        model.prepare(SpeechRequest("Hi."))
    with pytest.raises(UnsupportedError, match="own pace"):
        model.prepare(request("Hi.", voices[0], speed=1.5))
    with pytest.raises(VoiceError, match="Encode the reference again"):
        model.prepare(request("Hi.", replace(voices[0], fingerprint="other")))
    with pytest.raises(RequestError, match="empty"):
        model.parts.reference.load(clip(1, seconds=0), 16_000)
    assert model.prepare(request("  ", voices[0])) == []


def test_only_fifteen_seconds_of_a_clip_are_heard(model):
    long = model.parts.reference.load(clip(1, seconds=16, sample_rate=8_000), 16_000)
    assert len(long) == 15 * 16_000


def test_slots_are_utterances_whatever_rows_their_beams_take(model, voices):
    together = []
    step = model.step
    model.step = lambda utterances: (together.append(len(utterances)), step(utterances))[1]
    with Engine(model, slots=2) as engine:
        streams = [
            engine.submit(request("Hello world.", voices[0], seed=seed), streaming=False) for seed in range(3)
        ]
        for stream in streams:
            for _ in stream:
                pass
    assert max(together) == 2
