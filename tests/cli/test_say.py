"""sonant say: where audio goes, what is printed, how errors and Ctrl-C end it."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
import wave
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sonant.audio.loudness import Leveller, measure_loudness
from sonant.checkpoints.memory import Plan
from sonant.request.audio import Audio
from sonant.request.settings import LOUDNESS
from sonant.request.speech import EMOTIONS


def test_say_writes_speech_and_prints_where(sonant, tmp_path):
    result = sonant("say", "The quick brown fox.", "--seed", 1)
    assert (result.code, result.text) == (0, "speech.wav\n")
    audio = Audio.read(tmp_path / "speech.wav")
    assert audio.sample_rate == 24_000
    assert 0.8 < audio.seconds < 4
    assert np.abs(audio.samples).max() > 0.05


def test_forgotten_quotes_are_no_matter(sonant, toy, tmp_path):
    assert sonant("say", "hello", "there", "friend", "-o", "parted.wav", "--seed", 1).code == 0
    assert sonant("say", "hello there friend", "-o", "whole.wav", "--seed", 1).code == 0
    assert (tmp_path / "parted.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("Good morning.", "out.wav"), "did you mean -o out.wav?"),
        (("Hello", "there", "x.mp3"), "did you mean -o x.mp3?"),
        (("One text.", "Another text."), "'Another text.' is one text too many"),
        (("hello", "@file.txt"), "one text too many"),
        (("hello", ""), "one text too many"),
    ],
    ids=str,
)
def test_words_that_may_mean_something_else_are_not_said(sonant, tmp_path, words, told):
    result = sonant("say", *words)
    assert result.code == 2
    assert told in result.err
    assert not (tmp_path / "speech.wav").exists()


@pytest.mark.parametrize(
    ("closed", "text", "code"), [(">&-", "hello", 0), ("2>&-", "hello", 0), ("<&-", "-", 2)], ids=str
)
def test_a_closed_standard_stream_is_no_matter(tmp_path, closed, text, code):
    script = "import sys; sys.argv[0] = 'sonant'; from sonant.cli import main; main()"
    command = shlex.join([sys.executable, "-c", script, "say", text, "-o", "out.wav"])
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out.wav").exists() == (code == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and /sys take no file from anybody")
def test_where_nothing_may_be_written_one_line_says_so(sonant, tmp_path, monkeypatch):
    made = sonant("say", "hello", "-o", "hello.wav", "--seed", 1)
    assert made.code == 0
    monkeypatch.setenv("SONANT_VOICES", "/proc/voices")
    kept = sonant("voice", "add", "ann", "hello.wav")
    assert kept.code == 10
    assert "/proc/voices" in kept.err
    assert "expected a place that may be written" in kept.err
    monkeypatch.chdir("/sys")
    refused = sonant("say", "hello")
    assert refused.code == 10
    assert refused.err.count("\n") == 1
    assert "speech.wav" in refused.err


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "opus", "aac", "m4a", "pcm"])
def test_the_ending_says_the_format(sonant, toy, tmp_path, suffix):
    assert sonant("say", "hello", "-o", f"out.{suffix}", "--seed", 1).code == 0
    head = (tmp_path / f"out.{suffix}").read_bytes()[:4]
    starts = {"wav": b"RIFF", "flac": b"fLaC", "opus": b"OggS"}
    assert head.startswith(starts.get(suffix, head))
    assert len(head) == 4


def test_text_comes_from_standard_input_and_from_a_file(sonant, toy, tmp_path):
    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    sonant("say", "hello", "--seed", 1, "-o", "a.wav")
    sonant("say", "-", "--seed", 1, "-o", "b.wav", stdin=b"hello")
    sonant("say", "@text.txt", "--seed", 1, "-o", "c.wav")
    first = (tmp_path / "a.wav").read_bytes()
    assert first == (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()


@pytest.mark.parametrize("flags", [(), ("--stream",)])
def test_audio_to_standard_output_is_nothing_but_audio(sonant, toy, flags):
    result = sonant("say", "hello there", "-o", "-", "--seed", 1, "--json", *flags)
    assert result.out[:4] == b"RIFF"
    samples = Audio.read(result.out).samples
    described = json.loads(result.err.splitlines()[-1])
    assert described["seconds"] == pytest.approx(len(samples) / 8000, abs=1e-3)
    assert described["file"] is None


def test_streamed_and_whole_files_have_the_same_samples(sonant, toy, tmp_path):
    toy.end_bias = float("-inf")
    sonant("say", "hello. there", "--seed", 1, "-o", "whole.wav", "--de-rumble", "off", "--loudness", "off")
    result = sonant(
        "say", "hello. there", "--seed", 1, "-o", "pieces.wav", "--stream", "--json", "--loudness", "off"
    )
    assert json.loads(result.text)["chunks"] > 4
    whole, pieces = (Audio.read(tmp_path / name).samples for name in ("whole.wav", "pieces.wav"))
    assert whole.shape == pieces.shape
    assert np.abs(whole - pieces).max() <= 1 / 32768  # sums of another order may round to the next step


def test_speech_leaves_at_a_loudness_of_its_own_unless_it_is_off(sonant, toy, tmp_path):
    toy.end_bias = float("-inf")
    levels = {}
    for name, flags in {
        "default": (), "given": ("--loudness", "-25"), "off": ("--loudness", "off", "--de-rumble", "off"),
        "streamed": ("--stream",), "resumed": ("--resume",),
    }.items():  # fmt: skip
        said = sonant("say", "hello. there. " * 6, "--seed", 1, "-o", f"{name}.wav", "--receipt", *flags)
        assert said.code == 0, said.err
        audio = Audio.read(tmp_path / f"{name}.wav")
        levels[name] = measure_loudness(audio.samples, audio.sample_rate)
        assert np.abs(audio.samples).max() < 0.98
        assert sonant("replay", f"{name}.wav.receipt.json").code == 0
    assert levels["default"] == pytest.approx(LOUDNESS, abs=0.2)
    assert levels["given"] == pytest.approx(-25, abs=0.2)
    own = Audio.read(tmp_path / "off.wav")
    levelled = Leveller(LOUDNESS, own.sample_rate).push(own.samples)
    assert np.abs(Audio.read(tmp_path / "streamed.wav").samples - levelled).max() < 1e-3  # of 16 bits


def test_a_receipt_from_before_loudness_was_a_default_replays_as_it_was():
    from sonant.readings.job import Job

    old = Job(text="hello").to_data() | {"loudness": None}
    assert Job.from_data(old).loudness is None
    assert Job.from_data(Job(text="hello").to_data()).loudness == LOUDNESS


def test_json_tells_seed_guards_and_timings(sonant, toy):
    toy.end_bias = float("-inf")
    result = sonant("say", "hello", "--json", "--seed", 5)
    described = json.loads(result.text)
    assert described["seed"] == 5
    assert described["guards"][0]["kind"] == "length_ceiling"
    assert described["timings"]["first_audio"] > 0
    assert described["model"] == "toy"
    assert "warning: segment 1 was stopped" in result.err


def test_timings_are_printed_beside_the_result(sonant, toy):
    result = sonant("say", "hello", "--timings")
    assert result.text == "speech.wav\n"
    assert all(word in result.err for word in ("load", "first_audio", "real time"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["say"], 2, "nothing to say"),
        (["say", ""], 2, "the text is empty"),
        (["say", "@nowhere.txt"], 2, "nowhere.txt"),
        (["say", "x", "-o", "x.xyz"], 2, "x.xyz"),
        (["say", "x", "-o", "nowhere/x.wav"], 2, "there is no folder"),
        (["say", "x", "--voice", "bob"], 4, "sona"),
        (["say", "x", "--model", "nowhere"], 3, "neither a folder"),
        (["say", "x", "--speed", "9"], 2, "0.25"),
        (["say", "x", "--instruction", "sad"], 4, "instruction"),
        (["say", "x", "--emotion", "glad=1"], 2, "glad"),
        (["say", "x", "--emotion", "happy=1"], 4, "emotion_vector"),
        (["say", "x", "--preset", "nope"], 2, "no preset 'nope'"),
        (["say", "x", "--model", "builtin", "--greedy"], 4, "greedy"),
        (["say", "x", "--model", "builtin", "--precision", "int8"], 4, "precision"),
        (["say", "x", "--option", "nope"], 2, "NAME=VALUE"),
        (["say", "x", "--option", "nope=1"], 4, "nope"),
        (["say", "x", "--glossary", "nowhere"], 2, "nowhere"),
        (["say", "x", "--de-rumble", "much"], 2, "de-rumble"),
        (["say", "x", "--loudness", "loud"], 2, "off or -70 to 0"),
        (["say", "x", "--loudness", "3"], 2, "off or -70 to 0"),
        (["say", "x", "--text-layout", "both"], 2, "progressive"),
        (["say", "x", "-o", "-", "--receipt"], 2, "--receipt"),
        (["say", "x", "--design-model", "m"], 2, "description"),
        (["say", "x", "--design-text", "Hi."], 2, "--design-model"),
        (["say", "x", "--transcript", "Hi."], 2, "--voice"),
        (["say", "x", "--source-audio", "nowhere.wav"], 2, "nowhere.wav"),
        (["say", "x", "--no-such-flag"], 2, "--no-such-flag"),
        (["say", "x", "--device", "tpu9"], 2, "tpu9"),
    ],
)
def test_a_wrong_command_ends_with_the_code_of_its_error_and_no_file(
    sonant, tmp_path, arguments, code, words
):
    result = sonant(*arguments)
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("*.wav"))


@pytest.mark.parametrize("name", ["text.txt", "a book.epub"])
def test_a_file_given_as_the_text_is_asked_about(sonant, toy, tmp_path, name):
    (tmp_path / name).write_text("hello", encoding="utf-8")
    result = sonant("say", name)
    assert result.code == 2
    assert ("sonant read" if name.endswith("epub") else f"@{name}") in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "speech.wav").exists()
    assert sonant("say", "-", stdin=name.encode()).code == 0, "the name itself can be said"


@pytest.mark.parametrize(("answer", "said"), [("\n", "hello"), ("y\n", "hello"), ("n\n", "text.txt")])
def test_on_a_terminal_a_question_is_asked(tmp_path, answer, said):
    """A real terminal: the question is on stderr, and what is decided is spoken."""
    import pty

    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    script = (
        "import os, sys; os.chdir(sys.argv[1]); from sonant.cli.say import meant_file, read_text;"
        "sys.stderr.write('said ' + read_text(meant_file('text.txt')))"
    )
    main, side = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=side, stderr=side, env=environment
    )
    os.close(side)
    shown = b""
    while b"Read it?" not in shown:
        shown += os.read(main, 1000)
    os.write(main, answer.encode())
    assert process.wait(timeout=60) == 0
    while b"said" not in shown:
        shown += os.read(main, 1000)
    os.close(main)
    assert f"said {said}".encode() in shown


def test_a_player_that_fails_fails_the_command(sonant, toy, tmp_path, monkeypatch):
    from sonant.audio.player import Program

    script = tmp_path / "aplay"
    script.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr("sonant.audio.player.PROGRAMS", [Program((str(script),))])
    result = sonant("say", "hello", "--play", "--seed", 1)
    assert result.code == 6
    assert "ended with status 3" in result.err
    assert "Traceback" not in result.err


def test_phonemes_say_a_word_otherwise(sonant, tmp_path):
    for name, text in {"plain": "I said tomato.", "given": "I said [tomato](/təmˈɑːtəʊ/)."}.items():
        assert sonant("say", text, "-o", f"{name}.wav", "--seed", 1).code == 0
    plain, given = (Audio.read(tmp_path / f"{name}.wav") for name in ("plain", "given"))
    assert abs(plain.seconds - given.seconds) < 0.5
    assert plain.samples.shape != given.samples.shape or np.abs(plain.samples - given.samples).max() > 0.05


def test_emotion_words_become_eight_numbers():
    from sonant.readings.job import parse_emotion

    vector = parse_emotion("happy=0.6, Calm=0.2")
    assert vector[EMOTIONS.index("happy")] == 0.6
    assert vector[EMOTIONS.index("calm")] == 0.2
    assert sum(vector) == pytest.approx(0.8)
    assert parse_emotion("happy") == parse_emotion("Happy = 1") == (1.0, *[0.0] * 7)
    assert parse_emotion("happy=0.6, calm")[EMOTIONS.index("calm")] == 1.0
    assert parse_emotion("0.1,0,0,0,0,0,0,1") == (0.1, 0, 0, 0, 0, 0, 0, 1.0)


def test_every_setting_reaches_the_request(sonant, toy, monkeypatch):
    seen = []
    toy.spec = replace(toy.spec, presets={"mild": {"temperature": 0.5, "top_p": 0.8}})
    from sonant.engine.engine import Engine
    from sonant.errors import UnsupportedError

    def submit(self, request, **options):
        seen.append(request)
        raise UnsupportedError("enough seen")

    monkeypatch.setattr(Engine, "submit", submit)
    options = """
        say x --language en --instruction calm --emotion sad=0.5 --emotion-strength 0.7 --emotion-random
        --speed 1.5 --seed 9 --preset mild --temperature 0.9 --top-k 5 --predictor-greedy
        --predictor-top-k 3 --predictor-top-p 0.5 --predictor-temperature 0.4 --beams 2 --length-penalty 1.5
        --flow-steps 7 --max-frames 99 --text-layout full --no-normalize --option a=1 --option b=two
    """
    sonant(*options.split())
    (request,) = seen
    assert (request.language, request.speed, request.seed, request.text_layout) == ("en", 1.5, 9, "full")
    assert request.style.instruction == "calm"
    assert request.style.emotion_vector[2] == 0.5
    assert (request.style.emotion_strength, request.style.emotion_random) == (0.7, True)
    assert request.sampling.given() == {
        "temperature": 0.9, "top_k": 5, "top_p": 0.8, "flow_steps": 7,
        "predictor_greedy": True, "predictor_top_k": 3, "predictor_top_p": 0.5,
        "predictor_temperature": 0.4, "beams": 2, "length_penalty": 1.5, "max_frames": 99,
    }  # fmt: skip
    assert request.options == {"a": 1, "b": "two"}
    assert request.normalize == "off"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.txt", "# mine\nSonant = soh nahnt\n\n"),
        ("g.yaml", "Sonant: soh nahnt\n"),
        ("g.json", '{"Sonant": "soh nahnt"}'),
    ],
)
def test_a_glossary_is_read_from_lines_yaml_or_json(tmp_path, name, content):
    from sonant.readings.job import read_glossary

    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_glossary(tmp_path / name) == {"Sonant": "soh nahnt"}


def test_play_hands_a_wav_to_the_player(sonant, toy, tmp_path, monkeypatch):
    player = tmp_path / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\nexec cat > {tmp_path}/heard.wav\n", encoding="utf-8")
    player.chmod(player.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{player.parent}:/bin:/usr/bin")
    monkeypatch.setattr("sonant.audio.player.PROGRAMS", [p for p in _programs() if p.command[0] == "aplay"])
    result = sonant("say", "hello", "--play", "--seed", 1)
    assert result.code == 0
    assert not (tmp_path / "speech.wav").exists()
    sonant("say", "hello", "--seed", 1, "--stream")
    heard = Audio.read(tmp_path / "heard.wav")
    assert np.abs(heard.samples - Audio.read(tmp_path / "speech.wav").samples).max() <= 1 / 32768


def _programs():
    from sonant.audio.player import PROGRAMS

    return PROGRAMS


def test_a_player_that_needs_a_file_gets_one(toy, tmp_path, monkeypatch):
    from sonant.audio.player import Player, Program

    script = tmp_path / "afplay"
    script.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/heard.wav\n', encoding="utf-8")
    script.chmod(0o755)
    with Player(8000, program=Program((str(script),), takes_stdin=False)) as player:
        player.write(np.full(100, 0.5, np.float32))
    with wave.open(str(tmp_path / "heard.wav")) as file:
        assert file.getnframes() == 100


def test_without_a_player_play_is_refused_before_any_work(sonant, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = sonant("say", "hello", "--play")
    assert result.code == 9
    assert "ffplay" in result.err


def test_a_player_that_fails_is_told(tmp_path):
    from sonant.audio.player import Player, Program
    from sonant.errors import GenerationError

    with (
        pytest.raises(GenerationError, match="status 1"),
        Player(8000, program=Program(("false",))) as player,
    ):
        player.write(np.zeros(100, np.float32))


@pytest.mark.parametrize("takes_stdin", [True, False])
def test_a_player_whose_status_hides_its_failure_is_told(tmp_path, takes_stdin):
    """ffplay without a sound device says so and ends with 0."""
    from sonant.audio.player import PROGRAMS, Player, Program
    from sonant.errors import GenerationError

    failure = next(one.failure for one in PROGRAMS if one.command[0] == "ffplay")
    script = tmp_path / "ffplay"
    script.write_text(f"#!/bin/sh\necho 'No more, {failure}' >&2\necho 'Cannot open' >&2\n", encoding="utf-8")
    script.chmod(0o755)
    program = Program((str(script),), takes_stdin=takes_stdin, failure=failure)
    with (
        pytest.raises(GenerationError, match=r"status 0 \(Cannot open\); expected it to play"),
        Player(8000, program=program) as player,
    ):
        player.write(np.zeros(100, np.float32))


def test_a_broken_model_leaves_the_spoken_part_and_an_error(sonant, toy, tmp_path, caplog):
    toy.end_bias = float("-inf")
    calls = toy.step
    state = {"steps": 0}

    def step(utterances):
        state["steps"] += 1
        if state["steps"] > 40:
            raise RuntimeError("the toy broke")
        return calls(utterances)

    toy.step = step
    result = sonant("say", "a first part. a second part that never ends", "--stream", "--seed", 1)
    assert result.code == 6
    assert "the toy broke" in result.err
    assert "kept in speech.wav" in result.err
    assert "Traceback" not in result.err
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert file.getnframes() > 100


LONG = "This is a rather long text that goes on and on. " * 400


def start(arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "sonant", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("suffix", ["wav", pytest.param("mp3", marks=pytest.mark.slow)])
def test_ctrl_c_stops_at_once_and_leaves_a_file_that_plays(tmp_path, suffix):
    process = start(["say", LONG, "-o", f"long.{suffix}", "--stream"], tmp_path)
    target = tmp_path / f"long.{suffix}"
    while process.poll() is None and not (target.exists() and target.stat().st_size > 60_000):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"stopped by Ctrl-C" in err
    assert b"Traceback" not in err
    assert Audio.read(target).seconds > 1


def test_a_reader_that_leaves_ends_the_speaking(tmp_path):
    process = start(["say", LONG, "-o", "-", "--stream"], tmp_path)
    assert process.stdout.read(4) == b"RIFF"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert b"Traceback" not in err


def test_a_memory_limit_that_nothing_fits_is_refused_before_loading(sonant):
    result = sonant("say", "hello", "--model", "nano", "--memory-limit", "20MB")
    assert result.code == 2
    assert "nano needs about" in result.err
    assert "the memory limit is 20 MB. Give a higher one" in result.err
    assert "--precision" not in result.err  # the narrowest was tried
    assert "expected a number with a unit" in sonant("say", "hello", "--memory-limit", "a lot").err


def test_a_memory_limit_is_told_when_precision_gives_way(sonant, monkeypatch, tmp_path):
    plan = Plan(
        dtype="float32", precision="int8", slots=1, needed=1, cache_positions=5000, ordinary_positions=1,
        remarks=("nano does not fit 1.0 GB in lossless; it is loaded in int8",),
    )  # fmt: skip
    monkeypatch.setattr("sonant.catalogue.registry.plan", lambda *args, **options: plan)
    result = sonant(
        *("say", "Hello there.", "--model", "nano", "--memory-limit", "1GB", "--receipt", "-o", "a.wav")
    )
    assert result.code == 0
    assert "warning: nano does not fit 1.0 GB in lossless; it is loaded in int8" in result.err
    receipt = json.loads((tmp_path / "a.wav.receipt.json").read_text())
    assert receipt["job"]["precision"] == "int8", "a replay speaks in the same precision"


def test_a_plan_without_room_for_the_past_of_streams_is_kept(sonant, toy, monkeypatch):
    plan = Plan(
        dtype="float32", precision="full", slots=1, needed=1, cache_positions=5000, ordinary_positions=1,
        keeps_past=False,
    )  # fmt: skip
    monkeypatch.setattr("sonant.catalogue.registry.plan", lambda *args, **options: plan)
    toy.keeps_past = True
    said = sonant("say", "Hello there.", "--memory-limit", "1GB")
    assert said.code == 0, said.err
    assert toy.keeps_past is False


def test_finding_what_auto_is_counts_as_loading_and_comes_after_the_player(sonant, toy, monkeypatch):
    clock = [0.0]

    def fit(self, job):
        clock[0] += 5.0  # torch, and on a first run the kernels
        return job

    monkeypatch.setattr("sonant.cli.speaking.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("sonant.cli.speaking.Fitting.__call__", fit)
    assert json.loads(sonant("say", "Hello there.", "--json").text)["timings"]["load"] == 5.0
    monkeypatch.setattr("sonant.audio.player.PROGRAMS", [])
    assert sonant("say", "Hello there.", "--play").code != 0
    assert clock == [5.0]
