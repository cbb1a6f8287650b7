"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}, and a status."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from sonant.errors import BusyError, RequestError, SonantError, VoiceError, describe

log = logging.getLogger(__name__)

HTTP_FIELDS = {"text": "input", "instruction": "instructions", "max_frames": "max_new_tokens"}
"""Names of request fields that differ between Python and HTTP."""


class HttpProblem(Exception):
    """A problem of the HTTP exchange itself, which the library knows nothing of."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def no_room(error: OSError) -> HttpProblem | None:
    """What a full disk or a folder that may not be written is to a client; None for other faults."""
    if error.errno not in NO_ROOM:
        return None
    return HttpProblem(
        507,
        "storage_unavailable",
        f"the server cannot write to its own storage ({error.strerror}). Its operator has to free "
        "space on the disk, or allow writing to the folder.",
    )


def error_type(status: int) -> str:
    """OpenAI's coarse `type` of a status."""
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The object under "error"."""
    return {"message": message, "type": error_type(status), "param": param, "code": code}


def describe_error(error: SonantError | HttpProblem) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, error object and headers of an error."""
    headers: dict[str, str] = {}
    if isinstance(error, HttpProblem):
        status, code, param = error.status, error.code, error.param
        headers.update(error.headers)
    else:
        status, _, code = describe(error)
        param = error.field if isinstance(error, RequestError) else None
        param = "voice" if isinstance(error, VoiceError) else param
        param = HTTP_FIELDS.get(param, param) if param is not None else None
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if status == 503:
        headers.setdefault("Retry-After", "5")
    if status in (500, 501) or code == "deadline_exceeded":
        # The same request fails again, or has cost its full time already; official clients obey this.
        headers["X-Should-Retry"] = "false"
    return status, error_body(status, code, str(error), param), headers


def error_response(error: SonantError | HttpProblem) -> Response:
    """The whole answer for an error."""
    status, body, headers = describe_error(error)
    return json_response({"error": body}, status=status, headers=headers)


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Plain JSON in ASCII: whatever a client sent may be quoted in it, even half a surrogate pair."""
    data = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return Response(data, status_code=status, media_type="application/json", headers=dict(headers or {}))


def from_validation(errors: Sequence[Mapping[str, Any]]) -> HttpProblem:
    """The first complaint of the schema check, by field, as a 400."""
    first = errors[0] if errors else {"type": "unknown", "loc": (), "msg": "invalid request"}
    kind = str(first.get("type", ""))
    place = [str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")]
    # Unions report the branch they tried as a last part such as "str"; the field itself comes before it.
    param = ".".join(part for part in place if part.isidentifier() or part.isdigit()) or None
    message = str(first.get("msg", "invalid value"))
    if kind == "json_invalid" or kind == "model_attributes_type" or (not place and kind == "missing"):
        return HttpProblem(
            400,
            "invalid_json",
            'the body is not a JSON object. Send it as application/json, such as {"input": "Hello."}.',
        )
    if kind == "missing":
        return HttpProblem(
            400, "missing_required_field", f"the field {param} is missing. Add it.", param=param
        )
    if kind == "extra_forbidden":
        return HttpProblem(
            400,
            "unknown_field",
            f"there is no field {param!r}. Leave it out, or look for its name at /docs.",
            param=param,
        )
    if param == "response_format":
        message = "expected one of mp3, opus, aac, flac, wav, pcm"
        return HttpProblem(400, "unsupported_response_format", f"response_format: {message}.", param=param)
    return HttpProblem(400, "invalid_request", f"{param or 'the request'}: {message}.", param=param)
