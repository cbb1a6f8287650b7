"""The models a server speaks with: names, loading on demand, unloading when idle, a memory ceiling."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sonant.audio.encode import open_encoder
from sonant.audio.loudness import Leveller
from sonant.catalogue import hub, registry
from sonant.checkpoints.memory import Plan, resident_bytes
from sonant.engine.engine import Engine
from sonant.errors import BusyError, ConfigError, SonantError
from sonant.nn.replay import free_memory
from sonant.request.audio import Audio
from sonant.request.settings import LOUDNESS
from sonant.request.speech import ModelSpec, SpeechRequest, Style
from sonant.request.voice import Voice
from sonant.server.desk import EngineDesk
from sonant.server.problems import HttpProblem
from sonant.server.settings import OPENAI_MODELS
from sonant.voices.library import VoiceLibrary

log = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".onnx", ".npz")
WARM_UP_TEXT = "Ready."
CHUNKS_AHEAD = 64
"""Chunks made ahead of a slow client before its utterance pauses: about a minute of speech, 8 MB at most."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that can be loaded: its name, how, and about how many bytes it will take."""

    name: str
    open: Callable[[], Engine]
    bytes: int = 0
    about: str = ""
    spec: ModelSpec | None = None
    """What the model is and can do, before it is loaded; None where only loading tells."""
    words: Callable[[], tuple[str, str]] = lambda: ("auto", "auto")
    """The dtype and the precision that it is opened with, as a job says them. Raises SonantError."""


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files under a checkpoint folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES)


def find_sources(
    names: Sequence[str],
    library: VoiceLibrary,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: str = "auto",
    strict: bool = False,
    slots: int,
    queue_limit: int,
    memory_limit: int | None = None,
) -> list[ModelSource]:
    """Models by folder, known name, "builtin", or NAME=FOLDER. With no names: what is inside the package,
    then every known model on this machine. A model without `precision` keeps "auto".

    `memory_limit` is for the whole process: each model is loaded as `registry.plan` finds that it fits alone.
    Raises CheckpointError for a model that is not there, RequestError for a named one that does not fit,
    ConfigError for a precision that none of them has.
    """
    wanted = list(names)
    if not wanted:
        on_disk = (model.name for model in hub.KNOWN if hub.is_local(model.name))
        wanted = [*registry.installed(), *on_disk]
    sources: dict[str, ModelSource] = {}
    is_offered = False
    taken = resident_bytes() if registry.choose_device(device).type == "cpu" else 0
    if memory_limit is not None:
        registry.limit_device(device, memory_limit)
    for given in wanted:
        name, _, place = (
            given.partition("=") if "=" in given and not Path(given).exists() else ("", "", given)
        )
        family, folder = registry.find(place)
        is_folderless = registry.is_folderless(family)
        offers = precision in registry.precisions(place)
        is_offered = is_offered or offers
        name = name or (place if not Path(place).is_dir() or is_folderless else folder.resolve().name)
        if name in sources:
            raise ConfigError(f"two models are named {name!r}. Name one of them with --model NAME=FOLDER.")
        about = next((known.about for known in hub.KNOWN if known.name == name), "")
        kept = precision if offers else "auto"
        options: dict[str, Any] = {"dtype": dtype, "precision": kept, "slots": slots}
        # Released weights are bfloat16 or float32; in memory the larger part is float32.
        size = 300 * 2**20 if is_folderless else 2 * weight_bytes(folder)
        planned = None
        if memory_limit is not None:
            try:
                planned = registry.plan(
                    place,
                    memory_limit=memory_limit,
                    device=device,
                    dtype=dtype,
                    precision=kept,
                    slots=slots,
                    taken=taken,
                )
            except SonantError as error:
                if names:
                    raise
                log.warning("model %s is not served: %s", name, error)
                continue
            for remark in planned.remarks:
                log.warning("memory limit: %s", remark)
            size = planned.needed
            options = {"dtype": planned.dtype, "precision": planned.precision, "slots": planned.slots}
            options["cache_positions"] = planned.ordinary_positions
            options["keeps_past"] = planned.keeps_past
        sources[name] = ModelSource(
            name=name,
            open=partial(
                registry.load,
                place,
                device=device,
                voices=library,
                queue_limit=queue_limit,
                chunk_limit=CHUNKS_AHEAD,
                records_ahead=True,
                strict=strict,
                **options,
            ),
            bytes=size,
            about=about or (registry.describe(place).note if is_folderless else f"a checkpoint of {family}"),
            spec=_described(name, place),
            words=cache(partial(_words, place, device, dtype, kept, planned)),
        )
    if not is_offered:
        raise ConfigError(
            f"no model has the precision {precision!r} ({', '.join(sources)}); leave --precision out."
        )
    return list(sources.values())


def _words(place: str, device: str, dtype: str, precision: str, planned: Plan | None) -> tuple[str, str]:
    precision = registry.choose_precision(place, precision, device=device, dtype=dtype)
    return (dtype, precision) if planned is None else planned.words(dtype, precision)


