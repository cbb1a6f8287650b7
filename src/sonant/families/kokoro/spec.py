"""What a Kokoro folder is and can do, from the names of its files."""

from __future__ import annotations

from pathlib import Path

from sonant.checkpoints.files import fingerprint
from sonant.checkpoints.hub_cache import model_name
from sonant.errors import CheckpointError
from sonant.families.kokoro.front_end import is_readable
from sonant.request.speech import ModelSpec

GRAPHS = ("model_quantized", "model", "model_fp16")
"""Smallest first; on a CPU the quantised one is also the fastest."""
GRAPH_OF = {"full": "model", "fp16": "model_fp16", "quantized": "model_quantized"}
SAMPLE_RATE = 24_000
LANGUAGES = {
    "a": "english", "b": "english", "e": "spanish", "f": "french", "h": "hindi", "i": "italian",
    "j": "japanese", "p": "portuguese", "z": "chinese",
}  # fmt: skip
"""First letter of a voice's name -> the language it was trained in; a is American English, b is British."""
BRITISH = "b"
BEST = "af_heart"
"""The voice that its maker grades best."""
ALIASES = {
    "alloy": "af_alloy", "ash": "am_michael", "ballad": "bm_george", "cedar": "am_fenrir",
    "coral": "af_bella", "echo": "am_echo", "fable": "bm_fable", "marin": "af_heart", "nova": "af_nova",
    "onyx": "am_onyx", "sage": "af_sarah", "shimmer": "af_aoede", "verse": "am_puck",
}  # fmt: skip
"""OpenAI's voices by the voice of the same name where there is one, else by one of a like kind."""


def graph_file(folder: Path, variant: str | None) -> Path:
    """The graph that is run. Raises CheckpointError."""
    names = GRAPHS if variant is None else (GRAPH_OF[variant],)
    for name in names:
        if (folder / "onnx" / f"{name}.onnx").is_file():
            return folder / "onnx" / f"{name}.onnx"
    raise CheckpointError(
        f"{folder / 'onnx'} has none of {', '.join(f'{name}.onnx' for name in names)}; expected one of them. "
        "Fetch it with: sonant pull kokoro"
    )


def voice_files(folder: Path) -> dict[str, Path]:
    """Name -> style vectors of each voice of a known language."""
    files = sorted((folder / "voices").glob("*.bin"))
    return {file.stem: file for file in files if file.stem[:1] in LANGUAGES and file.stem[2:3] == "_"}


def kokoro_spec(folder: Path, variant: str | None = None) -> ModelSpec:
    """The spec of a folder. Raises CheckpointError."""
    graph, voices = graph_file(folder, variant), tuple(voice_files(folder))
    if not voices:
        raise CheckpointError(
            f"{folder / 'voices'} has no style vectors such as {BEST}.bin; expected one file a voice. Fetch "
            "them with: sonant pull kokoro"
        )
    name = model_name(folder.resolve())
    return ModelSpec(
        family="kokoro",
        name=name if variant is None else f"{name}:{variant}",
        fingerprint=fingerprint(folder, [f"onnx/{graph.name}", "tokenizer.json"]),
        sample_rate=SAMPLE_RATE,
        frame_rate=12.5,  # phonemes a second of ordinary speech: there are no frames
        # What can be read here: a text's language is looked for among these.
        languages=tuple(sorted({"english", *filter(is_readable, (LANGUAGES[voice[0]] for voice in voices))})),
        voices=voices,
        default_voice=BEST if BEST in voices else voices[0],
        voice_languages={voice: LANGUAGES[voice[0]] for voice in voices},
        voice_aliases={alias: voice for alias, voice in ALIASES.items() if voice in voices},
        capabilities=frozenset({"preset_voice", "voice_mixing", "speed", "pronunciation", "seed"}),
        streams_by="segment",
        front_ends=("sonant", "original"),  # reading numbers is part of finding phonemes
        licence="Apache-2.0 (hexgrad's Kokoro-82M; the export has the same)",
        note="the first letter of a voice's name is its language: "
        + ", ".join(f"{letter} {language}" for letter, language in LANGUAGES.items()),
    )
