"""IndexTTS2 and IndexTTS-2.5 behind the family contract.

    voice + emotion + text -> prompts -> beams of semantic codes, batched over utterances -> `IndexDecoder`

A step feeds one code into every row of every running utterance and gives nothing until an utterance's
beams end; then it gives all of its codes at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sonant.engine.model import Ending, Prompt, Step, Unspeakable, Utterance, every_prompt
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.indextts2 import emotion
from sonant.families.indextts2.classifier import EmotionClassifier
from sonant.families.indextts2.config import IndexConfig
from sonant.families.indextts2.decoder import CodeFeatures, DecodeInputs, IndexDecoder
from sonant.families.indextts2.front_end import FrontEnd, ReadingMode, SegmentIds
from sonant.families.indextts2.gpt import IndexGpt, cached_code_position
from sonant.families.indextts2.options import SAMPLING, IndexOptions
from sonant.families.indextts2.reference import ReferenceEncoder
from sonant.families.indextts2.s2mel import S2Mel
from sonant.families.indextts2.search import Search, SearchSettings, Turn, make_search
from sonant.families.indextts2.segments import split_by_punctuation
from sonant.families.indextts2.semantic_codec import HalfRateCodec, SemanticCodec
from sonant.families.indextts2.vocoder import BigVgan
from sonant.nn.cache import KVCache
from sonant.nn.row_steps import RowSteps
from sonant.nn.sampling import chance_of, generator
from sonant.nn.tap import is_tapped, tap
from sonant.request.audio import Audio
from sonant.request.checks import check_clip
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


@dataclass(eq=False)
class _SearchState:
    """State of one utterance: its search, and the logits [beams, V] that the next choice is made from."""

    search: Search
    logits: Tensor
    codes: int = 0


class IndexTTS2:
    """One loaded checkpoint. The caches hold pure functions of their keys."""

    def __init__(self, parts: IndexParts, spec: ModelSpec, *, device: torch.device | str) -> None:
        self.parts = parts
        self.spec = spec
        self.device = torch.device(device)
        self._cache: KVCache | None = None
        self._steps: RowSteps | None = None
        self._steps_in_one_piece = self.device.type != "cpu"
        self._clip_emotions: ContentCache[Tensor] = ContentCache(EMOTIONS_KEPT)
        self._text_emotions: ContentCache[tuple[float, ...]] = ContentCache(EMOTIONS_KEPT)

    # -- voices and emotions --------------------------------------------------------------------

    @torch.inference_mode()
    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Everything a second sentence needs, so that it runs no encoder; the transcript is only kept."""
        check_clip(audio, self.spec, field="voice", what="reference clip")
        p = self.parts
        speaker = p.reference.speaker(audio)
        own = p.reference.emotion(audio)
        tensors = {
            "semantic": speaker.semantic,
            "style": speaker.style,
            "mel": speaker.mel,
            "condition": speaker.condition,
            "latents": p.gpt.speaker_latents(speaker.semantic, speaker.style).float(),
            # e(speaker) by the speaker's path, and by the path of emotion clips
            "emotion.base": p.gpt.emotion_vector(speaker.semantic).float(),
            "emotion.own": p.gpt.emotion_vector(own).float(),
        }
        return Voice(
            family=self.spec.family,
            fingerprint=self.spec.fingerprint,
            tensors={name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            transcript=transcript,
            clip=audio,
        )

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

    # -- prompts --------------------------------------------------------------------------------

    def units(self, text: str) -> list[str]:
        """The segments that the text becomes, as the vocabulary spells them."""
        longest = self.parts.config.gpt.max_text_tokens - 2
        options = IndexOptions()
        limit = min(options.segment_pieces, longest)
        found = self.parts.text.segments_of(
            text, None, options, limit=limit, reading=ReadingMode(out=False, original=False)
        )
        return [segment.text for segment in found]

    @torch.inference_mode()
    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each segment. Emotion clips and texts are encoded here, once for all of them."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives; the text is read out and cut at first, each segment when it is wanted."""
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

    # -- codes ----------------------------------------------------------------------------------

    def allocate(self, slots: int, positions: int) -> None:
        """Room for `slots` rows of `positions`."""
        config = self.parts.config.gpt
        self._cache = self._steps = None  # the old one is freed before the new one is made
        self._cache = KVCache(
            layers=config.layers,
            slots=slots,
            heads=config.heads,
            head_dim=config.model_dim // config.heads,
            capacity=positions + self._steps_in_one_piece,  # one for rows that rest
            dtype=self.parts.gpt.dtype,
            device=self.device,
            shares=self.parts.gpt.native is not None and not self._steps_in_one_piece,
        )
        if self._steps_in_one_piece:
            self._steps = self.parts.gpt.row_steps(self._cache, slots=slots)

    def grow(self, positions: int) -> bool:
        """Rows of `positions`, with what is in them; False where steps were made for the old ones."""
        if self._cache is None or self._steps is not None:
            return False
        self._cache = self._cache.grown(positions)
        return True

    def step_in_one_piece(self) -> None:
        """From the next `allocate` on, a step is one piece of work that waits for the device once: what
        everything but a CPU does from the start."""
        self._steps_in_one_piece = True

    def warm_up(self) -> None:
        """Record the steps of every size of batch, where steps are recorded (CUDA)."""
        if self._steps is not None and self._steps.replay.records:
            with torch.inference_mode():
                self._steps.warm_up()

    @property
    def least_positions(self) -> int:
        """Cache positions worth having from the start: recorded steps are lost when the cache grows."""
        return 2048 if self.device.type == "cuda" else 256

    @property
    def cache(self) -> KVCache:
        """The rows of everything that is being spoken."""
        assert self._cache is not None, "allocate comes first"
        return self._cache

    @torch.inference_mode()
    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """Prefill one row and copy it to the utterance's other beams."""
        inputs: IndexInputs = prompt.inputs
        for slot in slots:
            self.cache.free(slot)
        first = slots[0]
        rows = self.cache.rows([first], inputs.prefix.shape[0] + 1)
        logits = self.parts.gpt.prefill(inputs.prefix, rows)
        self.cache.reorder(list(slots), [first] * len(slots))
        settings = replace(inputs.search, limit=min(inputs.search.limit, prompt.ceiling))
        search = make_search(settings, inputs.prefix_length)
        state = _SearchState(search, logits.expand(len(slots), -1))
        return Utterance(
            prompt=prompt,
            slots=tuple(slots),
            generator=generator(prompt.seed, "tokens"),
            state=state,
        )

    @torch.inference_mode()
    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """One choice for each utterance, then one pass for the rows of all that go on."""
        steps: list[Step] = []
        going: list[tuple[Utterance, Turn]] = []
        for utterance in utterances:
            state: _SearchState = utterance.state
            turn = state.search.advance(state.logits, utterance.generator)
            if turn is None:
                steps.append(self._ended(utterance))
                continue
            sources = [utterance.slots[row] for row in turn.sources]
            prefix = utterance.prompt.inputs.prefix.shape[0] + 1  # the start code is in it
            self.cache.reorder(list(utterance.slots), sources, start=prefix)
            state.codes += 1
            going.append((utterance, turn))
            steps.append(Step(torch.zeros(0, 1, dtype=torch.long), is_final=False))
        if going:
            self._feed(going)
        return steps

    def ending(self, utterance: Utterance) -> Ending | None:
        """How near the stop code is, in the beam that is nearest to it."""
        stop = self.parts.config.gpt.stop_mel_token
        return min((Ending(*chance_of(stop, row)) for row in utterance.state.logits), key=lambda e: e.rank)

    def _feed(self, going: list[tuple[Utterance, Turn]]) -> None:
        slots = [slot for utterance, _ in going for slot in utterance.slots]
        codes = [code for _, turn in going for code in turn.codes]
        places = [utterance.state.codes for utterance, turn in going for _ in turn.codes]
        if self._steps is not None and not is_tapped():
            logits = self._steps(codes, [cached_code_position(place) for place in places], slots)
        else:
            rows = self.cache.rows(slots, 1)
            logits = self.parts.gpt.step(torch.tensor(codes, device=self.device), places, rows)
        start = 0
        for utterance, _ in going:
            count = len(utterance.slots)
            utterance.state.logits = logits[start : start + count]
            start += count

    def _ended(self, utterance: Utterance) -> Step:
        search: SearchSettings = utterance.prompt.inputs.search
        codes = utterance.state.search.result
        has_stop = search.stop in codes
        spoken = codes[: codes.index(search.stop)] if has_stop else codes
        for slot in utterance.slots:
            self.cache.free(slot)
        tokens = torch.tensor(spoken, dtype=torch.long).reshape(-1, 1)
        return Step(tokens, is_final=True, at_ceiling=not has_stop)

    # -- sound ----------------------------------------------------------------------------------

    def decoder(self, prompt: Prompt, *, streaming: bool, noise: Tensor | None = None) -> IndexDecoder:
        """A decoder for this prompt's codes; `streaming` changes nothing, a segment is spoken whole.

        `noise` [1, M, T] replaces the flow's own start.
        """
        p = self.parts
        return IndexDecoder(
            features=p.features,
            s2mel=p.s2mel,
            vocoder=p.vocoder,
            inputs=prompt.inputs.decode,
            noise=noise,
        )
