"""Checkpoint folders: layouts, file forms, conversion, and what is refused."""

import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sonant.checkpoints.files import read_pickle
from sonant.checkpoints.modules import fold_weight_norm
from sonant.checkpoints.unread import collecting_unread
from sonant.errors import CheckpointError, ConfigError
from sonant.families import indextts2
from sonant.families.indextts2 import weights
from sonant.families.indextts2.config import read_config
from sonant.families.indextts2.layout import locate
from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.reference import mel_config
from sonant.families.indextts2.used import tensors_read
from sonant.parity.task import Task, perform
from sonant.request.speech import Sampling, SpeechRequest
from tests.families.indextts2.conftest import clip, nested, recorded


def same_weights(first, second):
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_detection_reads_one_file_and_no_torch(checkpoint, tmp_path):
    assert indextts2.detect(checkpoint)
    assert not indextts2.detect(tmp_path)
    (tmp_path / "config.yaml").write_text("model: something else\n")
    assert not indextts2.detect(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe: [")
    assert not indextts2.detect(tmp_path)
    code = (
        "import sys; from pathlib import Path; from sonant.families import indextts2; "
        f"assert indextts2.detect(Path({str(checkpoint)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_older_versions_are_recognised_and_refused(checkpoint, tmp_path):
    text = (checkpoint / "config.yaml").read_text().replace("version: 2.0", "version: 1.5")
    (tmp_path / "config.yaml").write_text(text)
    assert indextts2.detect(tmp_path)
    with pytest.raises(ConfigError, match=r"version 1\.5; this runtime speaks IndexTTS2 and IndexTTS-2\.5"):
        indextts2.load(tmp_path, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("said", ["2", "2.0", "'2.0'", "v2", "null", "release", "[1]"])
def test_a_version_is_no_more_than_a_word(checkpoint, tmp_path, said):
    text = (checkpoint / "config.yaml").read_text().replace("version: 2.0", f"version: {said}")
    (tmp_path / "config.yaml").write_text(text)
    assert indextts2.detect(tmp_path)
    assert read_config(tmp_path / "config.yaml").name == "IndexTTS2"


@pytest.mark.parametrize(("said", "highest"), [("None", None), ("null", 8000.0), ("11025", 8000.0)])
def test_the_mel_ends_where_the_original_ends_it(checkpoint, tmp_path, said, highest):
    text = (checkpoint / "config.yaml").read_text()
    assert "fmax: None" in text
    (tmp_path / "config.yaml").write_text(text.replace("fmax: None", f"fmax: {said}"))
    assert mel_config(read_config(tmp_path / "config.yaml").s2mel).high == highest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dit_type: DiT", "dit_type: DiT", None),
        ("is_causal: false", "is_causal: true", "is_causal"),
        ("heads: 4\n  use", "heads: 5\n  use", "heads"),
        ("model_dim: 48", "model_dim: 48\n  surprise: 1", "surprise"),
        ("final_layer_type: wavenet", "final_layer_type: mlp   ", "wavenet"),
        ("gpt_checkpoint: gpt.pth", "", "gpt_checkpoint"),
    ],
)
def test_configs_of_other_networks_are_refused_by_name(checkpoint, tmp_path, old, new, expected):
    text = (checkpoint / "config.yaml").read_text()
    assert old in text
    (tmp_path / "config.yaml").write_text(text.replace(old, new))
    if expected is None:
        read_config(tmp_path / "config.yaml")
        return
    with pytest.raises(ConfigError, match=expected):
        read_config(tmp_path / "config.yaml")


def test_trailing_blanks_in_the_config_do_not_matter(checkpoint, tmp_path):
    text = (checkpoint / "config.yaml").read_text().replace("gpt.pth", '"gpt.pth  "')
    (tmp_path / "config.yaml").write_text(text)
    assert read_config(tmp_path / "config.yaml").gpt_checkpoint == "gpt.pth"


def test_all_missing_files_are_listed(checkpoint, tmp_path):
    shutil.copy(checkpoint / "config.yaml", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        locate(tmp_path, read_config(tmp_path / "config.yaml"))
    for name in ("bpe.model", "gpt.pth", "s2mel.pth", "feat1.pt", "campplus_cn_common.bin", "bigvgan"):
        assert name in str(caught.value)


def test_hub_snapshots_are_found(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("hf_cache"))
    flat, hub = checkpoint / "hf_cache", folder / "hf_cache"
    moves = {
        "w2v-bert-2.0/model.safetensors": "models--facebook--w2v-bert-2.0/snapshots/abc/model.safetensors",
        "w2v-bert-2.0/config.json": "models--facebook--w2v-bert-2.0/snapshots/abc/config.json",
        "semantic_codec_model.safetensors": (
            "models--amphion--MaskGCT/snapshots/abc/semantic_codec/model.safetensors"
        ),
        "campplus_cn_common.bin": "models--funasr--campplus/snapshots/abc/campplus_cn_common.bin",
        "bigvgan/bigvgan_generator.pt": (
            "models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots/abc/bigvgan_generator.pt"
        ),
        "bigvgan/config.json": "models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots/abc/config.json",
    }
    for old, new in moves.items():
        (hub / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / old, hub / new)
    files = locate(folder, read_config(folder / "config.yaml"))
    assert "snapshots" in str(files.w2v_bert)
    load_model(folder, device="cpu", dtype=torch.float32)


def test_the_sub_folders_of_index_tts_vllm_are_searched(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    cache = folder / "hf_cache"
    for old, new in (
        ("campplus_cn_common.bin", "campplus/campplus_cn_common.bin"),
        ("semantic_codec_model.safetensors", "semantic_codec/model.safetensors"),
        ("w2v-bert-2.0", "w2v-bert-2.0"),
        ("bigvgan", "bigvgan"),
    ):
        (folder / new).parent.mkdir(exist_ok=True)
        (cache / old).rename(folder / new)
    cache.rmdir()
    files = locate(folder, read_config(folder / "config.yaml"))
    assert files.campplus == folder / "campplus" / "campplus_cn_common.bin"
    load_model(folder, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("cache", ["", "hf_cache"])
def test_repositories_fetched_whole_under_their_names_are_found(checkpoint, tmp_path, cache):
    """As `hf download OWNER/NAME --local-dir OWNER/NAME` leaves them."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("hf_cache"))
    flat, place = checkpoint / "hf_cache", folder / cache
    shutil.copytree(flat / "w2v-bert-2.0", place / "facebook" / "w2v-bert-2.0")
    shutil.copytree(flat / "bigvgan", place / "bigvgan_v2_22khz_80band_256x")
    for old, new in (
        ("semantic_codec_model.safetensors", "amphion/MaskGCT/semantic_codec/model.safetensors"),
        ("campplus_cn_common.bin", "funasr/campplus/campplus_cn_common.bin"),
    ):
        (place / new).parent.mkdir(parents=True)
        shutil.copy(flat / old, place / new)
    files = locate(folder, read_config(folder / "config.yaml"))
    assert files.w2v_bert == place / "facebook" / "w2v-bert-2.0"
    assert files.bigvgan_config == place / "bigvgan_v2_22khz_80band_256x" / "config.json"
    assert {files.codec.parents[2], files.campplus.parents[2]} == {place / "amphion", place}


def test_auxiliary_models_may_lie_elsewhere(checkpoint, tmp_path):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("hf_cache"))
    shutil.copytree(checkpoint / "hf_cache", elsewhere)
    names = {
        "w2v_bert": "../elsewhere/w2v-bert-2.0",
        "codec": str(elsewhere / "semantic_codec_model.safetensors"),
        "campplus": "../elsewhere/campplus_cn_common.bin",
        "bigvgan": "../elsewhere/bigvgan/bigvgan_generator.pt",
    }
    (folder / "auxiliary.yaml").write_text("".join(f"{name}: {path}\n" for name, path in names.items()))
    files = locate(folder, read_config(folder / "config.yaml"))
    assert files.codec == elsewhere / "semantic_codec_model.safetensors"
    assert files.bigvgan_config.resolve() == elsewhere / "bigvgan" / "config.json"
    (folder / "auxiliary.yaml").write_text("vocoder: x\n")
    with pytest.raises(ConfigError, match="expected paths under the names w2v_bert"):
        locate(folder, read_config(folder / "config.yaml"))
    (folder / "auxiliary.yaml").write_text("codec: absent\n")
    with pytest.raises(CheckpointError, match="does not exist"):
        locate(folder, read_config(folder / "config.yaml"))


def test_a_wrapped_gpt_and_prefixed_mel_half_load_alike(loaded, tmp_path):
    torch.save({"model": recorded("gpt"), "epoch": 3, "optimizer": {"lr": [0.1]}}, tmp_path / "gpt.pth")
    gpt = weights.load_gpt(tmp_path / "gpt.pth", loaded.parts.config, 32, device="cpu", dtype=torch.float32)
    assert same_weights(gpt, loaded.parts.gpt)
    net = {
        head: {f"module.{name}": tensor for name, tensor in part.items()}
        for head, part in nested(recorded("s2mel")).items()
    }
    torch.save({"net": net}, tmp_path / "s2mel.pth")
    s2mel = weights.load_s2mel(tmp_path / "s2mel.pth", loaded.parts.config, device="cpu")
    assert same_weights(s2mel, loaded.parts.s2mel)


@pytest.mark.parametrize("wrapper", ["state_dict", "module", "model"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_programs_put_around_weights_is_seen_through(checkpoint, tmp_path, wrapper, prefix):
    for name in ("gpt.pth", "hf_cache/campplus_cn_common.bin"):
        plain = read_pickle(checkpoint / name)
        ema = {key: tensor + 1 for key, tensor in plain.items() if tensor.is_floating_point()}
        wrapped = {wrapper: {prefix + key: tensor for key, tensor in plain.items()}, "ema": ema, "step": 7}
        torch.save(wrapped, tmp_path / "x.pth")
        read = weights.gpt_tensors if name == "gpt.pth" else weights.campplus_tensors
        found = read(tmp_path / "x.pth")
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_tensors_beside_a_wrapper_are_told_and_twins_refused(tmp_path):
    one, path = torch.ones(2), tmp_path / "gpt.pth"
    for saved in ({"model": {"a": {"w": one}}, "head": one}, {"model.a.w": one, "head": one}):
        torch.save(saved, path)
        with collecting_unread() as unread:
            assert weights.gpt_tensors(path).keys() == {"a.w"}
        assert unread == {str(path): {"head": 8}}
    torch.save({"a": {"module.w": one}, "a.w": one}, path)
    with pytest.raises(CheckpointError, match=r"two tensors of \S*gpt\.pth map to 'a\.w'"):
        weights.gpt_tensors(path)


def test_merged_vocoder_weights_load_alike(loaded, checkpoint, tmp_path):
    folder = checkpoint / "hf_cache" / "bigvgan"
    tensors = read_pickle(folder / "bigvgan_generator.pt")["generator"]
    assert len(tensors) == 783
    merged = fold_weight_norm(tensors)
    assert len(merged) == 667
    torch.save({"generator": merged}, tmp_path / "bigvgan_generator.pt")
    vocoder = weights.load_bigvgan(tmp_path / "bigvgan_generator.pt", folder / "config.json", device="cpu")
    assert same_weights(vocoder, loaded.parts.vocoder)


def test_parameters_that_inference_never_reads_may_be_missing_or_there(loaded, tmp_path):
    tensors = recorded("s2mel")
    extra = {
        "cfm.estimator.input_pos": torch.arange(9),
        "cfm.estimator.cond_embedder.weight": torch.zeros(2, 2),
        "length_regulator.embedding.weight": torch.zeros(2, 2),
    }
    for name, held in (("more", {**tensors, **extra}), ("less", tensors)):
        torch.save({"net": nested(held)}, tmp_path / f"{name}.pth")
        made = weights.load_s2mel(tmp_path / f"{name}.pth", loaded.parts.config, device="cpu")
        assert same_weights(made, loaded.parts.s2mel)
    broken = {name: tensor for name, tensor in tensors.items() if "wqkv" not in name}
    torch.save({"net": nested(broken)}, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match="5 missing"):
        weights.load_s2mel(tmp_path / "broken.pth", loaded.parts.config, device="cpu")


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        ("wav2vec2bert_stats.pt", {"mean": torch.zeros(40), "var": torch.ones(40)}, r"\(40,\).*need \(32,\)"),
        pytest.param("feat1.pt", torch.ones(73, 90), r"\(73, 90\).*need \(73, 192\)", marks=pytest.mark.slow),
        pytest.param("feat2.pt", torch.ones(73, 90), r"\(73, 90\).*need \(73, 48\)", marks=pytest.mark.slow),
    ],
)
def test_numbers_of_another_release_are_refused_at_loading(checkpoint, tmp_path, name, made, told):
    folder = tmp_path / "x"
    shutil.copytree(checkpoint, folder)
    torch.save(made, folder / name)
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} holds numbers of shape {told}"):
        load_model(folder, device="cpu", dtype=torch.float32)


def test_other_gpts_are_refused(loaded, tmp_path):
    torch.save({"mel_embedding.weight": torch.zeros(2, 2)}, tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match=r"not the gpt\.pth of IndexTTS2"):
        weights.load_gpt(tmp_path / "gpt.pth", loaded.parts.config, 32, device="cpu", dtype=torch.float32)


def test_conversion_gives_a_folder_without_pickles_that_loads_alike(loaded, checkpoint, tmp_path):
    target = tmp_path / "converted"
    indextts2.convert(checkpoint, target)
    assert not [p for p in target.rglob("*") if p.suffix in (".pth", ".pt", ".bin")]
    assert load_file(target / "gpt.safetensors").keys() == recorded("gpt").keys()
    again = load_model(target, device="cpu", dtype=torch.float32)
    for name in ("gpt", "s2mel", "codec", "vocoder"):
        assert same_weights(getattr(again.parts, name), getattr(loaded.parts, name)), name
    assert same_weights(again.parts.reference.campplus, loaded.parts.reference.campplus)
    for one, other in zip(again.parts.emotion_groups, loaded.parts.emotion_groups, strict=True):
        assert torch.equal(one, other)
    request = SpeechRequest("Good day.", seed=1, sampling=Sampling(max_frames=12))
    spoken = [perform(model, Task(request=request, audio=clip(0))) for model in (loaded, again)]
    assert torch.equal(*spoken)
    with pytest.raises(CheckpointError, match="exists already"):
        indextts2.convert(checkpoint, target)


def test_what_nobody_reads_of_the_models_beside_is_told_and_not_converted(checkpoint, tmp_path):
    folder, target = tmp_path / "model", tmp_path / "converted"
    shutil.copytree(checkpoint, folder)
    heard, classifier = folder / "hf_cache" / "w2v-bert-2.0", folder / "qwen0.6bemo4-merge"
    for place, extra in ((heard, "ctc_head.weight"), (classifier, "value_head.weight")):
        file = place / "model.safetensors"
        save_file({**load_file(file), extra: torch.zeros(300, 300)}, file)
    (heard / "conformer_shaw.pt").write_bytes(b"the same weights for another program")
    with collecting_unread() as unread:
        tensors_read(locate(folder, read_config(folder / "config.yaml")), read_config(folder / "config.yaml"))
    assert [list(names) for names in unread.values()] == [["ctc_head.weight"], ["value_head.weight"]]
    indextts2.convert(folder, target)
    made = load_file(target / "hf_cache" / "w2v-bert-2.0" / "model.safetensors")
    assert not {key for key in made if key.startswith("encoder.layers.17.") or "head" in key}
    assert not (target / "hf_cache" / "w2v-bert-2.0" / "conformer_shaw.pt").exists()
    assert "value_head.weight" not in load_file(target / classifier.name / "model.safetensors")
    names = {path.name for path in classifier.iterdir()}
    assert {path.name for path in (target / classifier.name).iterdir()} == names
    assert load_model(target, device="cpu", dtype=torch.float32).parts.classifier is not None


def test_a_failed_conversion_leaves_nothing(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "feat2.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=r"feat2\.pt"):
        indextts2.convert(broken, tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken"]


def test_half_precision_is_for_the_gpt_only(checkpoint):
    made = load_model(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert made.parts.gpt.dtype == torch.bfloat16
    assert made.parts.codec.quantiser.codebook.weight.dtype == torch.float32
    assert next(made.parts.vocoder.parameters()).dtype == torch.float32


def test_a_damaged_tokenizer_of_the_emotion_model_is_named(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    (folder / "qwen0.6bemo4-merge" / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        load_model(folder, device="cpu", dtype=torch.float32)
