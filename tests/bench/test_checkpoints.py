"""Random checkpoints of CosyVoice3 and IndexTTS2: the official layout, the originals' names and shapes."""

import math

import pytest
import torch

from sonant.bench import cosyvoice3_checkpoint, indextts2_checkpoint
from sonant.bench.random_weights import Noise, recorded_shapes
from sonant.bench.spoken_text import FIRST_AUDIO_TEXT, TEXT
from sonant.catalogue.registry import describe
from sonant.families.cosyvoice3.model import load_tokenizer
from sonant.families.indextts2.text import TextFrontEnd
from sonant.families.indextts2.vocabulary import Vocabulary


def parameters(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def test_the_recorded_shapes_are_those_of_the_released_sizes():
    cosy, index = recorded_shapes("cosyvoice3"), recorded_shapes("indextts2")
    counts = {name: len(shapes) for name, shapes in cosy.items()}
    assert counts == {
        "CosyVoice-BlankEN/model.safetensors": 290, "llm.pt": 293, "flow.pt": 330, "hift.pt": 328,
    }  # fmt: skip
    assert parameters(cosy["CosyVoice-BlankEN/model.safetensors"]) == 494_032_768  # Qwen2 0.5B's own count
    assert 860e6 < parameters(index["gpt.pth"]) < 880e6
    assert 110e6 < parameters(index["hf_cache/bigvgan/bigvgan_generator.pt"]) < 115e6


def test_a_cosyvoice3_folder_is_known_and_its_lengths_are_forced(tmp_path):
    llm = {"llm.model.model.embed_tokens.weight": [8, 4], "llm_decoder.weight": [6761, 4]}
    shapes = {"llm.pt": llm, "flow.pt": {"a.norm.weight": [3]}, "hift.pt": {"f.weight": [2, 2]}}
    cosyvoice3_checkpoint.write(tmp_path, shapes=shapes)
    spec = describe(tmp_path)
    assert (spec.family, spec.voices, spec.frame_rate) == ("cosyvoice3", ("bench",), 25.0)
    head = torch.load(tmp_path / "llm.pt", weights_only=True)["llm_decoder.weight"]
    assert not head[6561:].any()
    assert head[:6561].any(dim=1).sum() == 6561 - len(cosyvoice3_checkpoint.SILENCES)
    tokenizer = load_tokenizer(tmp_path)
    for text in (TEXT, FIRST_AUDIO_TEXT):
        words, tokens = len(text.split()), len(tokenizer.encode(text))
        assert words <= tokens <= words + 5  # punctuation, and the first word is spelled


def test_an_indextts2_folder_is_known_and_its_texts_are_one_segment(tmp_path):
    names = recorded_shapes("indextts2")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shapes = {name: {"x.weight": [2, 2]} for name in names}
    shapes["gpt.pth"] = {"mel_head.bias": [8194]}
    indextts2_checkpoint.write(tmp_path, shapes=shapes)
    assert describe(tmp_path).family == "indextts2"
    assert torch.load(tmp_path / "gpt.pth", weights_only=True)["mel_head.bias"][8193] < -1000
    front = TextFrontEnd(tmp_path / "bpe.model", {})
    for text in (TEXT, FIRST_AUDIO_TEXT):
        assert 20 < len(front.pieces(text)) < 120


@pytest.mark.parametrize("module", [cosyvoice3_checkpoint, indextts2_checkpoint])
def test_no_norm_of_a_random_checkpoint_has_gains_of_zero(module):
    """It would give zeros whatever comes in, and what is before it could not be measured."""
    noise = Noise()
    for shapes in recorded_shapes(module.__name__.split(".")[-1].removesuffix("_checkpoint")).values():
        vectors = {key: shape for key, shape in shapes.items() if len(shape) == 1 and key.endswith(".weight")}
        assert [key for key, shape in vectors.items() if not module._tensor(key, shape, noise).all()] == []


def test_an_indextts25_folder_is_known_and_its_words_are_single_tokens(tmp_path):
    index = indextts2_checkpoint.shapes_of("indextts2.5")
    assert {name: len(index[name]) for name in ("gpt.pth", "codec.pth")} == {"gpt.pth": 456, "codec.pth": 243}
    assert 50e6 < parameters(index["codec.pth"]) < 51e6
    for name in index:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shapes = {name: {"x.weight": [2, 2]} for name in index}
    shapes["gpt.pth"] = {"mel_head.bias": [8194]}
    indextts2_checkpoint.write(tmp_path, "indextts2.5", shapes=shapes)
    assert describe(tmp_path).name == "IndexTTS-2.5"
    assert torch.load(tmp_path / "codec.pth", weights_only=True).keys() == {"model"}
    vocabulary = Vocabulary(tmp_path / "multilingual_zh_ja_yue_char_del.tiktoken")
    assert vocabulary.size == 60509  # number_text_tokens of the release
    assert len(TEXT.split()) < len(vocabulary.encode(TEXT.lower())) < 60
