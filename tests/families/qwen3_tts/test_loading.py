import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sonant.catalogue.registry import detect as detect_family
from sonant.errors import CheckpointError, ConfigError
from sonant.families.qwen3_tts import detect, load


def loads(folder):
    return load(folder, device=torch.device("cpu"), dtype=torch.float32)


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_detection_reads_one_small_file_and_imports_no_torch(kit):
    folder = kit / "checkpoints" / "base_1p7b"
    code = (
        "import sys; from pathlib import Path; from sonant.families.qwen3_tts import detect; "
        f"assert detect(Path({str(folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_other_folders_are_not_taken(tmp_path):
    assert not detect(tmp_path)
    for text in ('{"model_type": "llama"}', "[1]", "{", '{"tts_model_type": "base"}'):
        (tmp_path / "config.json").write_text(text)
        assert not detect(tmp_path)


def test_the_registry_knows_the_family(kit):
    assert detect_family(kit / "checkpoints" / "voice_design_1p7b") == "qwen3_tts"


@pytest.mark.parametrize("name", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_truncated_weights_are_named(copied, name):
    folder = copied("base_1p7b")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        loads(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "speech_tokenizer/config.json",
        "speech_tokenizer/model.safetensors",
    ],
)
def test_a_missing_file_is_named(copied, name):
    folder = copied("base_1p7b")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[-1]):
        loads(folder)


def test_generation_defaults_may_be_missing(copied):
    folder = copied("custom_voice_1p7b")
    (folder / "generation_config.json").unlink()
    spec = loads(folder).spec
    assert spec.sampling["max_frames"] == 2047
    assert spec.sampling["top_k"] == 50


def test_generation_defaults_of_the_file_count(copied):
    folder = copied("custom_voice_1p7b")
    edit(folder / "generation_config.json", lambda data: data.update(top_k=7, do_sample=False))
    spec = loads(folder).spec
    assert spec.sampling["top_k"] == 7
    assert spec.sampling["greedy"] is True
    assert spec.sampling["max_frames"] == 8191


@pytest.mark.parametrize(("key", "value"), [("max_new_tokens", []), ("top_k", "50"), ("temperature", True)])
def test_generation_defaults_of_a_wrong_type_are_named(copied, key, value):
    folder = copied("custom_voice_1p7b")
    edit(folder / "generation_config.json", lambda data: data.update({key: value}))
    with pytest.raises(ConfigError, match=key):
        loads(folder)


def test_null_in_the_generation_defaults_switches_a_filter_off(copied):
    folder = copied("custom_voice_1p7b")
    edit(folder / "generation_config.json", lambda data: data.update(top_p=None))
    assert loads(folder).spec.sampling["top_p"] in {None, 1.0}


def test_weights_of_another_kind_are_counted_and_the_first_named(copied, kit):
    folder = copied("base_1p7b")
    tensors = load_file(kit / "checkpoints" / "voice_design_1p7b" / "model.safetensors")
    tensors["stray"] = torch.zeros(1)
    tensors["talker.codec_head.weight"] = torch.zeros(3, 5)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        loads(folder)
    message = str(caught.value)
    speaker = [
        key for key in load_file(kit / "checkpoints" / "base_1p7b" / "model.safetensors") if "speaker_" in key
    ]
    assert f"{len(speaker)} missing" in message
    assert sum(key in message for key in speaker) == 6
    assert f"and {len(speaker) - 6} more" in message
    assert "1 unexpected" in message
    assert "stray" in message
    assert "found (3, 5), expected (1088, 40)" in message


def test_a_config_of_another_model_is_refused(copied):
    folder = copied("base_1p7b")
    edit(folder / "config.json", lambda data: data.update(model_type="cosyvoice3"))
    with pytest.raises(CheckpointError, match="cosyvoice3"):
        loads(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["talker_config"].update(num_key_value_heads=3), "do not divide"),
        (lambda c: c["talker_config"].pop("hidden_size"), "missing key 'hidden_size'"),
        (lambda c: c["talker_config"].update(surprise=1), "unknown key 'surprise'"),
        (lambda c: c["talker_config"].update(rope_scaling={"rope_type": "yarn"}), "rope scaling"),
        (lambda c: c["talker_config"].update(rope_scaling=True), "rope_scaling True"),
        (lambda c: c["talker_config"]["code_predictor_config"].update(num_code_groups=8), "code groups"),
        (lambda c: c["talker_config"]["code_predictor_config"].update(layer_types=5), "windowed"),
        (lambda c: c["talker_config"]["code_predictor_config"].update(vocab_size=-1), "make no network"),
        (lambda c: c["talker_config"].update(attention_bias=True), "attention_bias"),
        (lambda c: c.pop("speaker_encoder_config"), "speaker_encoder_config"),
        (lambda c: c.update(tts_model_type="singing"), "singing"),
    ],
)
def test_an_impossible_config_says_what_is_wrong(copied, change, said):
    folder = copied("base_1p7b")
    edit(folder / "config.json", change)
    with pytest.raises(ConfigError, match=said):
        loads(folder)


def test_bookkeeping_of_transformers_is_ignored(copied):
    folder = copied("custom_voice_1p7b")
    extra = {"_name_or_path": "", "torch_dtype": "bfloat16", "top_k": 50, "id2label": {}, "max_length": 20}

    def change(config):
        for section in (config, config["talker_config"], config["talker_config"]["code_predictor_config"]):
            section.update(extra)

    edit(folder / "config.json", change)
    loads(folder)


def test_a_tokenizer_of_another_checkpoint_is_refused(copied):
    folder = copied("base_1p7b")
    edit(folder / "config.json", lambda data: data.update(assistant_token_id=5))
    with pytest.raises(CheckpointError, match="different checkpoints"):
        loads(folder)


def test_a_codec_folder_is_no_place_for_a_model_config(kit, tmp_path):
    folder = shutil.copytree(kit / "checkpoints" / "base_1p7b", tmp_path / "mixed")
    shutil.copyfile(folder / "config.json", folder / "speech_tokenizer" / "config.json")
    with pytest.raises(CheckpointError, match="12 Hz speech tokenizer"):
        loads(folder)
