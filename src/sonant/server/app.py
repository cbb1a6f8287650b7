"""The app: routes that OpenAI's clients speak, health, metrics and the studio page.

create_app(pool, library, settings) -> FastAPI; everything one server knows hangs on that app
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import sonant
from sonant.audio.encode import FORMATS, open_encoder
from sonant.checkpoints.memory import resident_bytes
from sonant.errors import RequestError, SonantError
from sonant.files import sweep_parts
from sonant.request.speech import EMOTIONS, ModelSpec, SpeechRequest
from sonant.server.auth import Gate, caller_of
from sonant.server.books import book_routes
from sonant.server.delivery import SpeechAnswer, collect, json_pieces, usage, warning
from sonant.server.desk import EngineDesk
from sonant.server.dialogue import dialogue_routes, turns_of
from sonant.server.elevenlabs import eleven_routes
from sonant.server.headers import HEADERS
from sonant.server.metrics import Metrics, Observe
from sonant.server.models import ModelPool
from sonant.server.problems import (
    HttpProblem,
    describe_error,
    error_response,
    from_validation,
    json_response,
    no_room,
)
from sonant.server.reading_desk import ReadingDesk
from sonant.server.schemas import BatchBody, CaptionedBody, SegmentsBody, SpeechBody
from sonant.server.service import SpeechService
from sonant.server.settings import ServerSettings
from sonant.server.sockets import serve_socket
from sonant.server.studio import add_pages, studio_routes
from sonant.server.uploads import BodyLimit, Clips
from sonant.server.voices import voice_routes
from sonant.server.wyoming import WyomingServer
from sonant.voices import recogniser
from sonant.voices.library import VoiceLibrary

log = logging.getLogger(__name__)

BATCH_AT_ONCE = 4
SWEEP_SECONDS = 5.0


def create_app(
    pool: ModelPool,
    library: VoiceLibrary,
    settings: ServerSettings | None = None,
    *,
    warm: tuple[str, ...] | None = None,
    clips: Clips | None = None,
    wyoming: socket.socket | None = None,
    readings: Path | None = None,
) -> FastAPI:
    """The app over these models and voices. `warm` names the models to load at once (default: the first);
    at the bound socket `wyoming` Home Assistant's protocol is spoken. Books and their readings lie in the
    folder `readings` (default: beside the voices)."""
    settings = settings if settings is not None else ServerSettings()
    metrics = Metrics(pool)
    clips = clips if clips is not None else Clips(settings.uploads, allow_urls=settings.allow_urls)
    service = SpeechService(settings, pool, library, metrics, clips)
    desk = ReadingDesk(service, readings or library.folder.with_name("readings"))
    readiness = Readiness(pool, (pool.default,) if warm is None else warm)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for left in await asyncio.to_thread(sweep_parts, library.folder):
            log.info("removed %s, which a write that was cut off had left", left.name)
        at_home = WyomingServer(service)
        home = await asyncio.start_server(at_home.serve, sock=wyoming) if wyoming is not None else None
        tasks = [asyncio.create_task(readiness.warm_up()), asyncio.create_task(_sweep(pool))]
        await desk.start()
        yield
        await desk.close()
        if home is not None:
            home.close()
            at_home.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await pool.close()

    app = FastAPI(
        title="Sonant",
        version=sonant.__version__,
        description="Speech with open voice-cloning models, over the wire format of OpenAI's speech API.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.desk = desk
    app.include_router(_speech_routes(service))
    app.include_router(dialogue_routes(service))
    app.include_router(eleven_routes(service))
    app.include_router(_model_routes(service))
    app.include_router(voice_routes(service))
    app.include_router(book_routes(desk))
    app.include_router(_health_routes(service, readiness))
    app.include_router(studio_routes(service))
    add_pages(app)
    app.openapi = lambda: _openapi(app, settings)  # type: ignore[method-assign]
    # The last one added is the first to see a request.
    app.add_middleware(HeadIsGet)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body, max_seconds=settings.body_seconds)
    app.add_middleware(Gate, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            # Whatever header an allowed page sends: OpenAI's client in a browser brings a dozen of its own.
            allow_headers=["*"],
            expose_headers=list(HEADERS),
        )
    app.add_middleware(Observe, metrics=metrics)
    _add_error_answers(app)
    return app


class HeadIsGet:
    """ASGI middleware: HEAD answers what GET would, without its body; probes and `curl -I` ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; the server below sends no body after HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send)
        finally:
            scope["route"] = asked.get("route")


