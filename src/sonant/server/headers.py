"""Every header that an answer may carry beyond HTTP's own, said once; docs/clients.md tells each in full."""

from __future__ import annotations

from collections.abc import Mapping

HEADERS: Mapping[str, str] = {
    "X-Request-Id": "of every answer; `GET /v1/requests/ID` tells how it went",
    "X-Sample-Rate": "of the sound, in Hz",
    "X-Sonant-Model": "who spoke, percent-encoded",
    "X-Sonant-Voice": "with which voice, percent-encoded; `clip` for one without a name",
    "X-Sonant-Seed": "sent again, it gives the same sound",
    "X-Sonant-Guards": "of a finished file: kinds of what was stopped, mended or left out, or `none`",
    "X-Sonant-Unspoken": "of a finished file: what was left out because it cannot be spoken, percent-encoded",
    "X-Sonant-Warning": "fields that were sent and do nothing here",
    "X-Should-Retry": "`false` where the same request would fail again",
    "Retry-After": "of 429 and 503, in seconds",
}
"""Name and meaning. Pages of an allowed origin may read all of them."""
