"""One text in every mode that a model has: clips, figures and a page to listen to them side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sonant.audio.measure import measure
from sonant.engine.engine import Engine
from sonant.errors import RequestError, SonantError
from sonant.files import write_atomically
from sonant.readings.delivery import deliver
from sonant.readings.job import Job
from sonant.readings.receipt import versions
from sonant.readings.suite_page import page
from sonant.readings.takes import Material, Mode, Take
from sonant.request.audio import Audio
from sonant.request.checks import make_folder
from sonant.request.speech import EMOTIONS, ModelSpec, SpeechRequest, Style
from sonant.request.voice import Voice

INSTRUCTION = "Speak slowly and cheerfully."
DESCRIPTION = "A calm, low male voice with a warm tone."
EMOTION_TEXT = "I am so happy that you are here at last!"
REPORT = "metrics_report.json"
PAGE = "index.html"


def modes(spec: ModelSpec, material: Material) -> list[Mode]:
    """Every mode that the capabilities allow, from the plainest on.

    Raises RequestError when the model needs a clip and there is none.
    """
    can = spec.capabilities
    clip, made = material.clip, []
    voice: Voice | str | None = spec.voices[0] if "preset_voice" in can and spec.voices else None
    if voice is None and "clone" in can:
        if clip is None:
            raise RequestError(
                f"{spec.name} speaks only with a cloned voice and no clip was given; expected one of 5 to "
                "15 s. Add --voice clip.wav.",
                field="voice",
            )
        voice = Voice(name="clip", clip=clip)
    base = SpeechRequest(material.text, voice=voice, language=material.language, seed=material.seed)
    if spec.needs_instruction:
        base = replace(base, style=Style(instruction=DESCRIPTION))
        made.append(Mode(name="design", about=f"a voice made from words: {DESCRIPTION}", request=base))
    elif isinstance(voice, Voice):
        made.append(Mode(name="clone", about="the clip's voice", request=base))
    else:
        made.append(Mode(name="plain", about=f"voice {voice or 'of the model'}", request=base))

    def add(name: str, about: str, is_streamed: bool = False, **changes: Any) -> None:
        request = replace(base, **changes)
        made.append(Mode(name=name, about=about, request=request, is_streamed=is_streamed))

    if "preset_voice" in can:
        for name in spec.voices[1:]:
            add(f"voice_{name}", f"voice {name}", voice=name)
    if clip is not None and "clone" in can and not isinstance(voice, Voice):
        add("clone", "the clip's voice", voice=Voice(name="clip", clip=clip))
    if clip is not None and "clone_in_context" in can and material.transcript is not None:
        known = Voice(name="clip", clip=clip, transcript=material.transcript)
        add("clone_in_context", "the clip's voice, with its transcript", voice=known)
    if "instruction" in can and not spec.needs_instruction:
        add("instruction", f"told: {INSTRUCTION}", style=Style(instruction=INSTRUCTION))
    emotion = material.emotion_clip or clip
    if "emotion_audio" in can and emotion is not None:
        add("emotion_audio", "the emotion of a clip", style=Style(emotion_audio=emotion))
        blend = Style(emotion_audio=emotion, emotion_strength=0.5)
        add("emotion_blend", "half the emotion of a clip", style=blend)
    if "emotion_vector" in can:
        vector = tuple(0.8 if name == "happy" else 0.0 for name in EMOTIONS)
        add("emotion_vector", "happy 0.8", style=Style(emotion_vector=vector))
    if "emotion_text" in can:
        add("emotion_text", f"the emotion of: {EMOTION_TEXT}", style=Style(emotion_text=EMOTION_TEXT))
    if "speed" in can:
        add("speed", "1.3 times as fast", speed=1.3)
    if "text_layout" in can:
        for layout in ("full", "progressive"):
            add(f"layout_{layout}", f"{layout} text layout", text_layout=layout)
    if "voice_conversion" in can and clip is not None:
        add("conversion", "the clip said again by its own voice", text="", source_audio=clip)
    if "frame_streaming" in can:
        add("stream", "the first mode again, streamed", is_streamed=True)
    return made


def run_suite(
    engine: Engine,
    material: Material,
    folder: Path,
    *,
    on_take: Callable[[Take, int], None] = lambda take, total: None,
) -> list[Take]:
    """Speak every mode into `folder`, write the report and the page.

    A mode that fails is reported, not fatal.
    """
    planned = modes(engine.spec, material)
    make_folder(folder)
    takes = []
    for mode in planned:
        take = _speak(engine, mode, folder)
        takes.append(take)
        on_take(take, len(planned))
    data = json.dumps(report(engine.spec, material, takes), indent=2) + "\n"
    write_atomically(folder / REPORT, data.encode(), is_private=False)
    listening = page(engine.spec, material, takes, folder)
    write_atomically(folder / PAGE, listening.encode("utf-8", "replace"), is_private=False)
    return takes


def _speak(engine: Engine, mode: Mode, folder: Path) -> Take:
    path = folder / f"{mode.name}.wav"
    try:
        stream = engine.submit(mode.request, streaming=mode.is_streamed)
        job = Job(text=mode.request.text, is_streamed=mode.is_streamed, de_rumble="off", loudness=None)
        outcome = deliver(stream, job, target=path)
        audio = Audio.read(path)
        return Take(
            mode=mode,
            file=path.name,
            measurement=measure(audio.samples, audio.sample_rate),
            seconds=outcome.seconds,
            first_audio=outcome.timings.get("first_audio", 0.0),
            total=outcome.timings.get("total", 0.0),
            guards=tuple(guard.message for guard in outcome.guards),
        )
    except SonantError as error:
        return Take(mode=mode, error=str(error))


def report(spec: ModelSpec, material: Material, takes: list[Take]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON."""
    return {
        "model": {"name": spec.name, "family": spec.family, "fingerprint": spec.fingerprint},
        "capabilities": sorted(spec.capabilities),
        "text": material.text,
        "seed": material.seed,
        "versions": versions(),
        "modes": [
            {
                "name": take.mode.name,
                "about": take.mode.about,
                "file": take.file or None,
                "error": take.error or None,
                "seconds": round(take.seconds, 4),
                "first_audio": round(take.first_audio, 4),
                "total": round(take.total, 4),
                "real_time_factor": round(take.total / take.seconds, 4) if take.seconds else None,
                "streamed": take.mode.is_streamed,
                "guards": list(take.guards),
                "metrics": take.measurement.as_dict() if take.measurement is not None else None,
                "problems": list(take.measurement.problems()) if take.measurement is not None else [],
                "sampling": asdict(take.mode.request.sampling),
            }
            for take in takes
        ],
    }
