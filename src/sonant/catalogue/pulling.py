"""Fetching a model: what it needs is listed and sized first, then fetched, checked and put in its place."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sonant.catalogue.hub import (
    KNOWN,
    Companion,
    KnownModel,
    choose_files,
    find_known,
    folder_name,
    is_repository,
    known,
    models_folder,
)
from sonant.catalogue.hub_sources import RemoteFile, Repository, find_repository, on_mirror, sha256
from sonant.checkpoints.hub_cache import user_hub_cache
from sonant.checkpoints.memory import show
from sonant.errors import CheckpointError

log = logging.getLogger(__name__)

RECORD = ".sonant-pull.json"
"""In a fetched folder: repository, commit and the SHA-256 of each file."""
PARTS = ".parts"
"""Folder of files under way."""
PEEKED = 1 << 17
"""Bytes up to which a JSON or YAML file of an unknown repository is read to tell its family."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a model: where it is on the hub and where it goes."""

    repository: Repository
    file: RemoteFile
    place: str
    """Path in the model's folder."""
    is_here: bool
    """Whether it lies there already, whole."""
    begun: int = 0
    """Bytes that an earlier run has fetched."""


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What a pull would do."""

    name: str
    repository: Repository
    source: str
    variant: str | None
    folder: Path
    items: tuple[Item, ...]
    free: int
    """Bytes free on the disk of the models' folder."""

    @property
    def bytes(self) -> int:
        """What the model takes on disk."""
        return sum(item.file.size or 0 for item in self.items)

    @property
    def bytes_to_fetch(self) -> int:
        """What is still to come."""
        return sum((item.file.size or 0) - item.begun for item in self.items if not item.is_here)

    @property
    def bytes_left_there(self) -> int:
        """What the model's own repository has beside it."""
        return sum(file.size or 0 for file in self.repository.files) - sum(
            item.file.size or 0 for item in self.items if item.repository is self.repository
        )

    def told(self) -> str:
        """The sizes in one line, for whoever is about to wait."""
        rest = self.bytes_left_there
        unread = f"; {show(rest)} that nothing reads stay there" if rest else ""
        have = self.bytes - self.bytes_to_fetch
        here = f", {show(have)} of them are here" if have else ""
        return (
            f"{self.name}: {show(self.bytes)} in {len(self.items)} files{here}{unread}; to {self.folder}, "
            f"where {show(self.free)} are free"
        )


def plan_pull(
    name: str, *, source: str = "hf", revision: str | None = None, variant: str | None = None
) -> Pull:
    """What `pull` would fetch for a known name, or for any repository that holds a model of a known family.

    Asks the hub for names and sizes; of an unknown repository also for its small configs.
    Raises CheckpointError or RequestError.
    """
    model = find_known(name)
    if model is None and not is_repository(name):
        known(name)
    if model is not None:
        model.items(variant)
    repository = find_repository(source, model.repository if model is not None else name, revision)
    if model is None:
        model = _kind_of(repository)
    chosen, missing = choose_files((file.path for file in repository.files), model.items(variant))
    if missing or not chosen:
        raise CheckpointError(
            f"{repository.place} has no {', '.join(missing) or 'model files'}; expected them there. "
            "The repository may have changed; fetch another --revision."
        )
    final = models_folder() / folder_name(name)
    folder = final if final.is_dir() else models_folder() / f".{final.name}.part"
    items = [_item(repository, path, path, folder) for path in chosen]
    for companion in model.companions:
        there = _companion(companion, source)
        items += [_item(there, path, place, folder) for path, place in companion.files.items()]
    return Pull(
        name=name,
        repository=repository,
        source=source,
        variant=variant,
        folder=final,
        items=tuple(items),
        free=_free(models_folder()),
    )


def pull(
    name: str,
    *,
    source: str = "hf",
    revision: str | None = None,
    variant: str | None = None,
    on_plan: Callable[[Pull], None] = lambda plan: None,
    on_file: Callable[[str, int | None], None] = lambda path, size: None,
) -> Path:
    """Fetch a model into the models' folder and return where it lies.

    What is there already and whole is not fetched again, what lies in the user's hub cache is taken from
    there, and what was cut off goes on where it stopped. `on_plan` hears what will be fetched, with sizes,
    before anything is; then the disk must have room. Every file is checked against the hub's hash before
    the folder gets its final name. `on_file` hears each file's path and size before it is fetched.
    Raises CheckpointError or RequestError.
    """
    try:
        plan = plan_pull(name, source=source, revision=revision, variant=variant)
        on_plan(plan)
        if plan.bytes_to_fetch > plan.free:
            raise CheckpointError(
                f"{name} needs {show(plan.bytes_to_fetch)} more on the disk of {models_folder()}, which has "
                f"{show(plan.free)} free. Make room, or name another folder with SONANT_MODELS."
            )
        return _fetch(plan, on_file)
    except OSError as error:
        raise CheckpointError(
            f"fetching {name} into {models_folder()} failed ({error}); expected a complete download. "
            "Check the network and the disk, then run the same command again: it goes on where it stopped."
        ) from error


