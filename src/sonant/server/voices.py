"""Routes of voices: list, add from a clip, design from words, hear, remove."""

from __future__ import annotations

import asyncio
import base64
import datetime
import io
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import Response

from sonant.audio.io import write_audio
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.request.audio import Audio
from sonant.request.voice import Voice
from sonant.server.auth import Caller, caller_of
from sonant.server.problems import HttpProblem, json_response
from sonant.server.schemas import DesignBody, Manner
from sonant.server.service import SpeechService
from sonant.server.shelves import OWNER
from sonant.voices.design import designed_voice
from sonant.voices.doctor import Checkup, examine, refuse_hopeless
from sonant.voices.mending import mend as mended_clip
from sonant.voices.recogniser import Recogniser
from sonant.voices.speakers import load_encoder

ALL = "all"
"""Instead of a model's name: the voices of every model."""


def voice_routes(service: SpeechService) -> APIRouter:
    """The router; its routes close over the service."""
    router = APIRouter(tags=["voices"])
    listening = Listening()

    @router.get("/v1/audio/voices", summary="List voices")
    @router.get("/v1/voices", include_in_schema=False)
    @router.get("/audio/voices", include_in_schema=False)
    async def list_voices(request: Request, model: str | None = None) -> Response:
        """What one model speaks with, its own voices and the stored ones: the first model's without `model`,
        every model's with `model=all`. `uploaded_voices` are all that are stored."""
        entries = await asyncio.to_thread(list_entries, service, model, caller_of(request.scope))
        stored = await asyncio.to_thread(_stored, service, caller_of(request.scope))
        return json_response(
            {"object": "list", "data": entries, "voices": entries, "uploaded_voices": stored}
        )

    @router.post("/v1/audio/voices", summary="Add a voice from a clip", status_code=201)
    async def add_voice(
        request: Request,
        name: Annotated[str, Form(max_length=200, description="a-z 0-9 . _ -, at most 64 characters.")],
        consent: Annotated[
            str,
            Form(
                min_length=1, max_length=2_000, description="Who agreed to the use of this voice, in words."
            ),
        ],
        audio_sample: Annotated[UploadFile, File(description="5 to 15 s of clear speech.")],
        ref_text: Annotated[str | None, Form(max_length=10_000, description="What the clip says.")] = None,
        language: Annotated[str | None, Form(max_length=200)] = None,
        shared: Annotated[bool, Form(description="For every key, where a server has several.")] = False,
    ) -> Response:
        """Keep a clip as a voice. Every model that can clone speaks with it."""
        caller = caller_of(request.scope)
        _check_name(service, name, caller)
        if consent.strip().lower() in ("", "no", "false", "0", "none"):
            raise RequestError(
                "consent says no. A voice belongs to a person; add it only with their agreement.",
                field="consent",
            )
        async with service.long_turn(caller):
            data = await audio_sample.read(service.settings.uploads.max_bytes + 1)
            audio = await service.clips.decode(data, "audio_sample", caller.id)
            voice = Voice(
                name=name,
                clip=audio,
                transcript=(ref_text or "").strip() or None,
                language=(language or "").strip() or None,
                origin={"made": _today(), "consent": consent.strip()},
            )
            checkup = await asyncio.to_thread(
                lambda: examine(
                    audio, transcript=voice.transcript, language=voice.language, encoder=load_encoder()
                )
            )
        refuse_hopeless(checkup, field="audio_sample")
        await _keep(service, voice, caller, is_shared=shared)
        remarks = [remark.as_dict() for remark in checkup.advice]
        return json_response(
            {**_stored_entry(voice), "is_good": checkup.is_good, "advice": remarks}, status=201
        )

    @router.post("/v1/audio/voices/check", summary="Examine a clip before it becomes a voice")
    async def check_clip(
        request: Request,
        audio_sample: Annotated[UploadFile, File(description="5 to 15 s of clear speech.")],
        ref_text: Annotated[str | None, Form(max_length=10_000, description="What the clip says.")] = None,
        language: Annotated[str | None, Form(max_length=200)] = None,
        transcribe: Annotated[bool, Form(description="Let a recogniser listen, where one is there.")] = False,
        mend: Annotated[bool, Form(description="Answer with a mended clip too.")] = False,
    ) -> Response:
        """What `sonant voice check` says of a clip: figures and advice. Nothing is kept. With `mend` also the
        clip mended gently, as wav in base64, what was done to it, and what is said of it then."""
        told = {"transcript": (ref_text or "").strip() or None, "language": (language or "").strip() or None}
        listener = await listening.open() if transcribe else None
        caller = caller_of(request.scope)
        async with service.long_turn(caller):
            data = await audio_sample.read(service.settings.uploads.max_bytes + 1)
            audio = await service.clips.decode(data, "audio_sample", caller.id)
            document = await _examined(audio, listener, **told)
            if mend:
                mended = await asyncio.to_thread(mended_clip, audio, may_cut=told["transcript"] is None)
                wav = await asyncio.to_thread(_wav, mended.audio)
                after = await _examined(mended.audio, None, **told)
                sound = {"audio": base64.b64encode(wav).decode(), "format": "wav"}
                document["mended"] = {**after, "done": list(mended.done), **sound}
        return json_response(document)

    @router.post("/v1/audio/voices/design", summary="Make a voice from a description", status_code=201)
    async def design_voice(body: DesignBody, request: Request) -> Response:
        """Speak a sentence in the described voice and keep it as the clip of a new voice."""
        caller = caller_of(request.scope)
        _check_name(service, body.name, caller)
        # The clip of a voice is what the model said.
        said = body.model_dump(include={"model", "instructions", "language", "seed"}, exclude_none=True)
        manner = Manner.model_validate(said | {"loudness": "off"})
        name = service.pool.resolve(body.model)
        async with service.pool.use(name) as loaded:
            if "voice_design" not in loaded.spec.capabilities:
                raise UnsupportedError(
                    f"{name} cannot design voices. Choose a model that lists voice_design.", field="model"
                )
            state = request.state
            pieces = []
            async with service.speaking(
                manner,
                body.input,
                caller=caller,
                request_id=state.request_id,
                arrived=state.arrived,
                streaming=False,
            ) as speaking:
                is_final = False
                while not is_final:
                    chunk = await speaking.next()
                    is_final = chunk.is_final
                    pieces.append(chunk.samples)
                stream = speaking.chunks.stream
                speech = Audio(np.concatenate(pieces), speaking.sample_rate)
            voice = designed_voice(speech, stream.guards, stream.request, loaded.spec, name=body.name)
        await _keep(service, voice, caller, is_shared=body.shared)
        return json_response(_stored_entry(voice), status=201)

    @router.get("/v1/audio/voices/{name}", summary="Describe a stored voice")
    async def describe_voice(name: str, request: Request) -> Response:
        """Its transcript, length and origin."""
        voice = await asyncio.to_thread(service.shelves.get, caller_of(request.scope), name)
        return json_response(_stored_entry(voice))

    @router.get("/v1/audio/voices/{name}/clip", summary="Hear a stored voice's clip")
    async def clip_of_voice(name: str, request: Request) -> Response:
        """The reference clip as wav."""
        voice = await asyncio.to_thread(service.shelves.get, caller_of(request.scope), name)
        if voice.clip is None:
            raise HttpProblem(404, "no_clip", f"the voice {name!r} keeps no clip.", param="name")
        return Response(await asyncio.to_thread(_wav, voice.clip), media_type="audio/wav")

    @router.delete("/v1/audio/voices/{name}", summary="Remove a stored voice")
    async def remove_voice(name: str, request: Request) -> Response:
        """Delete the voice's file."""
        await asyncio.to_thread(service.shelves.remove, caller_of(request.scope), name)
        return json_response({"id": name, "object": "voice.deleted", "deleted": True})

    return router


