"""The command line answers at once: help is light, completion works, every command has help."""

import itertools
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from sonant import __version__
from sonant.cli.app import main, meant, tree

app = tree()

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "soundfile",
    "av",
    "onnxruntime",
    "huggingface_hub",
    "safetensors",
    "hibari",
}


def commands():
    def walk(command, path):
        for name, child in getattr(command, "commands", {}).items():
            yield (*path, name), child
            yield from walk(child, (*path, name))

    return list(walk(get_command(app), ()))


@pytest.mark.parametrize(
    ("typed", "meant_as"),
    [
        ("help", "--help"),
        ("help voice add", "voice add --help"),
        ("version", "--version"),
        ("say -5", "say -- -5"),
        ("say -5 -o x.wav", "say -o x.wav -- -5"),
        ("say '-5 degrees, they said.' --speed 2", "say --speed 2 -- '-5 degrees, they said.'"),
        ("text '- one item'", "text -- '- one item'"),
        ("say -o x.wav hello", None),
        ("say -5 degrees", None),
        ("say '--output=my file.wav' hello", None),
        ("say '-omy file.wav' hello", None),
        ("say '--otput=my file.wav' hello", None),  # misspelled: told, not said
        ("say --otput -o x.wav", None),
        ("say '--voice ann' hello", None),
        ("say '-Nein! sagte er.'", "say -- '-Nein! sagte er.'"),
        ("say -Nein! --speed 2", "say --speed 2 -- -Nein!"),
        ("say '--flag x'", "say -- '--flag x'"),
        ("say '-hello there'", "say -- '-hello there'"),  # nothing follows -h
        ("text '-a = b' --json", "text --json -- '-a = b'"),
        ("say ---", None),
        ("say - -o x.wav", None),
        ("say hello --loudness -16", None),
        ("say '- a' -- -b", None),
        ("read -5", None),
        ("", None),
    ],
)
def test_what_is_typed_is_taken_as_it_was_meant(typed, meant_as):
    assert meant(shlex.split(typed)) == shlex.split(typed if meant_as is None else meant_as)


def test_a_text_in_place_of_a_command_tells_the_command(sonant):
    result = sonant("Isn't it late?")
    assert result.code == 2
    assert """sonant say 'Isn'"'"'t it late?'""" in result.err
    long = "One word more, " * 20 + "and the end."
    assert f"sonant say '{long}'" in sonant(long).err, "what is said is the whole"
    assert "sonant say -- '--voice ann'" in sonant("--voice ann").err


def test_what_is_typed_is_left_to_be_expanded_where_the_shell_does_not(monkeypatch):
    """On Windows; typer does it only where it is given no words of its own."""
    seen = []

    def grown(only):
        return lambda *args, **options: seen.append((args, options, sys.argv[1:]))

    monkeypatch.setattr("sonant.cli.app.tree", grown)
    for typed, words in (("measure *.wav", ["measure", "*.wav"]), ("help say", ["say", "--help"])):
        monkeypatch.setattr(sys, "argv", ["sonant", *typed.split()])
        main()
        assert seen.pop() == ((), {"prog_name": "sonant"}, words)


@pytest.mark.parametrize("words", [["-h"], ["say", "-h"], ["voice", "add", "-h"], ["help", "text"]])
def test_short_words_for_help(sonant, words):
    result = sonant(*words)
    assert result.code == 0
    assert "Usage: sonant" in result.text


def calls_made(script):
    """Calls of a Python process that runs the script, the same everywhere; what it loaded and printed."""
    counted = (
        "import sys\ncalls = 0\ndef count(frame, event, given):\n    global calls\n"
        "    calls += event in ('call', 'c_call')\nsys.setprofile(count)\n"
        f"try:\n{textwrap.indent(script, '    ')}\nfinally:\n    sys.setprofile(None)\n"
        "    print(calls, *{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-X", "frozen_modules=on", "-c", counted]
    for _ in range(2):  # what has to be compiled first is compiled by then
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    calls, *loaded = done.stderr.split()
    return int(calls), set(loaded), done.stdout


def test_help_loads_nothing_heavy_and_is_quick():
    """Against the help of one empty command: what Typer itself takes."""
    empty = (
        "import sys, typer\nsys.argv = ['x', '--help']\napp = typer.Typer()\n"
        "app.command()(lambda: None)\napp(standalone_mode=False)"
    )
    script = "import sys\nsys.argv = ['sonant', '--help']\nfrom sonant.cli import main\nmain()"
    ours, loaded, told = calls_made(script)
    theirs, _, _ = calls_made(empty)
    assert "say" in told
    assert HEAVY.isdisjoint(loaded)
    assert ours < 2.5 * theirs


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_has_help(sonant, path):
    result = sonant(*path, "--help")
    assert result.code == 0
    assert "Usage" in result.text


def test_every_command_and_option_says_what_it_is():
    plain = {"help", "install_completion", "show_completion"}
    knobs = {
        "greedy",
        "temperature",
        "repetition_penalty",
        "beams",
        "length_penalty",
        "flow_steps",
        "guidance",
    }
    for path, command in commands():
        assert command.help, path
        for parameter in command.params:
            known = parameter.name in plain | knobs or parameter.name.startswith(("predictor_", "max_frames"))
            assert known or getattr(parameter, "help", None), (path, parameter.name)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sonant sa", "say"),
        ("sonant say --format fl", "flac"),
        ("sonant say --model qwen3-tts-0.6b-b", "qwen3-tts-0.6b-base"),
        ("sonant say --voice he", "heart"),
        ("sonant say --model nano --voice s", "sona"),
    ],
)
def test_the_shell_completes_commands_and_names(words, offered):
    environment = {
        "_SONANT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "HOME": "/tmp",
    }
    script = "import sys; sys.argv = ['sonant']; from sonant.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert offered in done.stdout.split()


def test_the_version_is_told(sonant):
    result = sonant("--version")
    assert (result.code, result.text) == (0, f"sonant {__version__}\n")


@pytest.mark.parametrize("command", [("serve",), ("studio", "--no-browser"), ("key", "keys.txt")], ids=str)
def test_without_the_server_extra_one_line_says_so(sonant, monkeypatch, command):
    for name in ("fastapi", "multipart"):
        monkeypatch.setitem(sys.modules, name, None)
    result = sonant(*command)
    assert result.code == 9
    assert result.err.count("\n") == 1
    assert "needs fastapi, multipart" in result.err
    assert "pip install 'sonant[server]'" in result.err


def documented():
    """Every command line of the README and the documentation."""
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        for block in re.findall(
            r"```(?:sh|bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
        ):
            for line in block.replace("\\\n", " ").splitlines():
                if command := re.search(r"(?:^|\| |\$ )sonant (.*)", line):
                    yield page.name, command[1]


@pytest.mark.parametrize(("page", "line"), list(documented()))
def test_documented_commands_parse(page, line):
    words = list(itertools.takewhile(lambda word: word not in {">", "|"}, shlex.split(line, comments=True)))
    command, name = get_command(app), "sonant"
    while words and hasattr(command, "commands") and words[0] in command.commands:
        name = words.pop(0)
        command = command.commands[name]
    if words in (["--help"], ["--install-completion"]):
        return
    command.make_context(name, words)


def test_a_mistyped_command_is_a_usage_error(sonant):
    result = sonant("sya")
    assert result.code == 2
    assert "sya" in result.err
    assert typer.__name__ not in result.err
