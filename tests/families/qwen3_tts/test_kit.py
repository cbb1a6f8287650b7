import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from sonant.errors import CheckpointError
from sonant.parity.kit import run_kit
from sonant.parity.kits.qwen3_tts.rows import read_rows
from sonant.request.speech import Sampling

WHOLE_KIT = Path(__file__).parents[4] / "shared" / "qwen3_tts"


def test_the_small_kit_passes_whole(kit):
    lines = []
    assert run_kit(kit, lines.append), [line for line in lines if line.startswith("FAIL")]
    assert lines[-1].endswith(" 0 failed")
    assert int(lines[-1].split()[0]) > 300
    named = "\n".join(lines)
    for part in (
        "prefill.hidden.3",
        "talker.kv_len",
        "predictor.scores",
        "codes.all_quantizers",
        "a.xvector",
    ):
        assert part in named


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE_KIT.is_dir(), reason="the whole kit is not next to the repository")
def test_the_whole_kit_passes():
    lines = []
    assert run_kit(WHOLE_KIT, lines.append), [line for line in lines if line.startswith("FAIL")]


@pytest.fixture
def one_case(kit, tmp_path):
    """The smallest kit that has a case: one checkpoint, one recording."""
    folder = tmp_path / "kit"
    shutil.copytree(kit / "checkpoints" / "voice_design_1p7b", folder / "checkpoints" / "voice_design_1p7b")
    shutil.copytree(kit / "expected" / "voice_design_1p7b", folder / "expected" / "voice_design_1p7b")
    shutil.copyfile(kit / "manifest.json", folder / "manifest.json")
    return folder


def test_what_training_left_in_the_weights_fails_no_kit(one_case):
    file = one_case / "checkpoints" / "voice_design_1p7b" / "model.safetensors"
    shapes = {key: list(tensor.shape) for key, tensor in load_file(file).items()}
    listed = {"voice_design_1p7b": shapes}
    (one_case / "expected" / "tensor_names.json").write_text(json.dumps(listed), encoding="utf-8")
    left = {"talker.text_head.weight": torch.zeros(4, 4), "ema.talker.model.norm.weight": torch.ones(4)}
    save_file({**load_file(file), **left}, file)
    lines = []
    assert run_kit(one_case, lines.append), [line for line in lines if line.startswith("FAIL")]
    assert any("names and shapes" in line for line in lines)


def failures(folder):
    lines = []
    assert not run_kit(folder, lines.append)
    return [line for line in lines if line.startswith("FAIL")]


def test_a_kit_without_checkpoints_is_refused_with_words(one_case):
    shutil.rmtree(one_case / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoints"):
        run_kit(one_case, lambda line: None)


def test_one_case_alone_passes(one_case):
    assert run_kit(one_case, lambda line: None)


@pytest.mark.parametrize(
    ("tensor", "first"),
    [
        ("talker.model.layers.1.mlp.down_proj.weight", "talker.logits"),
        ("talker.code_predictor.lm_head.3.weight", "predictor.logits"),
        ("talker.text_projection.linear_fc2.bias", "prompt.embeds"),
    ],
)
def test_a_changed_weight_fails_first_where_it_acts(one_case, tensor, first):
    path = one_case / "checkpoints" / "voice_design_1p7b" / "model.safetensors"
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor] * 1.05
    save_file(tensors, path)
    assert first in failures(one_case)[0]


def test_a_changed_id_fails_at_the_prompt(one_case):
    path = one_case / "checkpoints" / "voice_design_1p7b" / "config.json"
    config = json.loads(path.read_text())
    config["talker_config"]["codec_think_bos_id"] += 1
    path.write_text(json.dumps(config))
    assert "prompt.embeds" in failures(one_case)[0]


def test_a_crash_is_a_failure_of_its_case(one_case):
    (one_case / "expected" / "voice_design_1p7b" / "instruct_auto_stream" / "tensors.safetensors").unlink()
    assert "ran to its end" in failures(one_case)[0]


