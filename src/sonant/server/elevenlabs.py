"""ElevenLabs' two routes of speech, for programs that were written for its service.

Source: the request models of the Python package elevenlabs 2.78.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from sonant.errors import RequestError
from sonant.server.delivery import Packing, SpeechAnswer
from sonant.server.schemas import ElevenBody, SpeechBody
from sonant.server.service import SpeechService

_FORMAT = re.compile(r"(mp3|pcm|opus|wav)(?:_(\d{4,6}))?(?:_(\d{2,3}))?")
DEFAULT_FORMAT = "mp3_44100_128"


def eleven_routes(service: SpeechService) -> APIRouter:
    """`POST /v1/text-to-speech/{voice}` and `/stream`."""
    router = APIRouter(tags=["speech"])

    @router.post("/v1/text-to-speech/{voice}", summary="Speak a text (ElevenLabs)", response_class=Response)
    @router.post("/v1/text-to-speech/{voice}/stream", include_in_schema=False, response_class=Response)
    async def speak(
        voice: str, body: ElevenBody, request: Request, output_format: str = DEFAULT_FORMAT
    ) -> Response:
        """The text as sound; the voice is one of this server's, `voice_settings.speed` is honoured."""
        form, packing = parse_format(output_format)
        settings = body.voice_settings
        ours = {
            "input": body.text,
            "voice": voice,
            # Their models are not ours: the name means nothing here, so the voice decides.
            "model": None if (body.model_id or "").startswith("eleven_") else body.model_id,
            "language": body.language_code,
            "seed": body.seed,
            "speed": settings.speed if settings is not None and settings.speed is not None else 1.0,
            "response_format": form,
            "stream": request.scope["path"].endswith("/stream"),
        }
        extra = {**(body.model_extra or {})}
        if settings is not None:
            extra |= {f"voice_settings.{name}": value for name, value in (settings.model_extra or {}).items()}
        return SpeechAnswer(service, SpeechBody.model_validate({**extra, **ours}), request, packing)

    return router


def parse_format(text: str) -> tuple[str, Packing]:
    """`mp3_44100_128` as format, sample rate and bit rate. Raises RequestError."""
    found = _FORMAT.fullmatch(text)
    if found is None:
        raise RequestError(
            f"output_format is {text!r}; expected mp3, pcm, opus or wav with a sample rate, such as "
            f"{DEFAULT_FORMAT} or pcm_24000.",
            field="output_format",
        )
    form, rate, bits = found.groups()
    packing = Packing(rate=int(rate) if rate else None, bit_rate=int(bits) * 1000 if bits else None)
    if packing.rate is not None and not 8_000 <= packing.rate <= 48_000:
        raise RequestError(
            f"output_format asks for {rate} Hz; expected 8000 to 48000.", field="output_format"
        )
    return form, packing
