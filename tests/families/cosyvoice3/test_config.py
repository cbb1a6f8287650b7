"""The safe yaml reader, the config, and what is refused."""

import sys
from dataclasses import replace

import pytest

from sonant.errors import CheckpointError, ConfigError
from sonant.families import cosyvoice3
from sonant.families.cosyvoice3.config import read_config
from sonant.families.cosyvoice3.yaml_reader import Node, read_yaml

from .conftest import load


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_references_and_arithmetic_are_resolved_and_tags_stay_inert(tmp_path):
    data = read_yaml(
        write(
            tmp_path / "a.yaml",
            "__seed: !apply:os.system ['false']\n"
            "n: 25\n"
            "both: !ref <n> * <inner.k> + 1\n"
            "half: !ref <n> / 2\n"
            "inner: !new:some.Where\n    k: 2\n    same: !ref <n>\n"
            "again: !ref <inner>\n"
            "part: !name:a.b\n    x: [!ref <n>, 'y']\n",
        )
    )
    assert data["both"] == 51
    assert data["half"] == 12.5
    assert data["inner"] == data["again"] == Node("new", "some.Where", {"k": 2, "same": 25})
    assert data["part"].value == {"x": [25, "y"]}
    assert data["__seed"] == Node("apply", "os.system", ["false"])


@pytest.mark.parametrize(
    "text",
    [
        "a: !ref <nothing>",
        "a: !ref <b>\nb: !ref <a>",
        "a: 2\nb: !ref <a> ** 99",
        "a: 2\nb: !ref __import__('os').getcwd()",
        "a: 0\nb: !ref 1 / <a> + 1",
        "a: text\nb: !ref <a> * 2",
        "- a list",
        "a: [unclosed",
        "a: {b: c",
    ],
)
def test_what_is_no_plain_config_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        read_yaml(write(tmp_path / "a.yaml", text))


def test_a_huge_file_is_refused_unread(tmp_path):
    with pytest.raises(ConfigError, match="bytes"):
        read_yaml(write(tmp_path / "a.yaml", "a: 1\n" + "#" * 1_100_000))


def test_classes_named_in_the_yaml_are_never_imported(folder):
    (folder / "evil_module.py").write_text("raise SystemExit('imported')")
    path = folder / "cosyvoice3.yaml"
    text = path.read_text()
    sys.path.insert(0, str(folder))
    try:
        write(path, text + "\nextra: !new:evil_module.Thing\nmore: !!python/object/apply:evil_module.f [1]\n")
        read_config(folder)  # outside the known sections: ignored
        write(path, text.replace("!new:cosyvoice.llm.llm.CosyVoice3LM", "!new:evil_module.CosyVoiceLM"))
        with pytest.raises(ConfigError, match=r"evil_module\.CosyVoiceLM"):
            read_config(folder)
    finally:
        sys.path.remove(str(folder))
    assert "evil_module" not in sys.modules


def test_config_is_read_from_the_official_keys(checkpoint):
    config = read_config(checkpoint)
    assert (config.sample_rate, config.token_rate, config.chunk_tokens) == (24_000, 25, 25)
    assert config.flow.transformer.static_chunk_size == 50
    assert config.flow.lookahead == 3
    assert config.vocoder.samples == 480
    assert config.vocoder.lookahead == 8
    assert config.language.decoder.qkv_bias
    assert (config.language.start, config.language.fill) == (729, 732)


def test_unknown_keys_are_skipped_and_unknown_variants_refused(folder):
    path = folder / "cosyvoice3.yaml"
    text = path.read_text()
    write(path, text.replace("depth: 3", "depth: 3\n            novelty: 7"))
    assert read_config(folder) == replace(read_config(folder))
    for old, new, word in (
        ("depth: 3", "depth: 3\n            long_skip_connection: True", "long_skip_connection"),
        ("solver: 'euler'", "solver: 'midpoint'", "midpoint"),
        ("num_decoding_left_chunks: -1", "num_decoding_left_chunks: 2", "num_decoding_left_chunks"),
        ("sample_rate: 24000", "sample_rate: 22050", "22050"),
        ("dim_head: 16", "dim_head: many", "dim_head"),
        ("            heads: 4\n", "", "heads"),
    ):
        assert old in text
        write(path, text.replace(old, new))
        with pytest.raises(ConfigError, match=word):
            read_config(folder)


def test_older_releases_are_recognised_and_refused_by_name(tmp_path):
    (tmp_path / "cosyvoice2.yaml").write_text("a: 1")
    assert cosyvoice3.detect(tmp_path)
    with pytest.raises(CheckpointError, match="CosyVoice2, which is not supported yet"):
        load(tmp_path)


def test_detect_looks_at_names_only(checkpoint, tmp_path):
    assert cosyvoice3.detect(checkpoint)
    assert not cosyvoice3.detect(tmp_path)
    assert not cosyvoice3.detect(tmp_path / "absent")
