"""Dialogues: a text with voice tags, or a list of turns, as bodies that are spoken one after another.

"Once upon a time. [voice:bea] Never! [voice:ann] So she said." -> three bodies, of three voices
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from sonant.errors import RequestError
from sonant.request.seeds import segment_seed
from sonant.server.delivery import SpeechAnswer
from sonant.server.schemas import DialogueBody, SpeechBody, VoiceId
from sonant.server.service import SpeechService
from sonant.text.voice_tags import split_voices

MOST_TURNS = 500


def turns_of(body: SpeechBody) -> list[SpeechBody]:
    """The body as its turns: itself where voice tags are not allowed, or there are none."""
    aliases = body.voice_aliases or {}
    if body.voice_name in aliases:
        body = body.model_copy(update={"voice": aliases[body.voice_name]})
    if not body.allow_voice_tags:
        return [body]
    marked = split_voices(
        body.input
    )  # a manner behind | is for casts: other servers' texts have remarks there
    if len(marked) > MOST_TURNS:
        raise RequestError(f"the text has more than {MOST_TURNS} voice tags. Split it.", field="input")
    spoken = [
        (body.voice if one.voice is None else aliases.get(one.voice, one.voice), one.text)
        for one in marked
        if one.text.strip()
    ]
    if not spoken:
        raise RequestError(
            "the text has voice tags and no words. Give each voice something to say.", field="input"
        )
    return numbered([body.model_copy(update={"voice": voice, "input": text}) for voice, text in spoken])


def numbered(turns: Sequence[SpeechBody]) -> list[SpeechBody]:
    """Each turn with a seed of its own, made from the request's."""
    return [
        turn if turn.seed is None else turn.model_copy(update={"seed": segment_seed(turn.seed, number)})
        for number, turn in enumerate(turns)
    ]


def dialogue_routes(service: SpeechService) -> APIRouter:
    """Kokoro-FastAPI's route for dialogues."""
    router = APIRouter(tags=["speech"])

    @router.post("/dev/dialogue", summary="Speak a dialogue", response_class=Response)
    async def dialogue(body: DialogueBody, request: Request) -> Response:
        """Turns of several voices in one file."""
        service.check_fields(body)
        manner = body.model_dump(exclude={"turns", "voice"}, exclude_unset=True)
        turns = []
        for turn in body.turns:
            voice = turn.voice_id if turn.voice_id is not None else turn.voice
            name = voice.id if isinstance(voice, VoiceId) else voice if voice is not None else body.voice_name
            turns.append(SpeechBody.model_validate({**manner, "voice": name, "input": turn.text}))
        return SpeechAnswer(service, numbered(turns), request)

    return router
