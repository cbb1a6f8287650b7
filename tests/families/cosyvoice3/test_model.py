"""The family contract: its laws, the modes, voices, stored speakers and refused requests."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families import cosyvoice3
from sonant.request.audio import Audio
from sonant.request.checks import check_request
from sonant.request.speech import Sampling, SpeechRequest, Style
from sonant.voices.casting import Casting
from tests.bad_inputs import BadInputs
from tests.laws import FamilyLaws, run_alone

from .conftest import load


@pytest.fixture(scope="module")
def double(checkpoint):
    return load(checkpoint, torch.float64)


class TestLaws(FamilyLaws):
    """In float64, where a batch gives exactly what single runs give."""

    @pytest.fixture
    def model(self, double):
        return double

    @pytest.fixture
    def requests(self, double, clip):
        told = double.encode_voice(clip, "A small boat crosses the quiet lake.")
        untold = double.encode_voice(clip, None)
        sampling = Sampling(flow_steps=1, max_frames=70)
        return [
            SpeechRequest("The lake is quiet today.", voice=told, seed=3, sampling=sampling),
            SpeechRequest("Good morning.", voice=untold, seed=4, sampling=sampling),
            SpeechRequest(
                "Hello there, my friend.",
                voice=told,
                seed=5,
                sampling=sampling,
                style=Style(instruction="Be cheerful."),
            ),
        ]


class TestBadInputs(BadInputs):
    @pytest.fixture
    def model(self, shared_model):
        return shared_model

    @pytest.fixture
    def voice(self, untold):
        return untold


SHORT = Sampling(flow_steps=1, max_frames=30)


def fresh_rows(model, x):
    model.allocate(1, x.shape[1])
    return model._cache.rows([0], x.shape[1])


def parity(text, **fields):
    options = {"noise": "reference", "reference_stream": "true"}
    return SpeechRequest(text, normalize=False, sampling=Sampling(greedy=True), options=options, **fields)


def spoken(model, request):
    (prompt,) = model.prepare(request)
    tokens = run_alone(model, prompt)
    decoder = model.decoder(prompt, streaming=False)
    decoder.push(tokens)
    return tokens[:, 0].tolist(), decoder.finish()


def test_zero_shot_gives_the_recorded_tokens_and_waveform(shared_model, told, rows, expected):
    tokens, waveform = spoken(shared_model, parity(rows["texts"]["zero"], voice=told))
    assert tokens == expected["e2e.zero_shot.speech_tokens"].tolist()
    assert (waveform - expected["e2e.zero_shot.wav"][0]).abs().max() <= 2e-3


def test_cross_lingual_and_instruct_give_the_recorded_tokens(shared_model, told, untold, rows, expected):
    texts = rows["texts"]
    (prompt,) = shared_model.prepare(parity(texts["cross"], voice=untold))
    tokens = run_alone(shared_model, prompt)[:, 0].tolist()
    assert tokens == expected["e2e.cross_lingual.speech_tokens"].tolist()
    style = Style(instruction=texts["instruct"])
    (prompt,) = shared_model.prepare(parity(texts["instruct_text"], voice=told, style=style))
    tokens = run_alone(shared_model, prompt)[:, 0].tolist()
    assert tokens == expected["e2e.instruct2.speech_tokens"].tolist()


def test_users_need_not_type_what_the_model_wants(shared_model, clip, told, untold, rows):
    """Plain words give the very prompt that the original's caller has to spell out."""
    texts = rows["texts"]
    plain = shared_model.encode_voice(clip, texts["prompt"].partition("<|endofprompt|>")[2])
    pairs = [
        (parity("Hi.", voice=plain), parity("Hi.", voice=told)),
        (parity("[breath]你好", voice=untold),
         parity("You are a helpful assistant.<|endofprompt|>[breath]你好", voice=untold)),
        (parity("Hi.", voice=told, style=Style(instruction="请用广东话表达。")),
         parity("Hi.", voice=told, style=Style(instruction=texts["instruct"]))),
    ]  # fmt: skip
    for first, second in pairs:
        ours, typed = (shared_model.prepare(request)[0].inputs for request in (first, second))
        assert torch.equal(ours.prompt_text, typed.prompt_text)
        assert torch.equal(ours.text, typed.text)
        assert torch.equal(ours.prompt_speech, typed.prompt_speech)