class Readiness:
    """Whether the server may be sent work: true once its first models have spoken."""

    def __init__(self, pool: ModelPool, names: tuple[str, ...]) -> None:
        self._pool = pool
        self._names = names
        self.is_ready = False
        self.problem = ""

    async def warm_up(self) -> None:
        """Load the models; each speaks a word."""
        for name in self._names:
            try:
                await self._pool.load(name)
            except (SonantError, HttpProblem) as error:
                self.problem = str(error)
                log.error("the model %s cannot be used: %s", name, error)
                return
        self.is_ready = True


async def _sweep(pool: ModelPool) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await pool.unload_idle()


def _add_error_answers(app: FastAPI) -> None:
    async def on_known(request: Request, error: Exception) -> Response:
        assert isinstance(error, (SonantError, HttpProblem))
        status, body, _ = describe_error(error)
        # Never the message: it may quote the text. Those who wait for /ready ask again and again.
        level = logging.DEBUG if body["code"] == "not_ready" else logging.INFO
        request_id = request.state.request_id
        log.log(level, "request %s refused: %s %s %s", request_id, status, body["code"], body["param"])
        return error_response(error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(from_validation(error.errors()))

    async def on_invalid_within(request: Request, error: Exception) -> Response:
        assert isinstance(error, ValidationError)
        return error_response(from_validation(error.errors()))

    async def on_storage(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        problem = no_room(error)
        if problem is None:
            raise error
        return error_response(problem)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {
            400: "invalid_request",
            404: "not_found",
            405: "method_not_allowed",
            413: "payload_too_large",
        }
        # Not request.url, which raises for a malformed Host.
        message = f"{request.method} {request.scope['path']}: {error.detail}. See /docs for the routes."
        code = codes.get(error.status_code, "http_error")
        return error_response(HttpProblem(error.status_code, code, message, headers=error.headers))

    async def on_crash(request: Request, error: Exception) -> Response:
        message = (
            "an internal error stopped this request. The server's log has its trace, by the request's id."
        )
        return error_response(HttpProblem(500, "internal_error", message))

    app.add_exception_handler(SonantError, on_known)
    app.add_exception_handler(HttpProblem, on_known)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ValidationError, on_invalid_within)  # of another program's body, made ours
    app.add_exception_handler(OSError, on_storage)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_crash)


def _speech_routes(service: SpeechService) -> APIRouter:
    router = APIRouter(tags=["speech"])
    audio = {form.media_type: {"schema": {"type": "string", "format": "binary"}} for form in FORMATS.values()}
    audio["text/event-stream"] = {"schema": {"type": "string"}}

    @router.post(
        "/v1/audio/speech",
        summary="Speak a text",
        response_class=Response,
        responses={200: {"description": "The sound, sent while it is made.", "content": audio}},
    )
    async def speak(body: SpeechBody, request: Request) -> Response:
        """The text as sound, in the format asked for; or as server-sent events."""
        if body.stream_format == "sse" and not body.stream:
            raise HttpProblem(400, "invalid_request", "stream_format sse needs stream true.", param="stream")
        if body.timestamps == "word" and body.stream and body.stream_format != "sse":
            raise HttpProblem(
                400,
                "invalid_request",
                "timestamps word needs room for words: send stream_format sse, or stream false for JSON.",
                param="timestamps",
            )
        service.check_text(body.input)
        return SpeechAnswer(service, turns_of(body), request)

    @router.post("/v1/audio/captioned_speech", summary="Speak a text and tell when each word is said")
    @router.post("/dev/captioned_speech", include_in_schema=False)
    async def captioned(body: CaptionedBody, request: Request) -> Response:
        """Kokoro-FastAPI's: base64 of the sound, and its words with times; WebVTT or SRT if asked for."""
        service.check_text(body.input)
        timed = {"timestamps": "word", "stream": False, "stream_format": "audio"}
        return SpeechAnswer(service, turns_of(body.model_copy(update=timed)), request)

    @router.post("/v1/audio/speech/segments", summary="Show how a text would be cut")
    async def segments(body: SegmentsBody, request: Request) -> Response:
        """The segments a model would speak one after another."""

        async def cut(desk: EngineDesk, made: SpeechRequest, client: str) -> dict[str, Any]:
            texts = await desk.segments(made, client)
            return {"object": "list", "data": [{"index": i, "text": t} for i, t in enumerate(texts)]}

        return await _until_done(request, _shown(service, body, request, cut))

    @router.post("/v1/audio/text", summary="Show what of a text will be spoken")
    async def read(body: SegmentsBody, request: Request) -> Response:
        """Part by part: the words, each rule that fired, what is not spoken, and tokens or phonemes."""
        return await _until_done(request, _shown(service, body, request, EngineDesk.explain))

    @router.post("/v1/audio/speech/batch", summary="Speak several texts")
    async def batch(body: BatchBody, request: Request) -> Response:
        """Each item's sound as base64, or its error; one bad item spoils no other."""
        if len(body.items) > service.settings.max_batch:
            raise HttpProblem(
                400,
                "too_many_items",
                f"{len(body.items)} items were sent; at most {service.settings.max_batch} are taken at once.",
                param="items",
            )
        return await _until_done(request, _batch(service, body, request))

    @router.websocket("/v1/audio/speech/stream")
    async def live(socket: WebSocket) -> None:
        """Text in, sound out, at the same time."""
        await serve_socket(service, socket)

    return router


