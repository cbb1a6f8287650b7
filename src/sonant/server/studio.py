"""The studio: its pages, and the routes that it needs beside those of speech, voices, books and models.

Everything else a page shows comes from the routes that other programs use too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, File, Form, Request, UploadFile
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from sonant.audio.encode import FORMATS, open_encoder
from sonant.engine.stream import NO_SAMPLES
from sonant.request.settings import EMOTIONS, SETTINGS, Setting
from sonant.server.auth import caller_of
from sonant.server.delivery import encode
from sonant.server.problems import json_response
from sonant.server.schemas import ResponseFormat
from sonant.server.service import SpeechService

PACKED_AT_ONCE = 2**20
"""Samples; others take turns between."""
STATIC = Path(__file__).parent / "static"
PAGE_POLICY = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def studio_routes(service: SpeechService) -> APIRouter:
    """The router; its routes close over the service."""
    router = APIRouter(tags=["studio"])

    @router.get("/v1/settings", summary="List the settings of speech")
    async def settings() -> Response:
        """The table of settings that HTTP bodies take: kind, range, default and the capabilities each needs.
        `field` is its name in a body; one without a field belongs into `sampling`."""
        rows = [_row(row) for row in SETTINGS if row.field is not None or row.home == "sampling"]
        return json_response({"object": "list", "data": rows, "emotions": list(EMOTIONS)})

    @router.post("/v1/audio/encode", summary="Turn a sound file into another format", response_class=Response)
    async def encoded(
        request: Request,
        audio: Annotated[UploadFile, File(description="A sound file, such as wav.")],
        response_format: Annotated[ResponseFormat, Form()] = "mp3",
    ) -> Response:
        """The same sound as mp3, opus, aac, flac, wav or pcm: nothing is spoken again."""
        body = bytearray()
        caller = caller_of(request.scope)
        async with service.long_turn(caller):
            data = await audio.read(service.settings.max_body + 1)
            sound = await service.clips.decode(data, "audio", caller.id, limits=service.own_sound_limits)
            encoder = open_encoder(response_format, sound.sample_rate)
            for begin in range(0, len(sound.samples), PACKED_AT_ONCE):
                piece = np.ascontiguousarray(sound.samples[begin : begin + PACKED_AT_ONCE])
                body += await encode(encoder, piece, is_final=False)
            body += await encode(encoder, NO_SAMPLES, is_final=True)
        header = encoder.final_header()
        body[: len(header)] = header
        return Response(bytes(body), media_type=FORMATS[response_format].media_type)

    return router


def _row(row: Setting) -> dict[str, Any]:
    panel = row.flag.panel if row.flag is not None else "How it sounds"
    return {
        "name": row.name,
        "field": row.field_name if row.field is not None else None,
        "home": row.home,
        "kind": row.kind,
        "panel": panel,
        "help": (row.field.help if row.field is not None else None) or row.help,
        "default": row.default,
        "least": row.least,
        "most": row.most,
        "above": row.above,
        "choices": list(row.choices),
        "unit": row.unit,
        "needs": list(row.needs),
    }


def add_pages(app: FastAPI) -> None:
    """The studio at `/`, the list of routes at `/docs`, and their files at `/static`."""

    @app.get("/", include_in_schema=False)
    async def studio() -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(STATIC / "docs.html", headers=PAGE_HEADERS)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    app.mount("/static", Revalidated(directory=STATIC), name="static")


class Revalidated(StaticFiles):
    """Files that a browser asks about each time: a page never runs with parts of an older version. The pages
    lie among them too, and are as guarded here."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or 304 where the browser's copy is the same."""
        answer = super().file_response(*args, **kwargs)
        answer.headers.update(PAGE_HEADERS)
        return answer
