"""The codec's passes as one piece of work each give the samples of the decoder's own."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from sonant.families.qwen3_tts import load
from sonant.families.qwen3_tts.codec import CodecDecoder
from sonant.families.qwen3_tts.codec_steps import CodecSteps
from sonant.nn.replay import Replay
from tests.pretended_gpu import DEVICE, moved_there, pretended_gpu


@pytest.fixture(scope="module")
def tokenizer(kit):
    model = load(kit / "checkpoints" / "base_1p7b", device=torch.device("cpu"), dtype=torch.float32)
    model.speech_tokenizer.pass_in_one_piece()
    return model.speech_tokenizer


@pytest.fixture(scope="module")
def tokens(kit):
    once = load_file(kit / "expected" / "codec" / "decode_chunked.safetensors")["codes"][0].T  # [30, 16]
    return torch.cat((once, once.flip(0), once, once.flip(1)))  # longer than the window


def pushed(decoder, tokens, split=(1 << 20,)):
    pieces, at, turn = [], 0, 0
    with torch.inference_mode():
        while at < len(tokens):
            size = split[turn % len(split)]
            pieces.append(decoder.push(tokens[at : at + size]))
            at, turn = at + size, turn + 1
        return torch.cat([*pieces, decoder.finish()])


def test_the_samples_are_those_of_one_decode(tokenizer, tokens):
    assert len(tokens) > tokenizer.config.decoder.sliding_window
    whole = tokenizer.decode_tokens(tokens)
    made = pushed(tokenizer.decoder(), tokens)
    assert made.shape == whole.shape
    assert (made - whole).abs().max() < 2e-5


def test_any_split_gives_the_same_bits(tokenizer, tokens):
    whole = pushed(tokenizer.decoder(), tokens)
    for split in ([1], [5, 2], [29]):
        assert torch.equal(pushed(tokenizer.decoder(), tokens, split), whole)


def test_speech_after_a_reference(tokenizer, tokens):
    together = tokenizer.decode_tokens(tokens)
    for lead in (3, 90):
        after = pushed(tokenizer.decoder(tokens[:lead]), tokens[lead:])
        assert (after - together[lead * 1920 :]).abs().max() < 2e-5


def test_streams_in_turn_do_not_meet(tokenizer, tokens):
    alone = [pushed(tokenizer.decoder(), part) for part in (tokens[:21], tokens[40:61])]
    decoders = [tokenizer.decoder(), tokenizer.decoder()]
    pieces = [[], []]
    with torch.inference_mode():
        for at in range(0, 21, 3):
            for which, start in enumerate((0, 40)):
                pieces[which].append(decoders[which].push(tokens[start + at : start + at + 3]))
        for which in range(2):
            pieces[which].append(decoders[which].finish())
    for parts, expected in zip(pieces, alone, strict=True):
        assert torch.equal(torch.cat(parts), expected)


def test_recorded_passes_are_those_that_were_not(tokenizer, tokens, monkeypatch):
    expected = pushed(tokenizer.decoder(), tokens)
    monkeypatch.setattr(Replay, "_capture", lambda self, work: (work(), SimpleNamespace(replay=work))[1])
    steps = CodecSteps(tokenizer.codec.decoder, longest=4)
    steps.replay.records = True
    monkeypatch.setattr(tokenizer, "steps", steps)
    assert torch.equal(pushed(tokenizer.decoder(), tokens, [7]), expected)
    assert steps.replay.records, "a recording failed"
    assert len(steps.replay) >= 3


def pretended_pass(config, damage=lambda steps: None):
    with pretended_gpu():
        steps = CodecSteps(moved_there(CodecDecoder(config), torch.float32), longest=4)
        assert steps.replay.records
        damage(steps)
        steps._pass(4)
        return {tensor.device for tensor in (steps._waveform, *steps._state)}


def test_no_value_is_looked_at_and_nothing_lies_elsewhere(tokenizer):
    assert pretended_pass(tokenizer.config.decoder) == {DEVICE}


def test_the_pretended_gpu_notices_a_look_and_a_stray_tensor(tokenizer):
    def looks(steps):
        inner = steps._decoder.quantizer.forward
        steps._decoder.quantizer.forward = lambda tokens: inner(tokens) * tokens.sum().item()

    def strays(steps):
        steps._state[0] = torch.zeros(steps._state[0].shape)

    with pytest.raises(DataDependentOutputException):
        pretended_pass(tokenizer.config.decoder, looks)
    with pytest.raises(FakeTensorDeviceMismatchError):
        pretended_pass(tokenizer.config.decoder, strays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_passes_give_the_samples_of_the_cpu(kit, tokenizer, tokens):
    model = load(kit / "checkpoints" / "base_1p7b", device=torch.device("cuda"), dtype=torch.float32)
    made = pushed(model.speech_tokenizer.decoder(), tokens).cpu()
    assert (made - pushed(tokenizer.decoder(), tokens)).abs().max() < 1e-3
    assert model.speech_tokenizer.steps.replay.records, "recording failed"
