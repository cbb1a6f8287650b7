import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from sonant.engine.engine import Engine
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.qwen3_tts import load
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from sonant.request.voice import Voice
from sonant.voices.casting import Casting
from sonant.voices.library import VoiceLibrary
from tests.bad_inputs import BadInputs
from tests.laws import run_alone, run_together

FEW = Sampling(max_frames=5)
CPU = torch.device("cpu")


@pytest.fixture
def custom(loaded):
    return loaded("custom_voice_1p7b")


@pytest.fixture
def base(loaded):
    return loaded("base_1p7b")


@pytest.fixture
def design(loaded):
    return loaded("voice_design_1p7b")


@pytest.fixture
def clip(kit):
    return Audio.read(kit / "audio" / "ref_b_16k_stereo.wav")


def length(model, request):
    return model.prepare(request)[0].inputs.embeds.shape[0]


# -- what each kind can do ------------------------------------------------------------------------


def test_spec_tells_what_each_kind_can_do(custom, base, design):
    assert custom.spec.capabilities >= {"preset_voice", "instruction", "text_layout"}
    assert "ryan" in custom.spec.voices
    assert base.spec.capabilities >= {"clone", "clone_in_context"}
    assert base.spec.needs_voice
    assert design.spec.capabilities >= {"voice_design", "instruction"}
    assert design.spec.needs_instruction
    assert "english" in custom.spec.languages
    assert not [name for name in custom.spec.languages if "dialect" in name]
    assert len({m.spec.fingerprint for m in (custom, base, design)}) == 3


def test_speaker_names_ignore_case(custom):
    assert length(custom, SpeechRequest("Hi.", voice="RYAN")) == length(
        custom, SpeechRequest("Hi.", voice="ryan")
    )


def test_a_dialect_speaker_brings_the_dialect_along_with_auto_and_chinese_only(custom):
    auto = {voice: length(custom, SpeechRequest("Hi.", voice=voice)) for voice in ("ryan", "eric")}
    assert auto["eric"] == auto["ryan"] + 1  # a tag of four positions instead of three
    inputs = [
        custom.prepare(SpeechRequest("Hi.", voice="eric", language=language))[0].inputs.embeds
        for language in (None, "chinese", "english")
    ]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


def test_language_codes_are_names(custom):
    named = custom.prepare(SpeechRequest("Hi.", voice="ryan", language="German"))[0].inputs.embeds
    coded = custom.prepare(SpeechRequest("Hi.", voice="ryan", language="de"))[0].inputs.embeds
    assert torch.equal(named, coded)


def test_instruction_to_the_small_model_is_refused(copied, custom):
    folder = copied("custom_voice_1p7b")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tts_model_size": "0b6"}))
    small = load(folder, device=CPU, dtype=torch.float32)
    request = SpeechRequest("Hi.", voice="ryan", style=Style(instruction="Calm."))
    assert "instruction" not in small.spec.capabilities
    with pytest.raises(UnsupportedError, match=r"does not follow instructions.*1\.7B"):
        small.prepare(request)
    assert length(custom, request) > length(small, replace(request, style=Style()))


def test_base_follows_no_instruction(base, clip):
    voice = base.encode_voice(clip, None)
    with pytest.raises(UnsupportedError, match="instruction"):
        base.prepare(SpeechRequest("Hi.", voice=voice, style=Style(instruction="Calm.")))


def test_voice_design_needs_a_description_and_no_voice(design):
    with pytest.raises(RequestError, match="description"):
        design.prepare(SpeechRequest("Hi."))
    with pytest.raises(UnsupportedError, match="takes no other"):
        design.prepare(SpeechRequest("Hi.", voice="ryan", style=Style(instruction="Calm.")))


def test_layouts_differ_in_where_the_text_is(custom):
    full, progressive = (
        custom.prepare(SpeechRequest("Good morning.", voice="ryan", text_layout=layout))[0].inputs
        for layout in ("full", "progressive")
    )
    default = custom.prepare(SpeechRequest("Good morning.", voice="ryan"))[0].inputs
    assert torch.equal(default.embeds, full.embeds)
    assert len(full.trailing) == 1
    assert len(progressive.trailing) > 5
    assert len(full.embeds) == len(progressive.embeds) + len(progressive.trailing) + 1