def test_the_token_after_the_last_frame_is_checked(one_case):
    """A row that stops at its limit has chosen one more token than it has frames."""
    path = one_case / "expected" / "voice_design_1p7b" / "instruct_auto_stream" / "tensors.safetensors"
    tensors = load_file(path)
    assert tensors["talker.tokens"].shape[1] == len(tensors["codes.0"]) + 1
    tensors["talker.tokens"][0, -1] += 1
    save_file(tensors, path)
    assert any("talker.tokens" in line for line in failures(one_case))


def test_what_no_check_reads_is_a_failure(one_case):
    save_file({"x": torch.zeros(1)}, one_case / "expected" / "unknown.safetensors")
    assert "unknown: the whole file" in failures(one_case)[-1]


def test_one_argument_holds_for_every_row_and_no_speaker_is_none(kit, loaded):
    model = loaded("custom_voice_1p7b")
    inputs = {
        "mode": "custom_voice",
        "text": ["One.", "Two."],
        "speaker": [""],
        "language": "Auto",
        "non_streaming_mode": True,
    }
    with torch.inference_mode():
        first, second = read_rows(kit, inputs, model, Sampling(), 4)
        (named,) = read_rows(kit, {**inputs, "text": "One.", "speaker": "Vivian"}, model, Sampling(), 4)
    assert len(second.prompt.inputs.embeds) == len(first.prompt.inputs.embeds)
    assert len(named.prompt.inputs.embeds) == len(first.prompt.inputs.embeds) + 1


def test_clips_of_one_rate_are_encoded_as_one_batch(kit, loaded, tmp_path):
    """Parity: zeros behind a shorter clip change its last frame, and nothing else."""
    samples, rate = soundfile.read(kit / "audio" / "ref_a_24k_mono.wav", dtype="float32")
    for name, length in (("long", 20011), ("short", 8600)):
        soundfile.write(tmp_path / f"{name}.wav", samples[:length], rate, subtype="PCM_16")
    model = loaded("base_1p7b")
    inputs = {
        "mode": "base",
        "text": ["One.", "Two."],
        "ref_text": "Three.",
        "language": "Auto",
        "non_streaming_mode": True,
    }
    with torch.inference_mode():
        both = {**inputs, "ref_audio": ["long.wav", "short.wav"]}
        _, together = read_rows(tmp_path, both, model, Sampling(), 4)
        alone, _ = read_rows(tmp_path, {**inputs, "ref_audio": "short.wav"}, model, Sampling(), 4)
    found, expected = together.reference.tokens, alone.reference.tokens
    assert torch.equal(found[:-1], expected[:-1])
    assert not torch.equal(found[-1], expected[-1])


@pytest.mark.parametrize("case", ["sampled_seeded", "sampled_seeded_topp"])
def test_drawn_tokens_equal_the_original_for_its_random_stream(kit, loaded, case):
    """The original draws from one CPU generator: token 0, then the frame's others, frame after frame."""
    model = loaded("custom_voice_1p7b")
    place = kit / "expected" / "custom_voice_1p7b" / case
    record = json.loads((place / "case.json").read_text(encoding="utf-8"))
    expected = load_file(place / "tensors.safetensors")["codes.0"]
    from sonant.families.qwen3_tts.config import sampling_fields

    sampling = Sampling(**sampling_fields(record["inputs"]["generate"]))
    with torch.inference_mode():
        (row,) = read_rows(kit, record["inputs"], model, sampling, len(expected) + 1)
        model.allocate(1, row.prompt.positions + 1)
        utterance = model.start(row.prompt, [0])
        utterance.generator = torch.Generator().manual_seed(record["inputs"]["seed"])
        frames = [model.step([utterance])[0].tokens for _ in range(len(expected))]
    assert torch.equal(torch.cat(frames), expected)
