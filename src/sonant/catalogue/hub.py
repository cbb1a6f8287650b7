"""Known checkpoints, and where they lie on disk: fetched here, or in the cache of Hugging Face's client.

What a model needs of its repositories is an allow list: items of it are file names, or patterns with `*`.
`a|b` takes the first that is there, `a+b` is several files that belong together, and `a?` may be absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sonant.checkpoints.hub_cache import hub_snapshots, user_hub_cache
from sonant.errors import CheckpointError, RequestError


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Files of another repository that a model needs beside its own."""

    repository: str
    files: Mapping[str, str]
    """Path in the repository -> path in the model's folder."""
    modelscope: str | None = None
    """Its name on ModelScope where that is another."""


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A released checkpoint: its name here, its repository on the hub, what it is for and what it needs."""

    name: str
    repository: str
    family: str
    about: str
    licence: str
    files: tuple[str, ...]
    """The allow list; everything else in the repository stays there."""
    variants: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Variant -> which item of `files` it replaces by what."""
    companions: tuple[Companion, ...] = ()

    def items(self, variant: str | None = None) -> tuple[str, ...]:
        """The allow list of a variant. Raises RequestError for one that there is not."""
        if variant is None:
            return self.files
        if variant not in self.variants:
            names = ", ".join(self.variants) or "none"
            raise RequestError(
                f"{self.name} has no variant {variant!r}; it has: {names}. Leave --variant out, or name one.",
                field="variant",
            )
        replaced = self.variants[variant]
        return tuple(replaced.get(item, item) for item in self.files)


def choose_files(there: Iterable[str], items: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files that an allow list takes of those that are there, and its items that found none."""
    names = sorted(set(there))
    chosen: list[str] = []
    missing: list[str] = []
    for item in items:
        for group in item.removesuffix("?").split("|"):
            found = [[name for name in names if fnmatchcase(name, part)] for part in group.split("+")]
            if all(found):
                chosen += [name for part in found for name in part if name not in chosen]
                break
        else:
            if not item.endswith("?"):
                missing.append(item.replace("|", " or ").replace("+", " and "))
    return chosen, missing


def _whole_or_shards(folder: str = "") -> str:
    whole = f"{folder}model.safetensors"
    return f"{whole}|{whole}.index.json+{folder}model-*.safetensors"


CODEC = ("speech_tokenizer/config.json", _whole_or_shards("speech_tokenizer/"))
QWEN3_TTS = (
    "config.json",
    _whole_or_shards(),
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "generation_config.json?",
    *CODEC,
)
COSYVOICE3_LANGUAGE = "llm.safetensors|llm.pt"
COSYVOICE3 = (
    "cosyvoice3.yaml",
    COSYVOICE3_LANGUAGE,
    "flow.safetensors|flow.pt",
    "hift.safetensors|hift.pt",
    "speech_tokenizer_v3.onnx",
    "campplus.onnx",
    "CosyVoice-BlankEN/config.json",
    "CosyVoice-BlankEN/vocab.json",
    "CosyVoice-BlankEN/merges.txt",
    "CosyVoice-BlankEN/tokenizer_config.json",
    "spk2info.safetensors|spk2info.pt?",
    "sonant.json?",
)
EMOTION = "qwen0.6bemo4-merge/"
INDEXTTS = (
    "config.yaml",
    "gpt.safetensors|gpt.pth",
    "s2mel.safetensors|s2mel.pth",
    "wav2vec2bert_stats.safetensors|wav2vec2bert_stats.pt",
    "feat1.safetensors|feat1.pt",
    "feat2.safetensors|feat2.pt",
    "glossary.yaml?",
    # Without the text-to-emotion model everything but emotion from words works.
    f"{EMOTION}config.json+{EMOTION}model.safetensors+{EMOTION}tokenizer.json?",
    f"{EMOTION}chat_template.jinja?",
    f"{EMOTION}generation_config.json?",
    f"{EMOTION}tokenizer_config.json?",  # the names of its marks, and elsewhere its template
)
KOKORO_GRAPH = "onnx/model_quantized.onnx"
# Where the release's own loader keeps the auxiliary models: flat, under hf_cache.
W2V_BERT = Companion(
    repository="facebook/w2v-bert-2.0",
    modelscope="AI-ModelScope/w2v-bert-2.0",
    files={
        name: f"hf_cache/w2v-bert-2.0/{name}"
        for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    },
)
SEMANTIC_CODEC = Companion(
    repository="amphion/MaskGCT",
    files={"semantic_codec/model.safetensors": "hf_cache/semantic_codec_model.safetensors"},
)
CAMPPLUS = Companion(
    repository="funasr/campplus",
    modelscope="iic/speech_campplus_sv_zh-cn_16k-common",
    files={"campplus_cn_common.bin": "hf_cache/campplus_cn_common.bin"},
)
BIGVGAN = Companion(
    repository="nvidia/bigvgan_v2_22khz_80band_256x",
    files={name: f"hf_cache/bigvgan/{name}" for name in ("config.json", "bigvgan_generator.pt")},
)

KNOWN: tuple[KnownModel, ...] = (
    *(
        KnownModel(
            name=f"qwen3-tts-{size.lower()}-{kind.lower()}",
            repository=f"Qwen/Qwen3-TTS-12Hz-{size}-{kind}",
            family="qwen3_tts",
            about=about,
            licence="Apache-2.0",
            files=QWEN3_TTS,
        )
        for size, kind, about in (
            ("0.6B", "Base", "clones a voice from a clip"),
            ("1.7B", "Base", "clones a voice from a clip"),
            ("0.6B", "CustomVoice", "nine named voices"),
            ("1.7B", "CustomVoice", "nine named voices, style instructions"),
            ("1.7B", "VoiceDesign", "makes a voice from a description"),
        )
    ),
    KnownModel(
        name="qwen3-tts-tokenizer-12hz",
        repository="Qwen/Qwen3-TTS-Tokenizer-12Hz",
        family="qwen3_tts",
        about="the speech tokenizer alone: sound to tokens and back",
        licence="Apache-2.0",
        files=("config.json", _whole_or_shards()),
    ),
    KnownModel(
        name="cosyvoice3-0.5b",
        repository="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
        family="cosyvoice3",
        about="zero-shot, cross-lingual, instruct, voice conversion",
        licence="Apache-2.0",
        files=COSYVOICE3,
        variants={"rl": {COSYVOICE3_LANGUAGE: "llm.rl.safetensors|llm.rl.pt"}},
    ),
    KnownModel(
        name="indextts2",
        repository="IndexTeam/IndexTTS-2",
        family="indextts2",
        about="cloning with emotion from audio, numbers or words",
        licence="bilibili Model Use License",
        files=(*INDEXTTS, "bpe.model"),
        companions=(W2V_BERT, SEMANTIC_CODEC, CAMPPLUS, BIGVGAN),
    ),
    KnownModel(
        name="indextts2.5",
        repository="IndexTeam/IndexTTS-2.5",
        family="indextts2",
        about="the same in five languages, with a control of duration",
        licence="bilibili Model Use License",
        files=(*INDEXTTS, "codec.safetensors|codec.pth", "multilingual_zh_ja_yue_char_del.tiktoken"),
        companions=(W2V_BERT, CAMPPLUS, BIGVGAN),
    ),
    KnownModel(
        name="kokoro",
        repository="onnx-community/Kokoro-82M-v1.0-ONNX",
        family="kokoro",
        about="54 voices in nine languages, mixtures of them; small",
        licence="Apache-2.0",
        files=("config.json", "tokenizer.json", KOKORO_GRAPH, "voices/*.bin"),
        variants={"full": {KOKORO_GRAPH: "onnx/model.onnx"}, "fp16": {KOKORO_GRAPH: "onnx/model_fp16.onnx"}},
    ),
)


def models_folder() -> Path:
    """Where fetched checkpoints lie: SONANT_MODELS, or the user's data folder."""
    given = os.environ.get("SONANT_MODELS")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_data_dir("sonant")) / "models"