class Listening:
    """The recogniser, opened when first asked for. One listens at a time."""

    def __init__(self) -> None:
        self._recogniser: Recogniser | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> Recogniser:
        """Raises DependencyError where none is installed."""
        async with self._turn:
            if self._recogniser is None:
                self._recogniser = await asyncio.to_thread(Recogniser)
            return self._recogniser


async def _examined(
    audio: Audio, recogniser: Recogniser | None, *, transcript: str | None, language: str | None
) -> dict[str, Any]:
    def work() -> Checkup:
        encoder = load_encoder()
        return examine(
            audio, transcript=transcript, language=language, encoder=encoder, recogniser=recogniser
        )

    checkup = await asyncio.to_thread(work)
    return {
        "object": "voice.check",
        "is_good": checkup.is_good,
        "is_hopeless": any(remark.is_hopeless for remark in checkup.advice),
        "advice": [remark.as_dict() for remark in checkup.advice],
        "measurement": checkup.measurement.as_dict(),
        "heard": checkup.heard.text if checkup.heard is not None else None,
    }


def _wav(audio: Audio) -> bytes:
    target = io.BytesIO()
    write_audio(target, audio.samples, audio.sample_rate, format="wav")
    return target.getvalue()


def _check_name(service: SpeechService, name: str, caller: Caller) -> None:
    try:
        service.shelves.shared.path(name)
    except VoiceError as error:
        raise RequestError(str(error), field="name") from error
    if service.shelves.has(caller, name):
        raise RequestError(
            f"a voice named {name!r} exists already. Choose another name, or remove it first.", field="name"
        )
    for model in service.pool.names:  # a stored voice may hide no model's own, loaded now or not
        spec = service.pool.spec(model)
        if spec is not None and name in (own.lower() for own in spec.voices):
            raise RequestError(f"{name!r} is a voice of {model}. Choose another name.", field="name")
    if name in service.settings.voice_aliases:
        raise RequestError(
            f"{name!r} stands for another voice here (--voice-alias). Choose another name.", field="name"
        )


