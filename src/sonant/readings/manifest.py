"""A manifest of many things to say, JSONL or CSV, each line an item with settings of its own.

    {"name": "hello", "text": "Good morning.", "voice": "heart", "seed": 7, "speed": 1.1}

`text` is what is said, `name` the file that it goes to (its ending may say the format), `model` and every
setting of the table by its name; `style` is the instruction. A line that is wrong is an item that failed, and
spoils no other.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sonant.audio.encode import FORMATS, find_format
from sonant.errors import RequestError
from sonant.readings.given import job_fields
from sonant.readings.job import Job

LONGEST_FIELD = 16 * 2**20
"""Characters of one cell of a CSV file."""
MOST_ITEMS = 1_000_000
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}


@dataclass(frozen=True)
class Item:
    """One line of a manifest: what to say and where to, or what is wrong with it."""

    line: int
    """Its line in the file, from 1."""
    name: str
    """Of its files, without ending."""
    job: Job | None
    error: str = ""

    @property
    def file(self) -> str:
        """The file that it goes to."""
        assert self.job is not None
        return self.name + FORMATS[self.job.format].suffixes[0]


def read_manifest(path: Path, base: Job) -> list[Item]:
    """Every item of the file over the settings of `base`. Raises RequestError for a file that is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"cannot read the manifest {path} ({error.strerror or error}); expected a JSONL or CSV file. "
            "Check the path."
        ) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell and Excel save it
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        rows = _csv_rows(path, data, ending)
    elif ending in (".jsonl", ".ndjson", ".json"):
        rows = _json_rows(data)
    else:
        raise RequestError(
            f"the manifest {path.name} is of no known format; expected .jsonl, .csv or .tsv. Name it so."
        )
    items: list[Item] = []
    taken: dict[str, int] = {}
    for line, row in rows:
        item = _item(line, row, base, path.absolute().parent)
        if item.job is not None and (other := taken.setdefault(item.name.casefold(), line)) != line:
            message = f"the name {item.name!r} is that of line {other} too; expected every name once."
            item = Item(line, item.name, None, message)
        items.append(item)
        if len(items) > MOST_ITEMS:
            raise RequestError(f"the manifest has more than {MOST_ITEMS:,} items. Split it.")
    if not items:
        raise RequestError(f"the manifest {path.name} has no item; expected a line for each. Add one.")
    return [item if item.job is not None else _apart(item, taken) for item in items]


def _apart(item: Item, taken: dict[str, int]) -> Item:
    """An item that is wrong, under a name that no other has: its status would be taken for that one's."""
    name, number = item.name, 1
    while taken.setdefault(name.casefold(), item.line) != item.line:
        name = f"{item.name}-line-{item.line}" + (f"-{number}" if number > 1 else "")
        number += 1
    return replace(item, name=name)


def _json_rows(data: bytes) -> Iterator[tuple[int, Any]]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip().startswith(b"["):  # one list of objects; an item's line is then its place in it
        try:
            yield from enumerate(json.loads(data), 1)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"the manifest begins as a list and is no JSON ({error}); expected one list of objects, or "
                "an object in each line. Mend it."
            ) from error
        return
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            yield number, json.loads(raw)
        except (ValueError, RecursionError) as error:
            yield (
                number,
                RequestError(f'the line is no JSON ({error}); expected an object such as {{"text": "Hi."}}.'),
            )


def _csv_rows(path: Path, data: bytes, ending: str) -> Iterator[tuple[int, Any]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the manifest {path.name} is not UTF-8 ({error}). Save it so.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = _delimiter(text, "\t" if ending == ".tsv" else ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise RequestError(f"the manifest {path.name} is no CSV ({error}). Mend its first line.") from error
    if "text" not in names:
        raise RequestError(
            f"the manifest {path.name} has no column `text`, but {', '.join(names)[:200] or 'nothing'}; "
            "expected a first line with the columns' names, with commas, semicolons or tabs between."
        )
    reader.fieldnames = names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"the manifest {path.name} has the column {twice!r} twice; expected it once.")
    last = reader.line_num
    try:
        for row in reader:
            start, last = last + 1, reader.line_num
            if None in row:
                yield (
                    start,
                    RequestError("the line has more cells than there are columns. Quote cells with commas."),
                )
            else:
                yield start, {name: cell for name, cell in row.items() if cell not in ("", None)}
    except csv.Error as error:
        yield last + 1, RequestError(f"the rest of the file is no CSV ({error}). Mend the line.")


def _delimiter(text: str, usual: str) -> str:
    """What parts the columns: the sign that makes a column `text` of the first line, as spreadsheets of many
    countries write semicolons."""
    first = text.partition("\n")[0]
    for sign in (usual, ",", ";", "\t"):
        names = next(csv.reader([first], delimiter=sign), [])
        if "text" in [name.strip().lower() for name in names]:
            return sign
    return usual


def _item(line: int, row: Any, base: Job, folder: Path) -> Item:
    name = f"{line:05d}"
    try:
        if isinstance(row, RequestError):
            raise row
        if not isinstance(row, Mapping):
            raise RequestError("the line is no object; expected one with `text`.")
        given = dict(row)
        name, form = _name(given.pop("name", None) or name, given.pop("format", None), base.format)
        text = given.pop("text", None)
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"the text is {text!r}; expected something to say.", field="text")
        model = given.pop("model", None)
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise RequestError(f"the model is {model!r}; expected a name.", field="model")
        if "style" in given:
            given.setdefault("instruction", given.pop("style"))
        fields = job_fields(given, folder=folder)
        return Item(line, name, _over(base, model, {**fields, "text": text, "format": form}))
    except RequestError as error:
        return Item(line, name, None, str(error))


def _over(base: Job, model: str | None, fields: dict[str, Any]) -> Job:
    for home in ("settings", "sampling", "options"):
        fields[home] = {**getattr(base, home), **fields[home]}
    if "voice" in fields:
        fields = {"transcript": None, **fields}
    if model is not None:
        fields["model"] = model
    return replace(base, **fields)


def _name(given: Any, form: Any, default: str) -> tuple[str, str]:
    """A name that every system takes, and the format that its ending or the item says."""
    if not isinstance(given, (str, int)) or isinstance(given, bool):
        raise RequestError(f"the name is {given!r}; expected text.", field="name")
    name = str(given).strip()
    stem, dot, ending = name.rpartition(".")
    known = next((f.name for f in FORMATS.values() if dot and f".{ending.lower()}" in f.suffixes), None)
    if form is not None and not isinstance(form, str):
        raise RequestError(f"the format is {form!r}; expected one of {', '.join(FORMATS)}.", field="format")
    chosen = find_format(form).name if form else known or default
    stem = stem if known is not None else name
    is_odd = any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in stem)
    if is_odd or not stem or stem.startswith(".") or stem[-1] in " ." or len(stem.encode()) > 200:
        raise RequestError(
            f"the name {name[:80]!r} is none for a file; expected letters and digits without / and the like.",
            field="name",
        )
    if stem.casefold() in _RESERVED:
        raise RequestError(
            f"the name {name!r} is kept by some systems for themselves. Choose another.", field="name"
        )
    return stem, chosen