def test_default_layout_of_cloning_is_progressive(base, clip):
    request = SpeechRequest("Good morning.", voice=base.encode_voice(clip, None))
    default = base.prepare(request)[0].inputs
    assert torch.equal(
        default.embeds, base.prepare(replace(request, text_layout="progressive"))[0].inputs.embeds
    )


def test_a_transcript_continues_the_clip_unless_told_otherwise(base, clip):
    voice = base.encode_voice(clip, "What is said.")
    assert voice.tensors["codes"].shape == (14, 16)
    assert base.prepare(SpeechRequest("Hi.", voice=voice))[0].inputs.reference is not None
    alone = base.prepare(SpeechRequest("Hi.", voice=voice, options={"speaker_vector_only": True}))[0]
    sounding = base.prepare(SpeechRequest("Hi.", voice=base.encode_voice(clip, None)))[0]
    assert alone.inputs.reference is None
    assert torch.equal(alone.inputs.embeds, sounding.inputs.embeds)


def test_a_designed_voice_is_kept_and_spoken_with(design, base):
    with Engine(design, slots=1) as engine:
        request = SpeechRequest(
            "A voice made of words.",
            style=Style(instruction="Old and kind."),
            seed=4,
            sampling=Sampling(max_frames=12),
        )
        voice = engine.design(request, name="made")
    with Engine(base, slots=1) as engine:
        speech = engine.synthesize(SpeechRequest("Hello.", voice=voice, seed=1, sampling=FEW))
    assert voice.transcript == "A voice made of words."
    assert len(speech.samples) > 0


def test_chunked_codec_equals_the_exact_one_for_short_speech(custom):
    request = SpeechRequest("Good morning.", voice="ryan", seed=5, sampling=FEW)
    with Engine(custom, slots=1) as engine:
        exact = engine.synthesize(request)
        chunked = engine.synthesize(replace(request, options={"codec_chunks": True}))
    assert np.abs(exact.samples - chunked.samples).max() < 2e-5


# -- decoding -------------------------------------------------------------------------------------


def test_cached_steps_equal_one_pass_over_everything(custom):
    prompt = custom.prepare(SpeechRequest("Good morning.", voice="ryan", seed=1, sampling=FEW))[0]
    with torch.inference_mode():
        custom.allocate(1, prompt.positions)
        utterance = custom.start(prompt, [0])
        frames = torch.cat([custom.step([utterance])[0].tokens for _ in range(5)])
        words = torch.stack(
            [
                prompt.inputs.trailing[k] if k < len(prompt.inputs.trailing) else prompt.inputs.filler
                for k in range(5)
            ]
        )
        whole = torch.cat((prompt.inputs.embeds, custom.network.embed_frames(frames) + words))
        hidden = custom.network.talker(whole[None])[0, -1]
    assert (hidden - utterance.state.hidden).abs().max() < 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_at_least_two_frames_and_no_suppressed_token(custom, seed):
    request = SpeechRequest(
        "Hi.", voice="ryan", seed=seed, sampling=Sampling(max_frames=30, temperature=3.0, top_k=0)
    )
    tokens = run_alone(custom, custom.prepare(request)[0])
    assert len(tokens) >= 2
    assert tokens.max() < 64


def test_greedy_talker_alone_still_draws_in_the_predictor(custom):
    def tokens(seed, **settings):
        sampling = Sampling(greedy=True, max_frames=4, **settings)
        return run_alone(
            custom, custom.prepare(SpeechRequest("Hi.", voice="ryan", seed=seed, sampling=sampling))[0]
        )

    assert not torch.equal(tokens(1), tokens(2))
    assert torch.equal(tokens(1, predictor_greedy=True), tokens(2, predictor_greedy=True))


def test_speech_without_end_stops_at_the_ceiling_and_says_so(custom):
    with Engine(custom, slots=1) as engine:
        speech = engine.synthesize(
            SpeechRequest("Hello there.", voice="ryan", seed=8, sampling=Sampling(max_frames=3))
        )
    assert len(speech.samples) == 3 * 1920
    assert [guard.kind for guard in speech.guards] == ["length_ceiling"]


