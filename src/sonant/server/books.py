"""Routes of books and their readings: send a book, see who speaks in it, have it read, fetch it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from pydantic import ConfigDict, Field
from starlette.responses import FileResponse, Response

from sonant.books.cast import Found as FoundRole
from sonant.books.cast import starter_data, starter_toml
from sonant.books.script import roles_found
from sonant.errors import DependencyError, RequestError
from sonant.server.auth import caller_of
from sonant.server.book_files import files_of
from sonant.server.problems import json_response
from sonant.server.reading_desk import ReadingDesk
from sonant.server.schemas import Body, Name

LARGEST_CAST = 200_000
"""Characters of a cast as JSON."""
MOST_SCRIPT = 2**20
"""Characters of a script sent as a field of a form; the form's reader takes no more bytes of one either."""
Choice = Annotated[str, Field(max_length=2_000)]


class LinesBody(Body):
    """`POST /v1/audio/books/{book}/lines`: who says what."""

    cast: dict[str, Any] | None = Field(
        default=None, description="roles, emotions, quotes; see docs/books.md."
    )
    chapters: Choice | None = Field(
        default=None, description='Such as "1,3-5"; the body of the book if not said.'
    )
    paragraphs: Choice | None = Field(default=None, description='Such as "1-10".')
    everything: bool = False
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=200, ge=1, le=2_000)


class ReadingBody(Body):
    """`POST /v1/audio/readings`. Every other field is a setting of speech, by its name there or in a cast."""

    model_config = ConfigDict(extra="allow")

    book: Name
    model: Name | None = None
    cast: dict[str, Any] | None = None
    chapters: Choice | None = None
    paragraphs: Choice | None = None
    everything: bool = False
    carry: bool = Field(default=False, description="Lines go on from the one before in their paragraph.")
    format: Name | None = Field(default=None, description="m4b (default), m4a, mp3, opus, flac, wav.")