def test_voice_conversion_speaks_the_sources_tokens_in_one_step(shared_model, untold, source, expected):
    request = parity("", voice=untold, source_audio=source)
    tokens, waveform = spoken(shared_model, request)
    assert tokens == expected["e2e.vc.speech_tokens"].tolist()
    assert (waveform - expected["e2e.vc.wav"][0]).abs().max() <= 2e-3
    with pytest.raises(UnsupportedError, match="no instruction"):
        shared_model.prepare(replace(request, style=Style(instruction="glad")))


def test_speech_flows_through_the_engine_in_every_mode(shared_model, told, untold, source):
    sampling = Sampling(flow_steps=1, max_frames=40)
    requests = [
        SpeechRequest("Good morning.", voice=told, seed=1, sampling=sampling),
        SpeechRequest("Guten Morgen, 3 Boote.", voice=untold, seed=1, language="german", sampling=sampling),
        SpeechRequest("Hello.", voice=told, seed=1, sampling=sampling, style=Style(instruction="Slowly.")),
        SpeechRequest("", voice=untold, source_audio=source, seed=1, sampling=sampling),
        SpeechRequest("Good morning.", voice=told, seed=1, speed=2.0, sampling=sampling),
    ]
    with Engine(shared_model, slots=2) as engine:
        answers = [engine.synthesize(request) for request in requests]
        streamed = np.concatenate([chunk.samples for chunk in engine.stream(requests[0])])
    for answer in answers:
        assert len(answer.samples)
        assert np.isfinite(answer.samples).all()
        assert {"flow", "vocoder"} <= set(answer.timings)
    assert len(streamed) == len(answers[0].samples)
    assert len(answers[4].samples) == len(answers[0].samples) // 480 // 2 * 480


def test_reaching_the_ceiling_is_told(shared_model, told):
    request = SpeechRequest(
        "Good morning.", voice=told, seed=1, sampling=Sampling(max_frames=7, flow_steps=1)
    )
    with Engine(shared_model) as engine:
        answer = engine.synthesize(request)
    assert [guard.kind for guard in answer.guards] == ["length_ceiling"]


def test_ceiling_and_minimum_follow_the_text_alone(shared_model, told, untold):
    zero = shared_model.prepare(parity("Good morning.", voice=told))[0]
    assert zero.ceiling == 20 * len(zero.inputs.text) == 20 * 3
    cross = shared_model.prepare(parity("Good morning.", voice=untold))[0]
    assert cross.ceiling == 20 * (3 + 7)  # the system sentence counts here, as in the original


def test_long_text_becomes_segments_with_their_own_seeds(shared_model, told):
    text = "The first sentence is here to make the paragraph long enough for a split. " * 6
    prompts = shared_model.prepare(SpeechRequest(text, voice=told, seed=5))
    assert len(prompts) > 1
    assert len({prompt.seed for prompt in prompts}) == len(prompts)
    assert prompts[0].seed == 5
    assert len(shared_model.prepare(SpeechRequest(text, voice=told, seed=5, normalize=False))) == 1


def test_stored_speakers_become_preset_voices(folder, shared_model, told, rows):
    text = torch.tensor([shared_model.tokenizer.encode(rows["texts"]["prompt"])])
    record = {
        "prompt_text": text,
        "prompt_text_len": torch.tensor([text.shape[1]]),
        "llm_prompt_speech_token": told.tensors["tokens"][None],
        "flow_prompt_speech_token": told.tensors["tokens"][None],
        "prompt_speech_feat": told.tensors["mel"][None],
        "llm_embedding": told.tensors["speaker"][None],
        "flow_embedding": told.tensors["speaker"][None],
    }
    only_speaker = {"embedding": told.tensors["speaker"][None]}
    torch.save({"ann": record, "bob": only_speaker}, folder / "spk2info.pt")
    model = load(folder)
    assert model.spec.voices == ("ann", "bob")
    assert model.spec.default_voice == "ann"
    assert not model.spec.needs_voice
    stored = model.prepare(parity("Good morning.", voice="ann"))[0].inputs
    cloned = shared_model.prepare(parity("Good morning.", voice=told))[0].inputs
    for name in ("prompt_text", "text", "prompt_speech"):
        assert torch.equal(getattr(stored, name), getattr(cloned, name))
    assert torch.equal(stored.reference.mel, cloned.reference.mel)
    bob = model.prepare(parity("Good morning.", voice="bob"))[0].inputs
    assert len(bob.reference.tokens) == len(bob.prompt_speech) == 0
    _, waveform = spoken(model, parity("Good morning.", voice="bob"))
    assert len(waveform)
    instructed = model.prepare(parity("Hi.", voice="ann", style=Style(instruction="Be glad.")))[0].inputs
    assert model.tokenizer.decode(instructed.prompt_text.tolist()).startswith(
        "You are a helpful assistant. Be glad."
    )


