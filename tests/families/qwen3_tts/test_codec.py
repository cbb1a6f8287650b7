import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sonant.errors import RequestError, UnsupportedError
from sonant.families.qwen3_tts import codec as codec_module
from sonant.families.qwen3_tts import codec_encoder, detect, load
from sonant.families.qwen3_tts.speech_tokenizer import reference_samples
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest


def run(decoder, tokens):
    """All samples of one decoder."""
    return torch.cat((decoder.push(tokens), decoder.finish()))


@pytest.fixture
def tokenizer(loaded):
    return loaded("base_1p7b").speech_tokenizer


@pytest.fixture
def tokens(kit):
    return load_file(kit / "expected" / "codec" / "decode_chunked.safetensors")["codes"][0].T  # [30, 16]


@pytest.mark.parametrize("split", [[1], [4], [2, 3, 1], [13], [29]])
def test_any_split_equals_the_whole_to_the_bit(tokenizer, tokens, split):
    whole = run(tokenizer.decoder(), tokens)
    decoder, pieces, at, turn = tokenizer.decoder(), [], 0, 0
    while at < len(tokens):
        size = split[turn % len(split)]
        pieces.append(decoder.push(tokens[at : at + size]))
        at, turn = at + size, turn + 1
    pieces.append(decoder.finish())
    assert torch.equal(torch.cat(pieces), whole)
    assert len(whole) == len(tokens) * 1920


def test_frame_by_frame_equals_one_pass(tokenizer, tokens):
    whole, _ = tokenizer.codec.decoder(tokens[None])
    frames = run(tokenizer.decoder(), tokens)
    assert (frames - whole[0]).abs().max() < 2e-5


def test_blocks_equal_one_pass(tokenizer, tokens, monkeypatch):
    whole = tokenizer.decode_tokens(tokens)
    monkeypatch.setattr(codec_module, "BLOCK", 7)
    assert (tokenizer.decode_tokens(tokens) - whole).abs().max() < 2e-5


def test_speech_after_a_reference_is_the_end_of_both_together(tokenizer, tokens):
    together = tokenizer.decode_tokens(tokens)
    for _ in range(2):  # the second time from the kept state
        after = run(tokenizer.decoder(tokens[:11]), tokens[11:])
        assert (after - together[11 * 1920 :]).abs().max() < 2e-5


def test_kept_states_are_few_and_unchanged(tokenizer, tokens):
    first = run(tokenizer.decoder(tokens[:3]), tokens[3:5])
    for count in range(4, 12):
        tokenizer.decoder(tokens[:count])
    assert len(tokenizer._references) <= 4
    assert torch.equal(run(tokenizer.decoder(tokens[:3]), tokens[3:5]), first)


def test_chunked_decoding_gives_everything_at_the_end(tokenizer, tokens):
    decoder = tokenizer.decoder(in_chunks=True)
    assert len(decoder.push(tokens[:7])) == len(decoder.push(tokens[7:])) == 0
    assert torch.equal(decoder.finish(), tokenizer.codec.decoder.decode_in_chunks(tokens))
    assert len(tokenizer.decoder(in_chunks=True).finish()) == 0


def test_chunked_reference_is_cut_by_the_rounded_quotient():
    cut = {reference_samples(a, a + b, (a + b) * 1920) - a * 1920 for a in range(1, 60) for b in range(1, 60)}
    assert cut == {0, -1}


@pytest.mark.parametrize("seconds", [1, 3])
def test_encoding_in_pieces_equals_encoding_at_once(tokenizer, monkeypatch, seconds):
    rng = np.random.default_rng(0)
    audio = Audio(rng.normal(0, 0.1, 100_001).astype(np.float32), 24_000)
    whole = tokenizer.encode_audio(audio)
    monkeypatch.setattr(codec_encoder, "PIECE_SECONDS", seconds)
    assert torch.equal(tokenizer.encode_audio(audio), whole)
    assert whole.shape == (53, 16)  # ceil(100001 / 1920)


def test_a_round_trip_keeps_the_length(tokenizer, kit):
    audio = Audio.read(kit / "audio" / "ref_b_16k_stereo.wav")
    tokens = tokenizer.encode_audio(audio)
    samples = tokenizer.decode_tokens(tokens)
    assert len(samples) == len(tokens) * 1920
    assert abs(len(samples) / 24_000 - audio.seconds) <= 0.08
    assert samples.abs().max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 15, dtype=torch.int64),
        torch.full((3, 16), 64),
        torch.full((2, 16), -1),
        torch.zeros(3, 16),
    ],
)
def test_impossible_tokens_are_refused(tokenizer, wrong):
    with pytest.raises(RequestError, match="expected"):
        tokenizer.decode_tokens(wrong)


def test_no_frames_are_no_samples(tokenizer):
    assert len(tokenizer.decode_tokens(torch.zeros(0, 16, dtype=torch.int64))) == 0
    with pytest.raises(RequestError, match="empty"):
        tokenizer.encode_audio(Audio(np.zeros(0, dtype=np.float32), 24_000))


def test_a_codec_folder_loads_alone(kit, tokenizer, tokens):
    folder = kit / "checkpoints" / "base_1p7b" / "speech_tokenizer"
    assert detect(folder)
    model = load(folder, device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(model.decode_tokens(tokens), tokenizer.decode_tokens(tokens))
    assert model.spec.capabilities == frozenset()
    with pytest.raises(UnsupportedError, match="cannot speak"):
        model.prepare(SpeechRequest("Hello."))