async def _shown(
    service: SpeechService,
    body: SegmentsBody,
    request: Request,
    show: Callable[[EngineDesk, SpeechRequest, str], Awaitable[dict[str, Any]]],
) -> Response:
    """What is found of a text that is not spoken; it counts as a request of its client."""
    service.check_fields(body)
    service.check_text(body.input)
    caller = caller_of(request.scope)
    with service.turn_of(caller.id):
        async with service.pool.use(service.model_for(body, caller)) as loaded:
            made = await service.request(loaded, body, body.input, caller=caller)
            return json_response(await show(loaded.desk, made, caller.id))


async def _until_done(request: Request, work: Any) -> Response:
    """The result of `work`, which is stopped when the client leaves."""
    task = asyncio.ensure_future(work)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    listener = asyncio.create_task(gone())
    try:
        await asyncio.wait({task, listener}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return Response(status_code=499)
    finally:
        for one in (task, listener):
            one.cancel()
        await asyncio.wait({task, listener})


async def _batch(service: SpeechService, body: BatchBody, request: Request) -> Response:
    turns = asyncio.Semaphore(min(BATCH_AT_ONCE, service.settings.max_per_client))

    async def one(index: int, item: SpeechBody) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index}
        try:
            service.check_text(item.input)
            item, *others = turns_of(item)
            if others:
                raise RequestError(
                    "a batch item has several voices; dialogues are spoken by /v1/audio/speech.",
                    field="allow_voice_tags",
                )
            async with (
                turns,
                service.speaking(
                    item,
                    item.input,
                    caller=caller_of(request.scope),
                    request_id=f"{request.state.request_id}-{index}",
                    arrived=request.state.arrived,
                    streaming=False,
                    response_format=item.response_format,
                ) as speaking,
            ):
                encoder = open_encoder(item.response_format, speaking.sample_rate)
                sound = await collect(speaking, encoder)
                return {
                    **result,
                    "status": 200,
                    "audio": sound,
                    "format": item.response_format,
                    "sample_rate": encoder.sample_rate,
                    "seed": speaking.record.seed,
                    "usage": usage(speaking),
                    "guards": speaking.guards(),
                    **({"warnings": [warning(speaking.unused)]} if speaking.unused else {}),
                }
        except (SonantError, HttpProblem) as error:
            status, content, _ = describe_error(error)
            return {**result, "status": status, "error": content}

    results = await asyncio.gather(*(one(index, item) for index, item in enumerate(body.items)))
    return StreamingResponse(_listed(results), media_type="application/json")