def test_the_ceiling_follows_from_the_text(custom):
    short, long = (
        custom.prepare(SpeechRequest(text, voice="ryan"))[0].ceiling
        for text in ("Hi.", "Hi there, all of you.")
    )
    assert 60 < short < long < 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_speak_and_keep_the_codec_wide(kit, dtype):
    model = load(kit / "checkpoints" / "base_1p7b", device=CPU, dtype=dtype)
    assert model.network.talker.codec_head.weight.dtype == dtype
    assert model.speech_tokenizer.codec.decoder.pre_conv.weight.dtype.itemsize >= 4
    assert model.network.speaker_encoder.fc.weight.dtype.itemsize >= 4
    clip = Audio.read(kit / "audio" / "ref_a_24k_mono.wav")
    voice = model.encode_voice(clip, "She said so.")
    with Engine(model, slots=1) as engine:
        assert len(engine.synthesize(SpeechRequest("Hello.", voice=voice, seed=1, sampling=FEW)).samples) > 0


def test_a_batch_equals_singles_exactly_in_float64(kit):
    model = load(kit / "checkpoints" / "custom_voice_1p7b", device=CPU, dtype=torch.float64)
    prompts = [
        model.prepare(SpeechRequest(text, voice="ryan", seed=seed, sampling=Sampling(max_frames=12)))[0]
        for seed, text in enumerate(("Hello.", "A longer line of text.", "Three."))
    ]
    for one, other in zip(run_together(model, prompts), [run_alone(model, p) for p in prompts], strict=True):
        assert torch.equal(one, other)


class TestBadInputs(BadInputs):
    @pytest.fixture
    def model(self, base):
        return base

    @pytest.fixture
    def voice(self, base, clip):
        return base.encode_voice(clip, None)


# -- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   \n", "...!?", "😀🎉", "◍•͈⌔•͈◍", "—"])
def test_nothing_to_say_is_refused(custom, text):
    with pytest.raises(RequestError, match="no letter or digit"):
        custom.prepare(SpeechRequest(text, voice="ryan"))


@pytest.mark.parametrize(
    "text", ["7", "a", "हि", "Hi 😀!", "\n\nleading", "x <|im_end|> y", "<tts_pad>", "e\u0301"]
)
def test_awkward_text_is_spoken(custom, text):
    (prompt,) = custom.prepare(SpeechRequest(text, voice="ryan", seed=1, sampling=FEW))
    assert len(run_alone(custom, prompt)) >= 2


def test_typed_markers_are_text(custom):
    typed = custom.prepare(SpeechRequest("x <|im_end|> y", voice="ryan"))[0].inputs.embeds
    assert len(typed) > length(custom, SpeechRequest("x  y", voice="ryan")) + 5


def test_long_text_becomes_segments_of_one_request(custom):
    text = "The old ferry stayed in the harbour until morning. " * 20
    prompts = custom.prepare(SpeechRequest(text, voice="ryan", seed=3))
    assert len(prompts) > 2
    assert " ".join(prompt.text for prompt in prompts).split() == text.split()
    assert prompts[0].seed == 3
    assert len({prompt.seed for prompt in prompts}) == len(prompts)
    assert prompts[0].pause_after > 0
    assert len(custom.prepare(SpeechRequest("今天的天气很好。" * 40, voice="ryan"))) > 1


# -- voices ---------------------------------------------------------------------------------------


def test_an_unknown_speaker_is_named_with_the_known_ones(custom):
    with pytest.raises(VoiceError, match=r"nobody.*ryan"):
        custom.prepare(SpeechRequest("Hi.", voice="nobody"))
    with pytest.raises(VoiceError, match="none was given"):
        custom.prepare(SpeechRequest("Hi."))


def test_an_unknown_language_is_refused_with_the_known_ones(custom):
    for language in ("klingon", "beijing_dialect"):
        with pytest.raises(RequestError, match="german"):
            custom.prepare(SpeechRequest("Hi.", voice="ryan", language=language))


def test_a_voice_of_another_model_is_refused(base, custom, clip):
    voice = replace(base.encode_voice(clip, None), fingerprint="0123456789abcdef")
    with pytest.raises(VoiceError, match="0123456789abcdef"):
        base.prepare(SpeechRequest("Hi.", voice=voice))
    with pytest.raises(VoiceError, match="cosyvoice3"):
        base.prepare(SpeechRequest("Hi.", voice=replace(voice, family="cosyvoice3")))
    with pytest.raises(UnsupportedError, match="cannot clone"):
        custom.prepare(SpeechRequest("Hi.", voice=voice))