@pytest.mark.parametrize(
    "record", [[1], {"flow_embedding": torch.zeros(3)}, {"prompt_text": torch.zeros(1, 2)}]
)
def test_a_stored_speaker_of_another_shape_is_refused(folder, record):
    from sonant.errors import CheckpointError

    torch.save({"ann": record}, folder / "spk2info.pt")
    with pytest.raises(CheckpointError, match="ann is no stored speaker"):
        load(folder)


def test_clips_that_do_not_fit_are_refused(shared_model):
    noise = np.random.default_rng(0).standard_normal(8000 * 40).astype(np.float32) * 0.1
    with pytest.raises(RequestError, match="at least 16000"):
        Casting(shared_model, None).encode(Audio(noise[:8000], 8000))
    with pytest.raises(RequestError, match="at most 30"):
        Casting(shared_model, None).encode(Audio(np.tile(noise, 2), 16_000))
    with pytest.raises(RequestError, match=r"at least 0\.3"):
        Casting(shared_model, None).encode(Audio(noise[:300], 16_000))


def test_a_source_that_does_not_fit_is_refused(shared_model, untold):
    source = Audio(np.zeros(8000, dtype=np.float32), 8000)
    with pytest.raises(RequestError, match="at least 16000"):
        check_request(SpeechRequest("", voice=untold, source_audio=source), shared_model.spec)


def test_voices_of_other_models_are_refused(shared_model, told):
    for wrong in (
        replace(told, family="qwen3_tts"),
        replace(told, fingerprint="0" * 16),
        replace(told, tensors={"speaker": told.tensors["speaker"]}),
        replace(told, tensors={**told.tensors, "tokens": told.tensors["tokens"] + 729}),
        "nobody",
    ):
        with pytest.raises(VoiceError):
            shared_model.prepare(parity("Hi.", voice=wrong))
    with pytest.raises(RequestError, match="only with a voice"):
        shared_model.prepare(parity("Hi."))


@pytest.mark.parametrize(
    ("options", "word"),
    [({"noise": "pink"}, "noise"), ({"stream_hop": "many"}, "stream_hop"), ({"stream_hop": 30}, "hops"),
     ({"reference_stream": "perhaps"}, "reference_stream")],
)  # fmt: skip
def test_options_are_checked(shared_model, told, options, word):
    with pytest.raises(RequestError, match=word):
        Engine(shared_model).segments(SpeechRequest("Hi.", voice=told, options=options))


def test_a_voice_survives_its_file(shared_model, told, tmp_path):
    from sonant.request.voice import Voice

    told.save(tmp_path / "ann.voice.safetensors")
    again = Voice.load(tmp_path / "ann.voice.safetensors")
    first, second = (shared_model.prepare(parity("Hi.", voice=v))[0].inputs for v in (told, again))
    assert torch.equal(first.prompt_text, second.prompt_text)
    assert torch.equal(first.reference.mel, second.reference.mel)


# Measured on this network of width 64: 0.012 in int8.
@pytest.mark.parametrize(("precision", "most"), [("int8", 0.02), ("int4", 0.6), ("lossless", 1e-5)])
def test_narrow_weights_of_the_language_model_stay_close(
    shared_model, checkpoint, clip, monkeypatch, tmp_path, precision, most
):
    monkeypatch.setenv("SONANT_CACHE", str(tmp_path))
    narrow = cosyvoice3.load(checkpoint, device=torch.device("cpu"), dtype=torch.float32, precision=precision)
    with torch.inference_mode():
        x = shared_model.language.prompt(torch.arange(20), torch.arange(12))
        hidden, other = (model.language(x, fresh_rows(model, x)) for model in (shared_model, narrow))
        expected, found = shared_model.language.logits(hidden), narrow.language.logits(other)
    assert (found - expected).norm() / expected.norm() <= most
    with Engine(narrow) as engine:
        request = SpeechRequest("Good morning.", voice=engine.clone(clip), seed=4, sampling=SHORT)
        assert engine.synthesize(request).seconds > 0