async def _listed(results: Sequence[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The results as JSON piece by piece; what has sound has it as bytes."""
    yield b'{"object": "list", "results": ['
    for number, result in enumerate(results):
        yield b", " if number else b""
        sound = result.pop("audio", None)
        if sound is None:
            yield json.dumps(result).encode()
        else:
            for piece in json_pieces(result, sound):
                yield piece
    yield b"]}"


def capability_document(spec: ModelSpec) -> dict[str, Any]:
    """What a model says of itself, as plain data."""
    document = dataclasses.asdict(spec)
    document["capabilities"] = sorted(spec.capabilities)
    document["languages"] = list(spec.languages)
    document["voices"] = list(spec.voices)
    if spec.capabilities & {"emotion_vector"}:
        document["emotions"] = list(EMOTIONS)
    return document


def _model_routes(service: SpeechService) -> APIRouter:
    router = APIRouter(tags=["models"])
    pool = service.pool

    def entry(name: str, alias_of: str | None = None) -> dict[str, Any]:
        target = alias_of if alias_of is not None else name
        spec = pool.spec(target)
        return {
            "id": name,
            "object": "model",
            "created": pool.created,
            "owned_by": "sonant",
            "alias_of": alias_of,
            "state": pool.state(target),
            "about": pool.about(target),
            "capabilities": None if spec is None else capability_document(spec),
        }

    @router.get("/v1/models", summary="List models")
    async def models() -> Response:
        """The served models, then the other names they answer to."""
        entries = [entry(name) for name in pool.names]
        entries += [entry(alias, target) for alias, target in pool.aliases.items()]
        return json_response({"object": "list", "data": entries})

    @router.get("/v1/audio/models", include_in_schema=False)
    async def audio_models() -> Response:
        """The same list in the shape that Open WebUI reads."""
        names = [*pool.names, *pool.aliases]
        return json_response({"models": [{"id": name, "name": name} for name in names]})

    @router.get("/v1/models/{model:path}", summary="Describe a model")
    async def model(model: str) -> Response:
        """The model's capability document, whether it is loaded or not; null where a file is damaged."""
        target = pool.resolve(model)
        return json_response(entry(model, target if target != model else None))

    @router.post("/v1/models/{model:path}/load", summary="Load a model")
    async def load(model: str) -> Response:
        """Bring the model into memory and warm it up; answers when it can speak."""
        name = pool.resolve(model)
        await pool.load(name)
        return json_response(entry(name))

    @router.post("/v1/models/{model:path}/unload", summary="Unload a model")
    async def unload(model: str) -> Response:
        """Drop the model from memory; 503 while it speaks."""
        name = pool.resolve(model)
        await pool.unload(name)
        return json_response(entry(name))

    return router


def _health_routes(service: SpeechService, readiness: Readiness) -> APIRouter:
    router = APIRouter(tags=["health"])
    pool = service.pool

    @router.get("/health", summary="Alive?")
    async def health() -> Response:
        """200 as long as the process answers."""
        return json_response({"status": "alive", "version": sonant.__version__})

    @router.get("/ready", summary="Ready?")
    async def ready() -> Response:
        """200 once the first models have spoken, 503 before."""
        if readiness.is_ready:
            return json_response({"status": "ready"})
        message = readiness.problem or "the models are being loaded. Ask again shortly."
        raise HttpProblem(503, "not_ready", message, headers={"Retry-After": "2"})

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        """Counters, gauges and histograms in Prometheus's text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/status", summary="Queue, models and recent requests")
    async def status(request: Request) -> Response:
        """What the studio's health view shows. Holds no text and no sound."""
        models = []
        by_name = {model.name: model for model in pool.loaded}
        for name in pool.names:
            found = by_name.get(name)
            now, waiting = found.load if found is not None else (0, 0)
            models.append(
                {
                    "id": name,
                    "state": pool.state(name),
                    "running": now,
                    "waiting": waiting,
                    "slots": found.desk.engine.slots if found is not None else 0,
                    "queue_limit": found.desk.engine.queue_limit if found is not None else 0,
                    "bytes": found.bytes if found is not None else 0,
                    "load_seconds": pool.load_seconds.get(name),
                }
            )
        caller = caller_of(request.scope)
        records = [record for record in service.metrics.records if record.is_seen_by(caller)]
        recent = [record.public() for record in records[-20:]][::-1]
        running = [record for record in service.metrics.running.values() if record.is_seen_by(caller)]
        return json_response(
            {
                "ready": readiness.is_ready,
                "problem": readiness.problem,
                "version": sonant.__version__,
                "resident_bytes": resident_bytes(),
                "memory_limit": pool.max_bytes,
                "key": {"is_asked": bool(service.settings.keys), "rights": sorted(caller.rights)},
                "can_transcribe": recogniser.is_installed(),
                "models": models,
                "running": [record.public() for record in running],
                "recent": recent,
            }
        )

    @router.get("/v1/requests/{request_id}", summary="How a request went")
    async def request_record(request_id: str, request: Request) -> Response:
        """Timings, guard events and seed of a running or recent request, by its X-Request-Id."""
        record = service.metrics.find(request_id)
        if record is None or not record.is_seen_by(caller_of(request.scope)):
            raise HttpProblem(404, "request_not_found", "no recent request has this id.", param="request_id")
        return json_response(record.public())

    return router


def _openapi(app: FastAPI, settings: ServerSettings) -> dict[str, Any]:
    """The document with this server's own errors: 400 and OpenAI's shape instead of FastAPI's 422."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    text = {"type": "string"}
    maybe = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {"message": text, "type": text, "param": maybe, "code": text},
            }
        },
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "An error in OpenAI's shape.",
                "content": content,
            }
    if settings.keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    app.openapi_schema = document
    return document