def _described(name: str, place: str) -> ModelSpec | None:
    try:
        return registry.describe(place)
    except SonantError as error:  # the one who asks for the model is told; the others are served
        log.warning("model %s cannot be loaded as it is: %s", name, error)
        return None


class LoadedModel:
    """A model in memory and who uses it."""

    def __init__(self, name: str, engine: Engine, size: int) -> None:
        self.name = name
        self.desk = EngineDesk(engine)
        self.spec = engine.spec
        self.bytes = size
        self.users = 0
        self.last_used = time.monotonic()

    @property
    def load(self) -> tuple[int, int]:
        """Requests running and waiting."""
        return self.desk.engine.load


class ModelPool:
    """Named models, at most `max_bytes` of them in memory; one unused for `idle_seconds` is unloaded.

    `max_bytes` is for models alone, without what the process has before any is loaded.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        *,
        aliases: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        if not sources:
            raise ConfigError(
                f"no model to serve. Name at least one, such as --model {registry.DEFAULT_MODEL}."
            )
        self._sources = {source.name: source for source in sources}
        self.default = sources[0].name
        self._aliases = {name: self.default for name in OPENAI_MODELS if name not in self._sources}
        self._chosen = frozenset(aliases or ())
        """OpenAI's names among them stand for the model the operator chose, whatever the voice."""
        for name, target in (aliases or {}).items():
            if target not in self._sources:
                raise ConfigError(
                    f"the alias {name!r} stands for {target!r}, which is not served; "
                    f"served are: {', '.join(self._sources)}."
                )
            self._aliases[name] = target
        for source in sources:
            if max_bytes is not None and source.bytes > max_bytes:
                raise ConfigError(
                    f"the model {source.name} needs about {source.bytes / 2**30:.1f} GiB; the ceiling is "
                    f"{max_bytes / 2**30:.1f} GiB. Raise --memory-limit, or choose a smaller model."
                )
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._specs = {source.name: source.spec for source in sources if source.spec is not None}
        self._room = asyncio.Lock()
        self.created = int(time.time())
        self.load_seconds: dict[str, float] = {}
        self.loads = 0
        self.unloads = 0

    @property
    def names(self) -> list[str]:
        """Names of the models, the default first."""
        return list(self._sources)

    @property
    def max_bytes(self) -> int | None:
        """The most that models may take together; None without a ceiling."""
        return self._max_bytes

    @property
    def aliases(self) -> dict[str, str]:
        """Other names and the models they stand for."""
        return dict(self._aliases)

    @property
    def loaded(self) -> list[LoadedModel]:
        """What is in memory now."""
        return list(self._loaded.values())

    def resolve(self, name: str | None) -> str:
        """The served model of this name or alias, however it is spelt. Raises HttpProblem 404."""
        if name is None:
            return self.default
        target = self._find(name)
        if target is None:
            raise HttpProblem(
                404,
                "model_not_found",
                f"there is no model {name!r} here; there are: {', '.join(self._sources)}. "
                "Start the server with --model to serve another.",
                param="model",
            )
        return target

    def _find(self, name: str) -> str | None:
        """By its exact name; else whatever its case; else without a prefix such as `openai/`."""
        names = {**{own: own for own in self._sources}, **self._aliases}
        folded = {spelt.lower(): target for spelt, target in reversed(names.items())}
        short = name.lower().rpartition("/")[2]
        return names.get(name) or folded.get(name.lower()) or folded.get(short)

    def is_open(self, name: str | None) -> bool:
        """True where the client named no model of this server: nothing, or a name of OpenAI's service."""
        if name is None:
            return True
        short = name.lower().rpartition("/")[2]
        return short in OPENAI_MODELS and short not in self._sources and short not in self._chosen

    def about(self, name: str) -> str:
        """One line on the model."""
        return self._sources[name].about

    def spec(self, name: str) -> ModelSpec | None:
        """What the model says of itself; None where that is not known before it is loaded."""
        return self._specs.get(name)

    def words(self, name: str) -> tuple[str, str]:
        """The dtype and the precision a model is opened with, as a job says them. Raises SonantError."""
        return self._sources[name].words()

    def state(self, name: str) -> str:
        """ "loaded", "loading" or "unloaded"."""
        if name in self._loaded:
            return "loaded"
        return "loading" if name in self._loading else "unloaded"

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LoadedModel]:
        """The model, loaded if need be, kept in memory while the block runs."""
        model = await self._get(self.resolve(name))
        model.users += 1
        try:
            yield model
        finally:
            model.users -= 1
            model.last_used = time.monotonic()

    async def _get(self, name: str) -> LoadedModel:
        while True:
            if name in self._loaded:
                return self._loaded[name]
            if name not in self._loading:
                task = asyncio.create_task(self._load(name))
                self._loading[name] = task
                task.add_done_callback(lambda done: self._forget(name, done))
            # Shielded: the one who asked first may leave, the others still want the model.
            await asyncio.shield(self._loading[name])

    def _forget(self, name: str, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(name, None)
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not report it as lost: waiters got it already

    async def _load(self, name: str) -> LoadedModel:
        source = self._sources[name]
        async with self._room:
            await self._make_room(source.bytes, name)
            log.info("loading model %s", name)
            began = time.monotonic()
            before = resident_bytes()
            engine = await asyncio.to_thread(_open_warm, source)
            grown = resident_bytes() - before
            model = LoadedModel(name, engine, max(grown, source.bytes))  # memory used again does not grow
            self._loaded[name] = model
            self._specs[name] = model.spec
            self.loads += 1
            self.load_seconds[name] = time.monotonic() - began
            log.info("model %s is ready after %.1f s", name, self.load_seconds[name])
            return model

    async def _make_room(self, wanted: int, name: str) -> None:
        if self._max_bytes is None:
            return
        for model in sorted(self._loaded.values(), key=lambda m: m.last_used):
            if sum(m.bytes for m in self._loaded.values()) + wanted <= self._max_bytes:
                return
            if not model.users:
                await self._unload(model)
        if sum(m.bytes for m in self._loaded.values()) + wanted > self._max_bytes:
            raise BusyError(
                f"no memory for the model {name} now: {', '.join(self._loaded)} fill the ceiling of "
                f"{self._max_bytes / 2**30:.1f} GiB and are in use. Try again when they are idle.",
                retry_after=10,
            )

    async def _unload(self, model: LoadedModel) -> None:
        log.info("unloading model %s", model.name)
        del self._loaded[model.name]
        self.unloads += 1
        await asyncio.to_thread(_close_and_free, model, is_last=not self._loaded)

    async def load(self, name: str) -> LoadedModel:
        """Make sure the model is in memory."""
        return await self._get(name)

    async def unload(self, name: str) -> None:
        """Drop the model from memory. Raises BusyError while it speaks."""
        async with self._room:
            model = self._loaded.get(name)
            if model is None:
                return
            if model.users:
                raise BusyError(f"the model {name} is speaking. Try again when it is idle.", retry_after=5)
            await self._unload(model)

    async def unload_idle(self) -> None:
        """Drop every model that nobody used for `idle_seconds`."""
        if self._idle_seconds is None:
            return
        async with self._room:
            for model in list(self._loaded.values()):
                if not model.users and time.monotonic() - model.last_used >= self._idle_seconds:
                    await self._unload(model)

    async def close(self) -> None:
        """End everything."""
        for task in list(self._loading.values()):
            with contextlib.suppress(SonantError, asyncio.CancelledError):
                await task
        async with self._room:
            for model in list(self._loaded.values()):
                await self._unload(model)


def _set_aside() -> None:
    """Tell the garbage collector that what is here now stays: a look through all objects of torch and its
    friends holds the interpreter, and with it every answer, for a tenth of a second or more."""
    free_memory()  # collects first; torch keeps freed blocks for itself
    gc.freeze()


def _close_and_free(model: LoadedModel, *, is_last: bool) -> None:
    model.desk.close()
    del model.desk
    gc.unfreeze()  # what is left of it may be a ring of objects
    if is_last:
        free_memory()
    else:
        _set_aside()


def _open_warm(source: ModelSource) -> Engine:
    """The engine after it has spoken once, so that the first request meets warm caches."""
    engine = source.open()
    try:
        speech = engine.synthesize(_warm_up_request(engine))
        # What every answer goes through is loaded now: a second of imports, while nobody waits for it.
        Leveller(LOUDNESS, speech.sample_rate).push(speech.samples)
        encoder = open_encoder("mp3", speech.sample_rate)
        encoder.encode(speech.samples)
        encoder.finish()
    except BaseException:
        engine.close()
        raise
    _set_aside()
    return engine


def _warm_up_request(engine: Engine) -> SpeechRequest:
    spec = engine.spec
    voice: Voice | str | None = None
    if spec.voices and spec.default_voice is None:
        voice = spec.voices[0]
    elif spec.needs_voice:
        # A seeded hum: every encoder accepts it, and nobody hears what is said with it.
        seconds = max(3.0, spec.min_reference_seconds)
        rng = np.random.default_rng(0)
        time_axis = np.arange(int(24_000 * seconds), dtype=np.float32) / 24_000
        hum = 0.2 * np.sin(2 * np.pi * 140 * time_axis) + 0.01 * rng.standard_normal(len(time_axis))
        voice = engine.clone(Audio(hum.astype(np.float32), 24_000), transcript=WARM_UP_TEXT)
    style = Style(instruction="a calm voice") if spec.needs_instruction else Style()
    request = SpeechRequest(WARM_UP_TEXT, voice=voice, style=style, seed=0)
    if "max_frames" in spec.sampling:
        sampling = dataclasses.replace(request.sampling, max_frames=24)
        request = dataclasses.replace(request, sampling=sampling)
    return request
