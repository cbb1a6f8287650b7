"""Who speaks in a book or a script: roles with voice, model, style, pace and gain each, from a file.

    [roles.narrator]          # what nobody else says
    voice = "heart"
    [roles.Alice]
    voice = "alice.wav"       # a voice's name, or a clip beside this file
    model = "qwen3-tts-0.6b-base"
    aliases = ["the girl"]
    gain = 2.0                # dB
    [emotions]
    angry = { instruction = "shouting", speed = 1.1 }

Every setting of the table goes into a role under its command-line name.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sonant.errors import RequestError
from sonant.readings.given import job_fields
from sonant.readings.job import Job, parse_emotion
from sonant.request.settings import EMOTIONS, settings_of
from sonant.request.speech import ModelSpec

NARRATOR, QUOTED = "narrator", "quoted"
"""The role that says what nobody else says, and the one that says quotations whose speaker is not told."""
SPECIAL = (NARRATOR, QUOTED)
MOST_ROLES = 500
LOUDEST = 30.0
"""dB that a role may be raised or lowered."""
_OWN = ("model", "aliases", "gain")
_KEPT = frozenset(
    row.key
    for row in settings_of("request")
    if row.flag is not None and not row.needs and row.kind != "options" and row.name != "speed"
)
"""What a role with another model takes from the reading's own settings: the rest may not fit that model."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """One speaker."""

    name: str
    aliases: tuple[str, ...] = ()
    model: str | None = None
    gain: float = 0.0
    """dB."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Job`: voice, settings, sampling, ..."""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """All roles of a reading. Without any, the narrator says everything."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    emotions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings for a manner that a script names, as fields of `Job`."""
    quotes: bool = True
    """Whether speech in quotation marks belongs to whoever is told to say it."""

    def find(self, name: str) -> str | None:
        """The role of this name or alias, whatever its case."""
        return self._names.get(_folded(name))

    @property
    def _names(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for role in self.roles.values():
            for name in (role.name, *role.aliases):
                found.setdefault(_folded(name), role.name)
        return found

    def job(self, role: str, base: Job) -> Job:
        """The job that says this role's lines: the reading's own, with the role's settings over it.

        A role that is not in the cast is a voice of that name, as in a dialogue.
        """
        known = self.roles.get(role)
        if known is None:
            return base if role == NARRATOR else _with(base, {"voice": role})
        if known.model is not None and known.model != base.model:
            kept = {name: value for name, value in base.settings.items() if name in _KEPT}
            base = Job(
                text="", model=known.model, device=base.device, dtype=base.dtype, precision=base.precision,
                settings=kept, in_pieces=True, verify=base.verify, verify_tries=base.verify_tries,
            )  # fmt: skip
        return _with(base, known.fields)

    def gain(self, role: str) -> float:
        """The factor of a role's samples."""
        known = self.roles.get(role)
        return 1.0 if known is None else float(10 ** (known.gain / 20))

    def in_manner(self, job: Job, manner: str, spec: ModelSpec) -> Job | None:
        """The job in a manner such as "angry" or "happy=0.6"; None where the model has nothing for it.

        The cast's own meaning comes first, then emotions by number, by words, and instructions in words.
        """
        for name, fields in self.emotions.items():
            if _folded(name) == _folded(manner):
                return _with(job, fields)
        can = spec.capabilities
        vector = _vector(manner)
        if vector is not None and "emotion_vector" in can:
            return _with(job, {"settings": {"emotion": vector}})
        if "emotion_text" in can:
            return _with(job, {"settings": {"emotion_text": manner}})
        if "instruction" in can:
            said = job.get("instruction")
            return _with(job, {"settings": {"instruction": f"{said}; {manner}" if said else manner}})
        return None


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _vector(manner: str) -> tuple[float, ...] | None:
    """Emotion numbers of "happy=0.6,calm=0.2", or of an emotion's name alone, which is its full strength."""
    words = [part.strip().lower() for part in manner.split(",")]
    if all(word.partition("=")[0].strip() in EMOTIONS for word in words):
        return parse_emotion(",".join(word if "=" in word else f"{word}=1" for word in words))
    return None


def _with(job: Job, fields: Mapping[str, Any]) -> Job:
    """The job with other fields; mappings go over those there are, and another voice is nobody's design."""
    changed = dict(fields)
    for name in ("settings", "sampling", "options"):
        if name in changed:
            changed[name] = {**getattr(job, name), **changed[name]}
    if "voice" in changed:
        changed = {"transcript": None, "design_model": None, "design_text": None, **changed}
    return replace(job, **changed)


def read_cast(path: Path) -> Cast:
    """The cast in a TOML, YAML or JSON file. Raises RequestError naming the role that is wrong."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"cannot read the cast {path} ({error}); expected a TOML or YAML file. Check the path; "
            "sonant cast BOOK writes one to begin with."
        ) from error
    try:
        data = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise RequestError(
            f"the cast {path} is no valid {path.suffix.lstrip('.') or 'YAML'} ({error}). Mend the file."
        ) from error
    return cast_of({} if data is None else data, folder=path.absolute().parent)


def cast_of(data: Any, *, folder: Path | None = None, files: bool = True) -> Cast:
    """A cast from plain data; voices and clips that are files lie in `folder`. Raises RequestError.

    Without `files` nothing in it may be a path, as where a stranger sends it.
    """
    if not isinstance(data, Mapping):
        raise RequestError(
            "the cast is no mapping; expected `roles` with a mapping for each. Mend it.", field="cast"
        )
    unknown = sorted(set(data) - {"roles", "emotions", "quotes"})
    if unknown:
        raise RequestError(
            f"the cast has {unknown[0]!r}; expected roles, emotions and quotes. Roles stand below roles.",
            field="cast",
        )
    quotes = data.get("quotes", True)
    if not isinstance(quotes, bool):
        raise RequestError(f"quotes of the cast is {quotes!r}; expected true or false.", field="cast")
    roles = {}
    for name, given in _mapping(data, "roles").items():
        roles[str(name)] = _role(str(name), given, folder, files)
    if len(roles) > MOST_ROLES:
        raise RequestError(f"the cast has {len(roles)} roles; at most {MOST_ROLES} are taken.", field="cast")
    for special in SPECIAL:  # whatever their case, they are what they are
        for name in [n for n in roles if n != special and _folded(n) == special]:
            roles[special] = replace(roles.pop(name), name=special)
    taken: dict[str, str] = {}
    for role in roles.values():
        for alias in (role.name, *role.aliases):
            other = taken.setdefault(_folded(alias), role.name)
            if other != role.name:
                raise RequestError(
                    f"the name {alias!r} belongs to both {other} and {role.name}; expected it once.",
                    field="cast",
                )
    emotions = {}
    for name, given in _mapping(data, "emotions").items():
        settings = _settings(given, f"the emotion {name}")
        fields = job_fields(settings, folder=folder, files=files, where=f"emotion {name}: ")
        for other in ("voice", "transcript", "design_model", "design_text"):
            if other in fields:
                raise RequestError(
                    f"the emotion {name} has {other}; expected how a role's own voice says it. Make a role "
                    "of it, or leave it out.",
                    field="cast",
                )
        emotions[str(name)] = fields
    return Cast(roles=roles, emotions=emotions, quotes=quotes)


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name) or {}
    if not isinstance(found, Mapping):
        raise RequestError(
            f"{name} of the cast is no mapping; expected a name with settings for each.", field="cast"
        )
    return found


def _settings(given: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise RequestError(f"{what} is {given!r}; expected settings by name. Mend the cast.", field="cast")
    return given


def _role(name: str, given: Any, folder: Path | None, files: bool) -> Role:
    if isinstance(given, str):  # a voice alone
        given = {"voice": given}
    data = dict(_settings(given, f"the role {name}"))
    aliases = data.pop("aliases", ())
    is_list = isinstance(aliases, Sequence) and not isinstance(aliases, str)
    if not is_list or not all(isinstance(alias, str) and alias.strip() for alias in aliases):
        raise RequestError(f"the aliases of {name} are {aliases!r}; expected a list of names.", field="cast")
    gain, model = data.pop("gain", 0.0), data.pop("model", None)
    if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not abs(gain) <= LOUDEST:
        raise RequestError(
            f"the gain of {name} is {gain!r}; expected dB from -{LOUDEST:g} to {LOUDEST:g}.", field="cast"
        )
    if model is not None and (not isinstance(model, str) or not model):
        raise RequestError(
            f"the model of {name} is {model!r}; expected a name (sonant models).", field="cast"
        )
    if "loudness" in data or "de_rumble" in data or "de-rumble" in data:
        raise RequestError(
            f"the role {name} has a setting of the whole recording; expected those of speech. Use gain, or "
            "give loudness for the whole.",
            field="cast",
        )
    fields = job_fields(data, folder=folder, files=files, where=f"role {name}: ")
    return Role(name=name, aliases=tuple(aliases), model=model, gain=float(gain), fields=fields)


@dataclass(frozen=True)
class Found:
    """A role found in a book."""

    name: str
    lines: int
    characters: int
    sample: str
    aliases: tuple[str, ...] = ()


def starter_toml(found: Sequence[Found]) -> str:
    """A cast file to begin with: every role found, its voice to be filled in."""
    lines = [
        "# Who speaks. A role takes voice, model, gain (dB), aliases, and every setting by its name:",
        '# speed, instruction, emotion = "happy=0.6", ... What is not said is as on the command line.',
        "quotes = true  # speech in quotation marks belongs to whoever is told to say it",
    ]
    for role in found:
        count = f"{role.lines} line{'s' if role.lines != 1 else ''}, {role.characters:,} characters"
        lines += ["", f"[roles.{_toml(role.name)}]  # {count}"]
        if role.sample:
            lines.append(f"# {' '.join(role.sample.split())[:90]}")
        if role.aliases:
            lines.append(f"aliases = [{', '.join(map(_toml, role.aliases))}]")
        lines.append('# voice = ""')
    return "\n".join(lines) + "\n"


def starter_data(found: Sequence[Found]) -> dict[str, Any]:
    """The same as plain data."""
    roles = {role.name: {"aliases": list(role.aliases)} if role.aliases else {} for role in found}
    return {"quotes": True, "roles": roles}


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # TOML's basic strings escape as JSON's do
