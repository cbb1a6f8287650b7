"""A checkpoint that declares Sonant's own front end speaks from paced phonemes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from sonant.engine.engine import Engine
from sonant.errors import ConfigError, UnsupportedError
from sonant.families.qwen3_tts import load
from sonant.families.qwen3_tts.prompt import text_ids
from sonant.request.speech import SpeechRequest
from sonant.text.paced_phonemes import PaceModel

CPU = torch.device("cpu")


@pytest.fixture
def paced(copied):
    """A random checkpoint with a front end of about 80 ms a sound."""
    folder = copied("custom_voice_1p7b")
    config = json.loads((folder / "config.json").read_text())
    config["sonant_front_end"] = "paced-phonemes"
    config["talker_config"]["spk_id"] = {"sona": 1077}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = PaceModel(width=8)
    model.out.bias.data.fill_(4.4)
    save_file(model.state_dict(), folder / "front_end.safetensors")
    numbers = {"slot_ms": 40.0, "lead_frames": 2, "edge_ms": 200.0}
    (folder / "front_end.json").write_text(json.dumps(numbers))
    return folder


def test_the_talker_reads_what_the_front_end_writes_one_token_a_step(paced):
    model = load(paced, device=CPU, dtype=torch.float32)
    text = "Hello there."
    (prompt,) = model.prepare(SpeechRequest(text, voice="sona"))
    words = text_ids(model.tokenizer, model.preparing.front_end(text))[3:-5]
    # Progressive: the first token in the prompt, the others and the end beside the frames.
    assert len(prompt.inputs.trailing) == len(words)
    assert torch.equal(prompt.inputs.trailing[:-1], model.network.talker.text(torch.tensor(words[1:])))


def test_pace_changes_the_number_of_frames(paced):
    model = load(paced, device=CPU, dtype=torch.float32)
    (normal,) = model.prepare(SpeechRequest("A calm evening.", voice="sona"))
    (slow,) = model.prepare(SpeechRequest("A calm evening.", voice="sona", speed=0.5))
    assert len(slow.inputs.trailing) > 1.5 * len(normal.inputs.trailing)


def test_its_only_speaker_is_the_default_and_pace_a_capability(paced):
    spec = load(paced, device=CPU, dtype=torch.float32).spec
    assert spec.default_voice == "sona"
    assert "speed" in spec.capabilities
    assert "text_layout" not in spec.capabilities


def test_a_long_text_is_spoken_in_shorter_pieces_than_a_large_model_takes(paced):
    model = load(paced, device=CPU, dtype=torch.float32)
    text = "This sentence is of a middling length, as sentences go. " * 4
    assert len(model.prepare(SpeechRequest(text, voice="sona"))) == 2


def test_an_unknown_front_end_is_refused(paced):
    config = json.loads((paced / "config.json").read_text())
    config["sonant_front_end"] = "magic"
    (paced / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="paced-phonemes"):
        load(paced, device=CPU, dtype=torch.float32)


def test_models_without_a_front_end_keep_their_pace(copied):
    model = load(copied("custom_voice_1p7b"), device=CPU, dtype=torch.float32)
    assert model.preparing.front_end is None
    assert "speed" not in model.spec.capabilities
    with Engine(model) as engine, pytest.raises(UnsupportedError):
        engine.synthesize(SpeechRequest("Hello.", voice=model.spec.voices[0], speed=1.5, exact=True))