def _fetch(plan: Pull, on_file: Callable[[str, int | None], None]) -> Path:
    final = plan.folder
    folder = final if final.is_dir() else final.with_name(f".{final.name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    hashes: dict[str, str] = dict(pulled_record(folder).get("sha256", {}))
    for item in plan.items:
        target = folder / item.place
        if not item.is_here:
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _from_cache(item, target):
                on_file(item.place, item.file.size)
                os.replace(item.repository.fetch(item.file, folder / PARTS), target)
        hashes[item.place] = item.file.sha256 or sha256(target)
    record = {
        "repository": plan.repository.name,
        "source": plan.source,
        "commit": plan.repository.commit,
        **({"variant": plan.variant} if plan.variant is not None else {}),
        "sha256": hashes,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if (folder / PARTS).is_dir():
        shutil.rmtree(folder / PARTS)
    if folder != final:
        os.replace(folder, final)
    return final


def pulled_record(folder: Path) -> Mapping[str, Any]:
    """What `pull` noted of a folder; empty for a folder that came another way."""
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _item(repository: Repository, path: str, place: str, folder: Path) -> Item:
    file = repository.file(path)
    parts = PurePosixPath(place).parts
    if place.startswith(("/", "~")) or ".." in parts or "\\" in place or ":" in place:
        raise CheckpointError(
            f"{repository.place} names a file {path!r} outside its own folder; expected plain relative "
            "names. Do not use this repository."
        )
    target = folder / place
    part = repository.part(file, folder / PARTS)
    return Item(
        repository=repository,
        file=file,
        place=place,
        is_here=target.is_file() and file.is_whole(target),
        begun=min(part.stat().st_size, file.size or 0) if part.is_file() else 0,
    )


def _companion(companion: Companion, source: str) -> Repository:
    """The companion's repository where it has all that is needed.

    As IndexTTS2's own loader does, what ModelScope has not got is taken from a mirror of Hugging Face.
    """
    wanted = tuple(companion.files)
    try:
        found = find_repository(source, companion.repository, None, modelscope=companion.modelscope)
        _, missing = choose_files((file.path for file in found.files), wanted)
        if not missing:
            return found
        problem = CheckpointError(
            f"{found.place} has no {', '.join(missing)}; expected it there. The repository may have changed."
        )
    except CheckpointError as error:
        problem = error
    if source != "modelscope":
        raise problem
    log.warning("%s Taking %s from the mirror instead.", problem, companion.repository)
    found = on_mirror(companion.repository)
    _, missing = choose_files((file.path for file in found.files), wanted)
    if missing:
        raise CheckpointError(f"{found.place} has no {', '.join(missing)} either.") from problem
    return found


def _kind_of(repository: Repository) -> KnownModel:
    """The known model whose family and files an unknown repository shares.

    The family's own `detect` looks at a folder with the repository's names and its small configs.
    """
    from sonant.catalogue.registry import detect

    with tempfile.TemporaryDirectory(prefix="sonant-pull-") as scratch:
        folder = Path(scratch) / "model"
        for file in repository.files:
            item = _item(repository, file.path, file.path, folder)
            target = folder / item.place
            target.parent.mkdir(parents=True, exist_ok=True)
            is_config = file.path.endswith((".json", ".yaml")) and (file.size or 0) <= PEEKED
            if is_config and "/" not in file.path:
                os.replace(repository.fetch(file, Path(scratch) / PARTS), target)
            else:
                target.touch()
        family = detect(folder)
    there = [file.path for file in repository.files]
    lacking = {m.name: choose_files(there, m.files)[1] for m in KNOWN if m.family == family}
    if not lacking:
        raise CheckpointError(
            f"{repository.place} is no checkpoint of a family that Sonant speaks "
            f"({', '.join(sorted({model.family for model in KNOWN}))}); it holds: {', '.join(there[:12])}. "
            "Name a repository with the official layout."
        )
    # A family has several layouts; the one that explains most of the files is meant.
    closest = max(map(known, lacking), key=lambda model: len(model.files) - 2 * len(lacking[model.name]))
    if lacking[closest.name]:
        raise CheckpointError(
            f"{repository.place} looks like {closest.name} but has no {', '.join(lacking[closest.name])}; "
            "expected the official layout. Sonant cannot speak with it."
        )
    return closest


def _from_cache(item: Item, target: Path) -> bool:
    """Whether the file lay in the user's hub cache and is now in its place: as a hard link, or copied."""
    if item.file.identity is None or item.repository.name.count("/") != 1:
        return False
    name = f"models--{item.repository.name.replace('/', '--')}"
    blob = user_hub_cache() / name / "blobs" / item.file.identity
    if not blob.is_file() or not item.file.is_whole(blob):
        return False
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)
    return True


def _free(folder: Path) -> int:
    """Bytes free where the folder is or will be."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