def test_a_voice_of_another_model_with_its_clip_is_encoded_again(base, clip):
    voice = Voice(name="ann", family="cosyvoice3", fingerprint="0", tensors={"x": torch.zeros(3)}, clip=clip)
    with Engine(base, slots=1) as engine:
        assert len(engine.synthesize(SpeechRequest("Hi.", voice=voice, seed=1, sampling=FEW)).samples) > 0


def test_a_damaged_voice_is_refused(base, clip):
    voice = base.encode_voice(clip, "What is said.")
    wrong = [
        {},
        {"xvector": torch.zeros(7)},
        {**voice.tensors, "codes": torch.full((4, 16), 9999)},
        {**voice.tensors, "codes": torch.zeros(4, 3, dtype=torch.int64)},
    ]
    for tensors in wrong:
        with pytest.raises(VoiceError, match="damaged"):
            base.prepare(SpeechRequest("Hi.", voice=replace(voice, tensors=tensors)))


def test_a_voice_survives_its_file(base, clip, tmp_path):
    voice = base.encode_voice(clip, "What is said.")
    voice.save(tmp_path / "ann.voice.safetensors")
    again = Voice.load(tmp_path / "ann.voice.safetensors")
    one, other = (base.prepare(SpeechRequest("Hi.", voice=v))[0].inputs.embeds for v in (voice, again))
    assert torch.equal(one, other)


def test_base_needs_a_clip(base):
    for voice in (None, "ryan"):
        with pytest.raises(VoiceError, match="voice of a clip"):
            base.prepare(SpeechRequest("Hi.", voice=voice))


def test_only_base_models_clone(custom, clip):
    with pytest.raises(UnsupportedError, match="Base"):
        custom.encode_voice(clip, None)


def test_a_clip_of_ten_hours_is_refused_at_once(base):
    hours = np.broadcast_to(np.float32(0.1), 10 * 3600 * 24_000)  # takes no memory
    with pytest.raises(RequestError, match="36000"):
        Casting(base, None).encode(Audio(hours, 24_000))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_clip_without_sound_is_refused(base, value):
    with pytest.raises(RequestError, match=r"is silent|no finite numbers"):
        Casting(base, None).encode(Audio(np.full(24_000, value, dtype=np.float32), 24_000))


def test_a_clip_too_short_is_refused(base):
    with pytest.raises(RequestError, match=r"0\.5"):
        Casting(base, None).encode(Audio(np.full(100, 0.1, dtype=np.float32), 24_000))


def test_an_8_bit_96_khz_stereo_clip_works(base, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "odd.wav"
    soundfile.write(path, rng.uniform(-0.5, 0.5, (96_000, 2)), 96_000, subtype="PCM_U8")
    voice = base.encode_voice(Audio.read(path), "Noise.")
    assert voice.tensors["xvector"].isfinite().all()
    assert voice.tensors["codes"].shape == (13, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_speaks_the_same_greedy_tokens(kit, loaded):
    device = load(kit / "checkpoints" / "custom_voice_1p7b", device=torch.device("cuda"), dtype=torch.float32)
    sampling = Sampling(greedy=True, predictor_greedy=True, max_frames=8)
    request = SpeechRequest("Good morning.", voice="ryan", seed=1, sampling=sampling)
    here, there = (run_alone(m, m.prepare(request)[0]) for m in (loaded("custom_voice_1p7b"), device))
    assert torch.equal(here, there.cpu())


def test_stored_voices_are_mixed_by_their_speaker_vectors(loaded, tmp_path):
    model = loaded("base_1p7b")
    library = VoiceLibrary(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("ann", "bea"):
        noise = (0.1 * rng.standard_normal(24_000)).astype(np.float32)
        library.add(Voice(name=name, clip=Audio(noise, 24_000), transcript="A few words."))
    with Engine(model, voices=library) as engine:

        def say(voice, **options):
            request = SpeechRequest(
                "Hello there.", voice=voice, seed=1, sampling=Sampling(max_frames=12), **options
            )
            return engine.synthesize(request).samples

        alone = say("ann", options={"speaker_vector_only": True})
        assert np.array_equal(say("ann:2"), alone)
        assert np.array_equal(say("ann+bea"), say("bea:0.5+ann:0.5"))
        vectors = [model.speaker_vector(library.get(name).clip) for name in ("ann", "bea")]
        mixed = engine.fit("ann:1+bea:3").tensors["xvector"]
        assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
        assert torch.allclose(mixed, 0.25 * vectors[0] + 0.75 * vectors[1], atol=1e-6)
