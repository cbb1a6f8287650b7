"""Speaking for HTTP: a body becomes running speech, with its model, voice, limits and record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from sonant.audio.loudness import Leveller
from sonant.errors import CancelledError, RequestError, SonantError, UnsupportedError, VoiceError, describe
from sonant.request.settings import BY_NAME, SETTINGS, read_level
from sonant.request.speech import AudioChunk, SpeechRequest, TextFeed
from sonant.request.voice import Voice
from sonant.server.auth import Caller
from sonant.server.desk import AsyncStream
from sonant.server.metrics import Metrics, Record
from sonant.server.models import LoadedModel, ModelPool
from sonant.server.problems import HttpProblem
from sonant.server.schemas import Manner, to_request, unused_fields
from sonant.server.settings import OPENAI_VOICES, ServerSettings
from sonant.server.shelves import Shelves
from sonant.server.uploads import Clips
from sonant.voices.finding import find_voice, has_voice
from sonant.voices.library import VoiceLibrary

_TASKS = {"CustomVoice": "preset_voice", "VoiceDesign": "voice_design", "Base": "clone"}


@dataclass
class Speaking:
    """Speech under way, and what is known of it."""

    chunks: AsyncStream
    record: Record
    arrived: float
    sample_rate: int
    leveller: Leveller | None = None
    """Brings the sound to the loudness asked for; None leaves it."""
    volume: float = 1.0
    unused: tuple[str, ...] = ()
    """Fields of the body that do nothing here."""
    is_limited: bool = False
    """True once a sample was held at full scale because of the volume."""

    async def next(self) -> AudioChunk:
        """The next chunk."""
        chunk = await self.chunks.next()
        if self.leveller is not None:
            chunk = replace(chunk, samples=self.leveller.push(chunk.samples))
        if self.volume == 1.0:
            return chunk
        louder = chunk.samples * np.float32(self.volume)
        held = np.clip(louder, -1.0, 1.0)
        self.is_limited = self.is_limited or bool((held != louder).any())
        return replace(chunk, samples=held)

    def guards(self) -> list[dict[str, Any]]:
        """What the engine stopped or mended so far, as plain data."""
        found = [
            {"kind": guard.kind, "message": guard.message, "segment": guard.segment}
            for guard in list(self.chunks.stream.guards)
        ]
        if self.is_limited:
            message = f"volume {self.volume:g} took samples beyond full scale, where they were held"
            found.append({"kind": "peak_limited", "message": message, "segment": 0})
        return found

    def sent(self) -> None:
        """Sound has just left for the client."""
        if self.record.first_audio is None:
            self.record.first_audio = time.monotonic() - self.arrived


class SpeechService:
    """What the routes share: settings, models, voices, clips and metrics of one app."""

    def __init__(
        self, settings: ServerSettings, pool: ModelPool, library: VoiceLibrary, metrics: Metrics, clips: Clips
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.shelves = Shelves(library)
        self.metrics = metrics
        self.clips = clips
        self.own_sound_limits = replace(
            settings.uploads, max_bytes=settings.max_body, max_seconds=3600.0, max_channels=1,
            max_samples=settings.max_body // 2,
        )  # fmt: skip
        """Of speech that comes back to be packed in another format: as long as a body of wav may be, in
        whatever format it comes."""
        self.clients: Counter[str] = Counter()
        self.sockets: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def speaking(
        self,
        body: Manner,
        text: str,
        *,
        caller: Caller,
        request_id: str,
        arrived: float,
        streaming: bool = True,
        response_format: str = "",
        text_feed: TextFeed | None = None,
    ) -> AsyncIterator[Speaking]:
        """The request being spoken; however the block is left, work stops and the record is kept."""
        unused = self.check_fields(body)
        model = self.model_for(body, caller)
        self.check_text(text)
        volume = volume_of(body)
        loudness = self.settings.loudness
        if body.loudness is not None:
            loudness = read_level(BY_NAME["loudness"], body.loudness)
        record = Record(id=request_id, model=model, response_format=response_format, characters=len(text))
        record.owner = caller.id
        with self.turn_of(caller.id):
            self.metrics.begin(record)
            try:
                async with self.pool.use(model) as loaded:
                    request = await self.request(loaded, body, text, caller=caller, text_feed=text_feed)
                    submitted = loaded.desk.submit(
                        request, streaming=streaming, client=caller.id, priority=caller.priority
                    )
                    async with await submitted as chunks:
                        record.seed = chunks.stream.seed
                        voice = chunks.stream.request.voice
                        record.voice = (
                            voice if isinstance(voice, str) else (voice.name or "clip") if voice else ""
                        )
                        unused = list(dict.fromkeys([*unused, *unused_fields(body, loaded.spec)]))
                        rate = chunks.stream.sample_rate
                        leveller = Leveller(loudness, rate) if loudness is not None else None
                        speaking = Speaking(chunks, record, arrived, rate, leveller, volume, tuple(unused))
                        try:
                            yield speaking
                        finally:
                            _take_timings(speaking)
                record.outcome = "ok"
            except (asyncio.CancelledError, WebSocketDisconnect, ConnectionError, TimeoutError):
                record.outcome = "client_gone"
                raise
            except CancelledError:
                record.outcome = "cancelled"
                raise
            except SonantError as error:
                record.outcome = describe(error)[2]
                raise
            except HttpProblem as error:
                record.outcome = error.code
                raise
            except BaseException:
                record.outcome = "client_gone" if record.first_audio is not None else "internal_error"
                raise
            finally:
                record.seconds = time.monotonic() - arrived
                self.metrics.end(record)

    @contextlib.contextmanager
    def turn_of(self, client: str) -> Iterator[None]:
        """A request of a client, counted. Raises HttpProblem for one too many."""
        if self.clients[client] >= self.settings.max_per_client:
            raise HttpProblem(
                429,
                "too_many_requests",
                f"{self.clients[client]} requests of this client are running, the most at a time. "
                "Wait for one to end.",
                headers={"Retry-After": "1"},
            )
        self.clients[client] += 1
        try:
            yield
        finally:
            self.clients[client] -= 1
            if not self.clients[client]:
                del self.clients[client]

    @contextlib.asynccontextmanager
    async def long_turn(self, caller: Caller) -> AsyncIterator[None]:
        """A caller's turn for work on a clip, counted like a request. Raises HttpProblem for one too many."""
        with self.turn_of(caller.id):
            async with self.clips.long_turns.turn(caller.id):
                yield

    @contextlib.contextmanager
    def socket_of(self, client: str) -> Iterator[None]:
        """A WebSocket of a client, counted. Raises HttpProblem for one too many."""
        most = self.settings.max_sockets_per_client
        if self.sockets[client] >= most:
            raise HttpProblem(
                429, "too_many_sockets", f"{most} WebSockets of this client are open. Close one first."
            )
        self.sockets[client] += 1
        try:
            yield
        finally:
            self.sockets[client] -= 1
            if not self.sockets[client]:
                del self.sockets[client]

    def check_fields(self, body: Manner) -> list[str]:
        """Fields that do nothing here. Raises HttpProblem for them where fields are strict."""
        unused = unused_fields(body)
        if unused and self.settings.strict_fields:
            name = unused[0].partition(" ")[0]
            raise HttpProblem(
                400,
                "unknown_field",
                f"there is no field {unused[0]}. Leave it out, or look for its name at /docs.",
                param=name,
            )
        return unused

    def model_for(self, body: Manner, caller: Caller) -> str:
        """The model a body asks for; where it names none of this server's, its voice decides.

        Raises HttpProblem 404.
        """
        model = self.pool.resolve(body.model)
        name = body.voice_name
        if name is None or not self.pool.is_open(body.model):
            return model
        name = self.settings.voice_aliases.get(name, name)
        others = [other for other in self.pool.names if other != model]
        return next((m for m in (model, *others) if self._speaks(m, name, caller)), model)

    async def check_voices(self, bodies: Sequence[Manner], caller: Caller) -> None:
        """Raise what the voice of any of them would, before the first one speaks."""
        for body in {body.voice_name: body for body in bodies}.values():
            name, spec = body.voice_name, self.pool.spec(self.model_for(body, caller))
            if name is not None and spec is not None:
                meant = self.settings.voice_aliases.get(name, name)
                shelf = self.shelves.view(caller)
                await asyncio.to_thread(find_voice, meant, spec=spec, shelf=shelf, equals=OPENAI_VOICES)

    def _speaks(self, model: str, voice: str, caller: Caller) -> bool:
        """Whether a model has this voice or can take it from the library; not whether it has an equal."""
        spec = self.pool.spec(model)
        try:
            return spec is not None and has_voice(voice, spec, self.shelves.view(caller))
        except VoiceError:  # a mixture that this model cannot make; another may know the name
            return False

    def check_text(self, text: str) -> None:
        """Raise HttpProblem 400 for one that is too long; before anything reads it."""
        if len(text) > self.settings.max_input:
            raise HttpProblem(
                400,
                "input_too_long",
                f"input has {len(text):,} characters; at most {self.settings.max_input:,} are allowed.",
                param="input",
            )

    async def request(
        self,
        loaded: LoadedModel,
        body: Manner,
        text: str,
        *,
        caller: Caller,
        text_feed: TextFeed | None = None,
    ) -> SpeechRequest:
        """The library's request, with clips decoded and the voice fitted to the model."""
        can = loaded.spec.capabilities
        if body.task_type is not None and _TASKS[body.task_type] not in can:
            raise UnsupportedError(
                f"{loaded.name} cannot do {body.task_type} ({_TASKS[body.task_type]}). Choose another model.",
                field="task_type",
            )
        # Checked before a clip is decoded for nothing; the engine checks everything once more.
        sounds = {
            row: given
            for row in SETTINGS
            if row.kind == "clip" and (given := getattr(body, row.field_name, None)) is not None
        }
        wanted = [("clone", "ref_audio")] if body.ref_audio is not None else []
        wanted += [(need, row.field_name) for row in sounds for need in row.needs]
        for capability, name in wanted:
            if capability not in can:
                raise UnsupportedError(
                    f"{loaded.name} takes no {name} ({capability}). Leave it out or choose another model.",
                    field=name,
                )
        clips = {
            row.name: await self.clips.read(given, row.field_name, caller.id) for row, given in sounds.items()
        }
        voice = await self._voice(loaded, body, caller)
        deadline = self.settings.deadline_for(len(text))
        return to_request(
            body,
            text,
            voice=voice,
            clips=clips,
            text_feed=text_feed,
            designs_voices="voice_design" in can,
            deadline=deadline,
        )

    async def _voice(self, loaded: LoadedModel, body: Manner, caller: Caller) -> Voice | str | None:
        name = body.voice_name
        if body.ref_audio is not None:
            if name is not None and name.lower() not in OPENAI_VOICES:
                raise RequestError(
                    f"voice {name!r} and ref_audio were both given. Send one of them.", field="ref_audio"
                )
            transcript = None if body.x_vector_only_mode else body.ref_text or None
            audio = await self.clips.read(body.ref_audio, "ref_audio", caller.id)
            return await loaded.desk.voice_of_clip(audio, transcript, caller.id)
        for field, given in (("ref_text", body.ref_text), ("x_vector_only_mode", body.x_vector_only_mode)):
            if given:
                raise RequestError(f"{field} was sent without ref_audio. Add the clip.", field=field)
        if name is None:
            return None
        return await self.find_voice(loaded, name, caller)

    async def find_voice(self, loaded: LoadedModel, name: str, caller: Caller) -> Voice | str | None:
        """The voice a client means by a name: the model's own, a stored one, or an alias."""
        name = self.settings.voice_aliases.get(name, name)
        shelf = self.shelves.view(caller)
        try:
            find = partial(find_voice, name, spec=loaded.spec, shelf=shelf, equals=OPENAI_VOICES)
            voice = await asyncio.to_thread(find)
        except VoiceError as error:
            raise VoiceError(f"{str(error).rstrip('.')}. GET /v1/audio/voices lists them.") from error
        return await loaded.desk.fitting_voice(voice, caller.id) if isinstance(voice, Voice) else voice


def volume_of(body: Manner) -> float:
    """How many times louder. Raises RequestError when the two names disagree."""
    if body.volume_multiplier is None:
        return body.volume
    if body.volume not in (1.0, body.volume_multiplier):
        raise RequestError("volume and volume_multiplier disagree. Send one of them.", field="volume")
    return body.volume_multiplier


def _take_timings(speaking: Speaking) -> None:
    record, stream = speaking.record, speaking.chunks.stream
    record.timings = {name: round(value, 6) for name, value in stream.timings.items()}
    record.segments = len(stream.segments)
    record.frames = int(stream.timings.get("frames", 0))
    record.audio_seconds = stream.produced_seconds
    record.guards = speaking.guards()
    work = sum(stream.timings.get(stage, 0.0) for stage in ("prepare", "prefill", "generate", "decode"))
    record.rtf = work / record.audio_seconds if record.audio_seconds else None