def find_known(name: str) -> KnownModel | None:
    """The released checkpoint of this name or repository, if it is in the list."""
    wanted = name.lower()
    return next((m for m in KNOWN if wanted in (m.name, m.repository.lower())), None)


def known(name: str) -> KnownModel:
    """The released checkpoint of this name. Raises CheckpointError listing the names."""
    model = find_known(name)
    if model is None:
        raise _unknown(name)
    return model


def _unknown(name: str) -> CheckpointError:
    names = ", ".join(model.name for model in KNOWN)
    return CheckpointError(
        f"{name!r} is neither a folder on this machine nor a known model. "
        f"Known models: builtin, nano, {names}. A repository of a hub is named OWNER/NAME."
    )


def is_repository(name: str) -> bool:
    """Whether this could be a repository of a hub: OWNER/NAME."""
    owner, slash, rest = name.partition("/")
    plain = all(part and not part.startswith(".") for part in (owner, rest))
    return bool(slash) and plain and not set(name) & set("\\:~ ") and "/" not in rest


def folder_name(name: str) -> str:
    """The folder of a model below `models_folder`: its known name, or OWNER--NAME."""
    model = find_known(name)
    return model.name if model is not None else name.replace("/", "--")


def is_local(name: str) -> bool:
    """Whether `local` finds the model."""
    try:
        return local(name).is_dir()
    except CheckpointError:
        return False


def local(name: str) -> Path:
    """Folder of a known model or a repository on disk: fetched by `pull`, or in the user's hub cache.

    Raises CheckpointError when it is not there, or the cache holds it in part.
    """
    model = find_known(name)
    if model is None and not is_repository(name):
        raise _unknown(name)
    path = models_folder() / folder_name(name)
    if path.is_dir():
        return path
    lacking: list[str] = []
    for snapshot in hub_snapshots(user_hub_cache(), model.repository if model is not None else name):
        lacking = missing_in(snapshot, model) if model is not None else []
        if not lacking:
            return snapshot
    shown = model.name if model is not None else name
    partly = f" The cache has it without {', '.join(lacking)}." if lacking else ""
    raise CheckpointError(
        f"{shown} is not on this machine; looked for a folder of that name, for {path} and in the cache of "
        f"Hugging Face's client, {user_hub_cache()}.{partly} Fetch it with: sonant pull {shown}"
    )


def missing_in(folder: Path, model: KnownModel) -> list[str]:
    """What a folder lacks of a model's own files, whichever variant it holds."""
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    kinds = [choose_files(there, model.items(variant))[1] for variant in (None, *model.variants)]
    return min(kinds, key=len)
