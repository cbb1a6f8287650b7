"""A checkpoint folder -> a model that speaks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sonant.checkpoints.files import fingerprint
from sonant.errors import CheckpointError
from sonant.families.indextts2 import weights
from sonant.families.indextts2.classifier import EmotionClassifier
from sonant.families.indextts2.config import CONFIG_NAME, IndexConfig, read_config
from sonant.families.indextts2.decoder import CodeFeatures, DecodedFeatures, LatentFeatures
from sonant.families.indextts2.front_end import FrontEnd
from sonant.families.indextts2.layout import IndexFiles, locate
from sonant.families.indextts2.model import IndexTTS2
from sonant.families.indextts2.multilingual import CODES, MultilingualFrontEnd
from sonant.families.indextts2.options import MULTILINGUAL_OPTIONS, OPTIONS, PRESETS, SAMPLING
from sonant.families.indextts2.preparing import IndexParts
from sonant.families.indextts2.reference import ReferenceEncoder
from sonant.families.indextts2.s2mel import FRAMES_PER_FEATURE
from sonant.families.indextts2.semantic_codec import SemanticCodec
from sonant.families.indextts2.text import TEXT_MARKS, Normaliser, TextFrontEnd, read_glossary
from sonant.families.indextts2.vocabulary import Vocabulary
from sonant.nn.precision import stack_plan
from sonant.nn.quantized import PackedStore
from sonant.request.speech import ModelSpec

LICENCE = "bilibili Model Use License Agreement (weights); the auxiliary models have their own"


def load_model(
    folder: Path, *, device: torch.device | str, dtype: torch.dtype, precision: str | None = None
) -> IndexTTS2:
    """The model of a folder; `dtype` is the GPT's, everything else is float32.

    `precision` narrows the GPT's weights on a CPU and, unless it is lossless, what the flow multiplies.
    Raises CheckpointError, ConfigError.
    """
    config = read_config(folder / CONFIG_NAME)
    files = locate(folder, config)
    spec = _spec(folder, files, config)
    plan = None if precision is None else stack_plan(precision, config.gpt.layers)
    store: PackedStore | None = None
    if precision is not None and plan is not None:
        dtype = torch.float32  # activations and cache
        store = None if plan.is_lossless else PackedStore.of(spec.fingerprint, precision)
    w2v_bert, w2v_config = weights.load_w2v_bert(files.w2v_bert, device=device)
    gpt = weights.load_gpt(
        files.gpt,
        config,
        w2v_config.hidden_size,
        device=device,
        dtype=dtype,
        plan=plan,
        store=store,
    )
    is_narrow = plan is not None and not plan.is_lossless
    s2mel = weights.load_s2mel(files.s2mel, config, device=device, narrow=is_narrow)
    codec = weights.load_codec(files.codec, config, device=device)
    mean, deviation = weights.load_statistics(files.w2v_stats)
    _need_shape(files.w2v_stats, mean, (w2v_config.hidden_size,))
    _need_shape(files.w2v_stats, deviation, (w2v_config.hidden_size,))
    vocoder = weights.load_bigvgan(files.bigvgan, files.bigvgan_config, device=device)
    if vocoder.config.upsampling != config.s2mel.spectrogram.hop_length:
        raise CheckpointError(
            f"the vocoder makes {vocoder.config.upsampling} samples of a frame, the mel has "
            f"{config.s2mel.spectrogram.hop_length}. Use the vocoder that config.yaml names: "
            f"{config.vocoder_name}."
        )
    speakers = weights.load_tensor(files.speaker_matrix, "spk_matrix")
    emotions = weights.load_tensor(files.emotion_matrix, "emo_matrix")
    if not len(speakers) == len(emotions) == sum(config.emo_num):
        raise CheckpointError(
            f"the speaker and emotion matrices have {len(speakers)} and {len(emotions)} rows; emo_num in "
            f"config.yaml sums to {sum(config.emo_num)}. Use the files of one release."
        )
    campplus = weights.load_campplus(files.campplus, device=device)
    _need_shape(files.speaker_matrix, speakers, (len(speakers), campplus.width))
    _need_shape(files.emotion_matrix, emotions, (len(emotions), config.gpt.model_dim))
    features: CodeFeatures
    quantising: SemanticCodec | None = None
    if isinstance(codec, SemanticCodec):
        features, quantising = LatentFeatures(gpt, codec, s2mel), codec
    else:
        features = DecodedFeatures(codec)
    classifier = None
    if files.classifier is not None:
        classifier = EmotionClassifier(files.classifier, device=device, dtype=dtype)
    parts = IndexParts(
        config=config,
        text=_front_end(files, config),
        gpt=gpt,
        s2mel=s2mel,
        codec=codec,
        features=features,
        vocoder=vocoder,
        reference=ReferenceEncoder(
            w2v_bert=w2v_bert,
            mean=mean.to(device),
            deviation=deviation.to(device),
            codec=quantising,
            campplus=campplus,
            regulator=s2mel.length_regulator,
            config=config.s2mel,
            device=device,
        ),
        speaker_groups=torch.split(speakers, list(config.emo_num)),
        emotion_groups=torch.split(emotions, list(config.emo_num)),
        classifier=classifier,
    )
    return IndexTTS2(parts, spec, device=device)


def _need_shape(path: Path, found: Tensor, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise CheckpointError(
            f"{path} holds numbers of shape {tuple(found.shape)}; the networks beside it need {expected}. "
            "Use the files of one release."
        )


def _front_end(files: IndexFiles, config: IndexConfig) -> FrontEnd:
    glossary = read_glossary(files.glossary)
    if not config.is_multilingual:
        return TextFrontEnd(files.vocabulary, glossary)
    vocabulary = Vocabulary(files.vocabulary)
    if vocabulary.size != config.gpt.number_text_tokens:
        raise CheckpointError(
            f"{files.vocabulary} has {vocabulary.size} tokens with the special ones, the GPT "
            f"{config.gpt.number_text_tokens} (number_text_tokens in config.yaml). Use the files of one "
            "release."
        )
    return MultilingualFrontEnd(vocabulary, Normaliser(glossary), config.gpt.text_positions)


def describe_folder(folder: Path) -> ModelSpec:
    """The spec of a folder, from its config and the names of its files."""
    config = read_config(folder / CONFIG_NAME)
    return _spec(folder, locate(folder, config), config)


def _spec(folder: Path, files: IndexFiles, config: IndexConfig) -> ModelSpec:
    capabilities = {"clone", "emotion_vector", "emotion_audio", "seed"}
    if files.classifier is not None:
        capabilities.add("emotion_text")
    if config.is_multilingual:
        capabilities |= {"speed", "pronunciation"}
    features = config.s2mel.sample_rate / config.s2mel.spectrogram.hop_length / FRAMES_PER_FEATURE  # a second
    return ModelSpec(
        family="indextts2",
        name=config.name,
        fingerprint=fingerprint(folder, files.fingerprint_names()),
        sample_rate=config.s2mel.sample_rate,
        frame_rate=features / config.codec.downsample_scale,
        languages=tuple(CODES) if config.is_multilingual else ("chinese", "english"),
        capabilities=frozenset(capabilities),
        sampling=SAMPLING,
        presets={} if config.is_multilingual else PRESETS,
        options=MULTILINGUAL_OPTIONS if config.is_multilingual else OPTIONS,
        needs_voice=True,
        max_reference_seconds=600.0,  # the first 15 s of a clip are used
        min_reference_seconds=0.2,
        rows=SAMPLING["beams"],
        streams_by="segment",
        text_marks=TEXT_MARKS,
        licence=LICENCE,
        note="the first 15 s of a reference clip are listened to",
    )
