"""From a request to prompts: whose voice, with which emotion, which texts in which segments; or why not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sonant.engine.model import Prompt, Unspeakable
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.indextts2 import emotion
from sonant.families.indextts2.classifier import EmotionClassifier
from sonant.families.indextts2.config import IndexConfig
from sonant.families.indextts2.decoder import CodeFeatures, DecodeInputs
from sonant.families.indextts2.front_end import FrontEnd, ReadingMode, SegmentIds
from sonant.families.indextts2.gpt import IndexGpt
from sonant.families.indextts2.options import SAMPLING, IndexOptions
from sonant.families.indextts2.reference import ReferenceEncoder
from sonant.families.indextts2.s2mel import S2Mel
from sonant.families.indextts2.search import SearchSettings
from sonant.families.indextts2.segments import split_by_punctuation
from sonant.families.indextts2.semantic_codec import HalfRateCodec, SemanticCodec
from sonant.families.indextts2.vocoder import BigVgan
from sonant.nn.tap import tap
from sonant.request.audio import Audio
from sonant.request.seeds import segment_seed
from sonant.request.speech import ModelSpec, SpeechRequest, Style
from sonant.request.voice import Voice
from sonant.voices.content_cache import ContentCache, audio_key

# Seconds of codes that a segment may take at most: a start, then so many for each piece of text. Speech takes
# about a fifth of a second a piece; the limit only ends what never stops.
SECONDS_AT_LEAST = 3.0
SECONDS_PER_PIECE = 0.5
FEATURE_RATE = 50  # Hz
EMOTIONS_KEPT = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexParts:
    """The networks and tables of one checkpoint."""

    config: IndexConfig
    text: FrontEnd
    gpt: IndexGpt
    s2mel: S2Mel
    codec: SemanticCodec | HalfRateCodec
    features: CodeFeatures
    vocoder: BigVgan
    reference: ReferenceEncoder
    speaker_groups: tuple[Tensor, ...]
    """Style vectors [n, S] of each emotion's speakers."""
    emotion_groups: tuple[Tensor, ...]
    """Emotion vectors [n, D] of each emotion's speakers."""
    classifier: EmotionClassifier | None


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexInputs:
    """One segment: what the codes follow, how they are chosen, and what the decoder needs."""

    prefix: Tensor
    """[P, D]"""
    prefix_length: int
    """Rows the original counts: P and its left padding."""
    search: SearchSettings
    decode: DecodeInputs