async def _keep(service: SpeechService, voice: Voice, caller: Caller, *, is_shared: bool) -> None:
    shelf = service.shelves.shared if is_shared else service.shelves.own(caller)
    if is_shared and caller.has_own_shelf:
        voice = replace(voice, origin={**voice.origin, OWNER: caller.id})
    if len(await asyncio.to_thread(shelf.names)) >= service.settings.stored_voices:
        raise RequestError(
            f"{service.settings.stored_voices} voices are stored, the most allowed. Remove one first.",
            field="name",
        )
    try:
        await asyncio.to_thread(shelf.add, voice)
    except VoiceError as error:  # taken meanwhile
        raise RequestError(str(error), field="name") from error


def list_entries(service: SpeechService, model: str | None, caller: Caller) -> list[dict[str, Any]]:
    """Voices that a model, or the first, or all of them (ALL) speak with."""
    names = (
        service.pool.names
        if model == ALL and ALL not in service.pool.names
        else [service.pool.resolve(model)]
    )
    entries: dict[str, dict[str, Any]] = {}
    can_clone = []
    for name in names:
        spec = service.pool.spec(name)
        if spec is None:
            continue
        if "clone" in spec.capabilities:
            can_clone.append(name)
        for voice in spec.voices:
            entry = entries.setdefault(voice, _entry(voice, "preset", []))
            entry["models"].append(name)
            entry.setdefault("language", spec.voice_languages.get(voice))
    for voice in service.shelves.names(caller) if can_clone else []:
        entries.setdefault(voice, _entry(voice, "stored", can_clone))
    return list(entries.values())


def _stored(service: SpeechService, caller: Caller) -> list[dict[str, Any]]:
    specs = {name: service.pool.spec(name) for name in service.pool.names}
    can_clone = [name for name, spec in specs.items() if spec is not None and "clone" in spec.capabilities]
    return [_entry(voice, "stored", can_clone) for voice in service.shelves.names(caller)]


def _entry(voice: str, kind: str, models: list[str]) -> dict[str, Any]:
    # voice_id is ElevenLabs' name of it.
    ids = {"id": voice, "voice_id": voice, "name": voice}
    return {**ids, "object": "voice", "kind": kind, "models": models}


def _stored_entry(voice: Voice) -> dict[str, Any]:
    return {
        "id": voice.name,
        "name": voice.name,
        "object": "voice",
        "kind": "stored",
        "transcript": voice.transcript,
        "language": voice.language,
        "seconds": round(voice.clip.seconds, 3) if voice.clip is not None else None,
        "origin": {key: value for key, value in voice.origin.items() if key != OWNER},
    }


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
