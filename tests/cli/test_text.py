"""`sonant text` shows what will be spoken; files of any Unicode encoding are read."""

import json

import pytest


def test_it_shows_what_will_be_spoken(sonant):
    result = sonant("text", "It costs $5.", "--explain")
    assert result.code == 0
    assert result.out.decode().splitlines()[0] == "It costs five dollars."
    assert "amount of money: '$5' -> 'five dollars'" in result.out.decode()


def test_for_a_model_its_phonemes_and_what_it_cannot_say(sonant):
    result = sonant("text", "Two 你好", "--model", "builtin", "--explain")
    assert "given to the model: tˈu" in result.out.decode()
    assert "你好" in result.err


def test_as_data(sonant):
    result = sonant("text", "100", "--language", "de", "--json")
    assert json.loads(result.out)["data"][0]["text"] == "einhundert"


@pytest.mark.parametrize("options", [("--normalize", "loud"), ("--emoji", "yes"), ("--model", "nowhere")])
def test_what_is_wrong_is_refused(sonant, options):
    assert sonant("text", "x", *options).code != 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_of_any_unicode_encoding(sonant, tmp_path, encoding):
    path = tmp_path / "text.txt"
    path.write_bytes("Größe: 5 m\r\nist gut".encode(encoding))
    assert sonant("text", f"@{path}", "--language", "de").out.decode().strip() == "Größe: fünf Meter ist gut"


def test_the_builtin_voice_refuses_to_read_nothing(sonant):
    result = sonant("say", "It costs $5.", "--no-normalize", "--model", "builtin")
    assert result.code == 4 or result.code == 2
    assert "sonant, original" in result.err
