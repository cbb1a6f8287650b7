"""The released repositories as sparse folders: true names, headers and configs, weights that are holes."""

import base64
import itertools
import json
import math
import mmap
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sonant.bench.random_weights import spelled_vocabulary
from sonant.catalogue.hub import choose_files, known

DATA = Path(__file__).parent / "data" / "releases"
DTYPES = {"F32": (torch.float32, 4), "BF16": (torch.bfloat16, 2), "I64": (torch.int64, 8)}
WORDS = (
    "One",
    " second",
    " of",
    " speech",
    " is",
    " all",
    " that",
    " we",
    " ask",
    " for",
    " here",
    " today",
    ".",
)
SENTENCE = "".join(WORDS)
ORDINARY_IDS, ASSISTANT = 151_643, 77_091
DIVIDED = ("weight_v", "original1")


@cache
def catalogue(name="releases"):
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def tensors_of(inventory):
    """(name, dtype, shape) of every tensor of an inventory."""
    for line in catalogue("inventories")[inventory.rpartition(":")[2]]:
        dtype, shape, name = line.split(" ", 2)
        sizes = [] if shape == "-" else [int(size) for size in shape.split("x")]
        pieces = [_numbers(piece) for piece in re.split(r"(\{[^}]*\})", name)]
        for chosen in itertools.product(*pieces):
            yield "".join(chosen), dtype, sizes


def _numbers(piece):
    if not piece.startswith("{"):
        return [piece]
    spans = [part.partition("-") for part in piece.strip("{}").split(",")]
    return [str(n) for first, _, last in spans for n in range(int(first), int(last or first) + 1)]


def tensor_bytes(repository, path):
    """Bytes of the tensors that a file holds, one storage counted once."""
    release = catalogue()[repository]
    tied = release.get("tied", {})
    listed = tensors_of(release["weights"][path])
    return sum(math.prod(shape) * DTYPES[dtype][1] for name, dtype, shape in listed if name not in tied)


def sources(name):
    """(repository, path there, path in the model's folder) of all that `pull` takes for a known model."""
    model = known(name)
    own, missing = choose_files(catalogue()[model.repository]["files"], model.files)
    assert not missing
    yield from ((model.repository, path, path) for path in own)
    for companion in model.companions:
        yield from ((companion.repository, path, place) for path, place in companion.files.items())


def lay_out(name, folder):
    """The folder that `sonant pull NAME` makes, of a few kilobytes on disk."""
    for repository, path, place in sources(name):
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(repository, path, target)
    return folder


def _write(repository, path, target):
    release = catalogue()[repository]
    small = release["small"].get(path)
    base = target.name
    if path in release["weights"]:
        _write_weights(release, path, target)
    elif path.endswith("tokenizer_config.json"):
        target.write_text(json.dumps(_tokenizer_config(small)), encoding="utf-8")
    elif small is not None:
        if isinstance(small, str):
            small = catalogue("shared").get(small, small)
        target.write_text(small if isinstance(small, str) else json.dumps(small), encoding="utf-8")
    elif base == "vocab.json":
        target.write_text(json.dumps(_spelled()[0], ensure_ascii=False), encoding="utf-8")
    elif base == "merges.txt":
        target.write_text("#version: 0.2\n" + "\n".join(_spelled()[1]) + "\n", encoding="utf-8")
    elif base == "bpe.model":
        target.write_bytes(_pieces())
    elif base.endswith(".tiktoken"):
        target.write_bytes(_ranks())
    elif base == "tokenizer.json":
        _classifier_tokenizer().save(str(target))
    elif base == "chat_template.jinja":
        target.write_text("{{ messages[-1].content }}", encoding="utf-8")
    else:
        with target.open("wb") as file:
            file.truncate(release["files"][path] or 0)


def _write_weights(release, path, target):
    wrapper = release["weights"][path].rpartition(":")[0]
    listed = list(tensors_of(release["weights"][path]))
    if path.endswith(".safetensors"):
        _write_safetensors(listed, target)
        return
    tensors = {name: torch.empty(shape, dtype=DTYPES[dtype][0]) for name, dtype, shape in listed}
    tensors |= {one: tensors[other] for one, other in release.get("tied", {}).items() if one in tensors}
    data = tensors["-"] if tensors.keys() == {"-"} else tensors
    if wrapper == "net":
        parts = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            parts.setdefault(head, {})[rest] = tensor
        rest = release["files"][path] or 0
        states = max(0, rest - sum(tensor.nbytes for tensor in tensors.values())) // 4
        data = {"net": parts, "optimizer": {"state": {"0": torch.empty(states)}}, "iters": 1}
    elif wrapper:
        data = {wrapper: tensors}
    with torch.serialization.skip_data():
        torch.save(data, target)


def _write_safetensors(listed, target):
    header, end = {}, 0
    for name, dtype, shape in listed:
        begin, end = end, end + math.prod(shape) * DTYPES[dtype][1]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def make_speakable(folder):
    """One value in each row of a weight that is divided by its norm, and variances of 1; the rest stays 0."""
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):  # so that changes reach the file
        for path in [path for suffix in ("pt", "pth", "bin") for path in folder.rglob(f"*.{suffix}")]:
            _waken(torch.load(path, weights_only=True, mmap=True))
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name.endswith(DIVIDED):
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                values = np.memmap(path, np.float32, "r+", begin, ((end - begin) // 4,))
                values[:: math.prod(entry["shape"][1:])] = 1


def _waken(tree):
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            _waken(value)
        elif name.endswith(DIVIDED):
            value.flatten(1)[:, 0] = 1
        elif name.endswith("var"):
            value.fill_(1)


@cache
def _spelled():
    """Words of the sentence, and the one that Qwen3-TTS's prompt is checked by at its released id."""
    vocabulary, merges = spelled_vocabulary((*WORDS, "assistant"), ORDINARY_IDS)
    filler = next(piece for piece, index in vocabulary.items() if index == ASSISTANT)
    vocabulary[filler], vocabulary["assistant"] = vocabulary["assistant"], ASSISTANT
    return vocabulary, merges


def _tokenizer_config(small):
    """The added tokens as released, with the switches that all of them share."""
    data = catalogue("shared")[small] if isinstance(small, str) else small
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {index: {**plain, **token} for index, token in data["added_tokens_decoder"].items()}
    return {**data, "added_tokens_decoder": added}


def _pieces():
    from sonant.bench.indextts2_checkpoint import _piece_model

    return _piece_model()


def _ranks():
    """IndexTTS-2.5's vocabulary by form: 58836 ranks, the 256 bytes in the order of the release first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    single = [bytes((value,)) for value in (*printable, *sorted(set(range(256)) - set(printable)))]
    tokens = [*single, *(b"filler%d" % n for n in range(58_836 - 256))]
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def _classifier_tokenizer():
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.BPE(dict(_spelled()[0]), []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_tokens([AddedToken(f"<|{name}|>", special=True) for name in ("endoftext", "im_start", "im_end")])
    return made