class Preparing:
    """What one checkpoint is told, made from requests. The caches hold pure functions of their keys."""

    def __init__(self, parts: IndexParts, spec: ModelSpec, device: torch.device) -> None:
        self.parts = parts
        self.spec = spec
        self.device = device
        self._clip_emotions: ContentCache[Tensor] = ContentCache(EMOTIONS_KEPT)
        self._text_emotions: ContentCache[tuple[float, ...]] = ContentCache(EMOTIONS_KEPT)

    def clip_emotion(self, audio: Audio) -> Tensor:
        """e(clip) [D] of an emotion clip, remembered by content."""

        def make() -> Tensor:
            features = self.parts.reference.emotion(audio)
            return self.parts.gpt.emotion_vector(features).float().cpu()

        return self._clip_emotions.get(audio_key(audio), make)

    def text_emotion(self, text: str) -> tuple[float, ...]:
        """Eight numbers inferred from words, remembered by text."""
        classifier = self.parts.classifier
        if classifier is None:
            raise UnsupportedError(
                "this checkpoint folder lacks the text-to-emotion model (qwen0.6bemo4-merge). Download it, "
                "or give an emotion vector or clip.",
                field="emotion_text",
            )
        return self._text_emotions.get(text, lambda: classifier.classify(text))

    def emotion(self, voice: Voice, style: Style, text: str, options: IndexOptions, seed: int) -> Tensor:
        """The emotion vector [D] of a request, from whichever of its controls is used.

        A clip is blended with the voice by the strength. Numbers, given or inferred, replace the clip:
        the voice's own emotion is blended in full, then mixed with the numbers scaled by the strength.
        """
        base, own = voice.tensors["emotion.base"], voice.tensors["emotion.own"]
        if style.emotion_audio is not None:
            return emotion.blend(base, self.clip_emotion(style.emotion_audio), style.emotion_strength)
        blended = emotion.blend(base, own, 1.0)
        vector: Sequence[float]
        if style.emotion_vector is not None:
            vector = style.emotion_vector
            if options.emotion_bias:
                vector = emotion.balanced(vector)
        elif style.emotion_text is not None or style.emotion_from_text:
            vector = self.text_emotion(style.emotion_text if style.emotion_text is not None else text)
        else:
            return blended
        vector = emotion.with_strength(vector, style.emotion_strength)
        p = self.parts
        if style.emotion_random:
            chosen = options.emotion_random_seed
            rng = random.Random(seed if chosen is None else chosen)
            rows = emotion.random_rows(rng, [len(group) for group in p.emotion_groups])
        else:
            rows = emotion.nearest_rows(voice.tensors["style"][0], p.speaker_groups)
        mixed = emotion.mixed_rows(vector, p.emotion_groups, rows)
        return emotion.add_vector(blended, mixed, vector)

    def units(self, text: str) -> list[str]:
        """The segments that the text becomes, as the vocabulary spells them."""
        longest = self.parts.config.gpt.max_text_tokens - 2
        options = IndexOptions()
        limit = min(options.segment_pieces, longest)
        found = self.parts.text.segments_of(
            text, None, options, limit=limit, reading=ReadingMode(out=False, original=False)
        )
        return [segment.text for segment in found]

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """Each segment's prompt when it is wanted; the text is read out and cut at first. See
        `SpeechModel.each_prompt`."""
        voice = self._checked(request)
        gpt = self.parts.config.gpt
        longest = gpt.max_text_tokens if self.parts.config.is_multilingual else gpt.max_text_tokens - 2
        options = IndexOptions.of(request.options, longest_segment=longest)
        seed = request.seed if request.seed is not None else 0
        tensors = {name: tensor.to(self.device) for name, tensor in voice.tensors.items()}
        found = self._segments(request, voice, options, limit=min(options.segment_pieces, longest), seed=seed)
        following = next(found, None)
        index = 0
        while following is not None:
            (segment, vector), following = following, next(found, None)
            ids = tap("text.ids", torch.tensor(segment.ids)).tolist()
            segment = replace(segment, ids=tuple(ids))
            made = self._prompt(segment, tensors, vector, request, options, seed=segment_seed(seed, index))
            yield made if following is not None else replace(made, pause_after=0.0)
            index += 1

    def _segments(
        self, request: SpeechRequest, voice: Voice, options: IndexOptions, *, limit: int, seed: int
    ) -> Iterator[tuple[SegmentIds, Tensor]]:
        """Segments of the text, each with the emotion vector [D] of the stretch of text that it is from."""
        most = options.piece_characters
        texts = [request.text] if most is None else split_by_punctuation(request.text, most)
        for text in texts:
            # The engine has put the request's own glossary into the text; the checkpoint's is applied here.
            segments = self.parts.text.segments_of(
                text, request.language, options, limit=limit, reading=ReadingMode.of(request.normalize, text)
            )
            if segments:
                vector = tap("emotion.vector", self.emotion(voice, request.style, text, options, seed))
                vector = vector.to(self.device)
                yield from ((segment, vector) for segment in segments)

    def _checked(self, request: SpeechRequest) -> Voice:
        voice = request.voice
        if request.speed != 1.0 and "speed" not in self.spec.capabilities:
            raise UnsupportedError(
                f"speed is {request.speed}; {self.spec.name} speaks at its own pace. Leave speed out.",
                field="speed",
            )
        if request.speed != 1.0 and "duration_factor" in request.options:
            raise RequestError(
                f"speed {request.speed:g} and duration_factor {request.options['duration_factor']} were both "
                "given; a duration factor is 1 / speed. Keep one of them.",
                field="speed",
            )
        if not isinstance(voice, Voice):
            raise RequestError(
                f"{self.spec.name} needs the voice of a clip; found {voice!r}. Pass a clip or a stored "
                "voice.",
                field="voice",
            )
        if voice.family != self.spec.family or voice.fingerprint != self.spec.fingerprint:
            raise VoiceError(
                f"voice {voice.name!r} was made by {voice.family} ({voice.fingerprint}); this model is "
                f"{self.spec.family} ({self.spec.fingerprint}). "
                "Encode the reference again with: sonant voice add NAME CLIP"
            )
        return voice

    def _prompt(
        self,
        segment: SegmentIds,
        voice: dict[str, Tensor],
        vector: Tensor,
        request: SpeechRequest,
        options: IndexOptions,
        *,
        seed: int,
    ) -> Prompt:
        s, config = request.sampling.over(self.spec.sampling), self.parts.config.gpt
        ids = segment.ids
        # every one of them has a default in the spec
        assert not {*SAMPLING} - s.given().keys()
        beams, steps, guidance = s.beams or 1, s.flow_steps or 1, s.guidance or 0.0
        rate = FEATURE_RATE / self.parts.config.codec.downsample_scale
        guard = int(rate * (SECONDS_AT_LEAST + SECONDS_PER_PIECE * len(ids)))
        ceiling = min(s.max_frames or 1, guard, config.max_mel_tokens)
        gpt = self.parts.gpt
        prefix = gpt.prefix(voice["latents"], vector, ids, segment.language)
        search = SearchSettings(
            beams=beams,
            greedy=bool(s.greedy),
            temperature=s.temperature or 1.0,
            top_k=s.top_k or 0,
            top_p=s.top_p or 1.0,
            repetition_penalty=s.repetition_penalty or 1.0,
            length_penalty=s.length_penalty or 0.0,
            limit=ceiling,
            stop=config.stop_mel_token,
            start=config.start_mel_token,
            typical_mass=options.typical_mass,
            early_stopping=options.early_stopping,
            mask_start=options.mask_start_code,
        )
        decode = DecodeInputs(
            ids=ids,
            latents=voice["latents"],
            emotion=vector,
            style=voice["style"],
            mel=voice["mel"],
            condition=voice["condition"],
            steps=steps,
            guidance=guidance,
            seed=seed,
            duration=options.duration_factor or 1.0 / request.speed,
        )
        length = gpt.prefix_length(voice["latents"], ids)
        return Prompt(
            text=segment.text.strip(),
            sampling=s,
            seed=seed,
            ceiling=ceiling,
            inputs=IndexInputs(prefix=prefix, prefix_length=length, search=search, decode=decode),
            pause_after=options.interval_silence_ms / 1000,
            unspoken=segment.unknown,
            rows=beams,
            positions=prefix.shape[0] + 1 + ceiling,
        )