def book_routes(desk: ReadingDesk) -> APIRouter:
    """The router; its routes close over the desk."""
    router = APIRouter(tags=["books"], dependencies=[Depends(desk.take)])

    @router.post("/v1/audio/books", summary="Send a book or a script", status_code=201)
    async def add_book(
        request: Request,
        file: Annotated[
            UploadFile | None, File(description="txt, md, html, epub, docx, pdf, srt or vtt.")
        ] = None,
        text: Annotated[
            str | None, Form(max_length=MOST_SCRIPT, description="Instead of a file, up to 1 MiB.")
        ] = None,
        name: Annotated[
            str | None, Form(max_length=200, description="Its name; of a text, such as scene.txt.")
        ] = None,
    ) -> Response:
        """Keep it; the answer has its chapters, the roles found in it, and estimates."""
        _check_extra()
        if (file is None) == (text is None):
            raise RequestError("expected a file or a text, one of them. Send file=@book.epub.", field="file")
        if file is not None:
            data, called = await file.read(), name or file.filename or ""
        else:
            assert text is not None
            called = name or "text"
            data, called = text.encode("utf-8", "replace"), called if "." in called else f"{called}.txt"
        return json_response(await desk.add_book(caller_of(request.scope), called, data), status=201)

    @router.get("/v1/audio/books", summary="List books")
    async def list_books(request: Request) -> Response:
        """The caller's books, the newest first."""
        found = await desk.books(caller_of(request.scope))
        return json_response({"object": "list", "data": found})

    @router.get("/v1/audio/books/{book}", summary="Show a book")
    async def show_book(book: str, request: Request) -> Response:
        """Its chapters, roles and estimates."""
        return json_response(await desk.book(caller_of(request.scope), book))

    @router.delete("/v1/audio/books/{book}", summary="Delete a book")
    async def remove_book(book: str, request: Request) -> Response:
        """Its readings stay; they cannot be resumed any more."""
        await desk.remove_book(caller_of(request.scope), book)
        return json_response({"id": book, "object": "book", "deleted": True})

    @router.get("/v1/audio/books/{book}/cover", summary="The cover's picture", response_class=Response)
    async def cover(book: str, request: Request) -> Response:
        """JPEG or PNG."""
        data = await desk.cover(caller_of(request.scope), book)
        kind = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
        return Response(data, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    @router.get("/v1/audio/books/{book}/cast", summary="A cast to begin with")
    async def cast(book: str, request: Request) -> Response:
        """Every role found, without voices: as JSON and as a TOML file."""
        about = await desk.book(caller_of(request.scope), book)
        found = [FoundRole(**{**role, "aliases": tuple(role["aliases"])}) for role in about["roles"]]
        return json_response({"object": "cast", "cast": starter_data(found), "toml": starter_toml(found)})

    @router.post("/v1/audio/books/{book}/lines", summary="Show who says what")
    async def lines(book: str, body: LinesBody, request: Request) -> Response:
        """The lines of a book under a cast, and how much each role says."""
        _check_size(body.cast)
        options = body.model_dump(exclude={"offset", "limit"})
        numbered, used = await desk.lines(caller_of(request.scope), book, options)
        part = numbered[body.offset : body.offset + body.limit]
        said = [(line.role, line.text) for _, line in numbered]
        roles = await asyncio.to_thread(roles_found, said, used)
        return json_response(
            {
                "object": "list",
                "total": len(numbered),
                "data": [
                    {
                        "chapter": number,
                        "paragraph": line.paragraph,
                        "role": line.role,
                        "emotion": line.manner,
                        "text": line.text,
                    }
                    for number, line in part
                ],
                "roles": [
                    {"name": r.name, "lines": r.lines, "characters": r.characters, "sample": r.sample}
                    for r in roles
                ],
            }
        )

    @router.post("/v1/audio/readings", summary="Have a book read", status_code=202)
    async def add_reading(body: ReadingBody, request: Request) -> Response:
        """Queue it. It goes on after a restart of the server."""
        _check_size(body.cast)
        options = body.model_dump(exclude={"book"}, exclude_none=True, exclude_defaults=True)
        settings = {name: value for name, value in (body.model_extra or {}).items() if value is not None}
        options = {name: value for name, value in options.items() if name not in settings}
        _check_size(settings)
        caller = caller_of(request.scope)
        reading = await desk.add(
            caller, body.book, {**options, "settings": settings} if settings else options
        )
        return json_response(desk.describe(reading), status=202)

    @router.get("/v1/audio/readings", summary="List readings")
    async def list_readings(request: Request) -> Response:
        """The caller's readings, the newest first."""
        return json_response({"object": "list", "data": desk.readings(caller_of(request.scope))})

    @router.get("/v1/audio/readings/{reading}", summary="How a reading goes")
    async def show_reading(reading: str, request: Request) -> Response:
        """Status, progress with the time left, files."""
        return json_response(desk.describe(desk.reading(caller_of(request.scope), reading)))

    @router.post("/v1/audio/readings/{reading}/cancel", summary="Stop a reading")
    async def cancel(reading: str, request: Request) -> Response:
        """What was spoken is kept for a resume."""
        found = desk.reading(caller_of(request.scope), reading)
        await desk.cancel(found)
        return json_response(desk.describe(found))

    @router.post("/v1/audio/readings/{reading}/resume", summary="Go on with a reading")
    async def resume(reading: str, request: Request) -> Response:
        """Queue one again that was cancelled or failed."""
        found = desk.reading(caller_of(request.scope), reading)
        await desk.resume(found)
        return json_response(desk.describe(found))

    @router.delete("/v1/audio/readings/{reading}", summary="Delete a reading")
    async def remove(reading: str, request: Request) -> Response:
        """It is cancelled first; everything that was made goes."""
        await desk.remove(desk.reading(caller_of(request.scope), reading))
        return json_response({"id": reading, "object": "reading", "deleted": True})

    @router.get(
        "/v1/audio/readings/{reading}/files/{name}", summary="Fetch a file", response_class=FileResponse
    )
    async def fetch(reading: str, name: str, request: Request) -> Response:
        """book.m4b (or the format asked for), book.srt, report.json; ranges are answered."""
        found = desk.reading(caller_of(request.scope), reading)
        path = desk.file(found, name)
        title = "".join(c if c.isalnum() or c in " -_" else "_" for c in found.title).strip() or "book"
        return FileResponse(path, media_type=files_of(found)[name], filename=f"{title[:80]}{path.suffix}")

    return router


def _check_extra() -> None:
    """Raise DependencyError where the extra for books is absent."""
    try:
        import bs4  # noqa: F401
        import pysubs2  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f'books need {error.name}. Install it on the server: pip install "sonant[server,books]"'
        ) from error


def _check_size(given: dict[str, Any] | None) -> None:
    if given and len(json.dumps(given, allow_nan=True)) > LARGEST_CAST:
        raise RequestError(
            f"the cast has more than {LARGEST_CAST:,} characters as JSON. Name fewer roles.", field="cast"
        )
