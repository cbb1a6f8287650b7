"""From a request to prompts: whose voice, which language and instruction, in which segments; or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sonant.engine.model import Prompt, Unspeakable, attempt
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.config import FAMILY, ModelConfig
from sonant.families.qwen3_tts.fed import MAX_FED_FRAMES, FedInputs
from sonant.families.qwen3_tts.speech_tokenizer import SpeechTokenizer
from sonant.families.qwen3_tts.talker import Network
from sonant.request.seeds import segment_seed
from sonant.request.settings import TextLayout
from sonant.request.speech import ModelSpec, SpeechRequest, TextFeed, language_name
from sonant.request.voice import Voice
from sonant.text.paced_phonemes import PacedPhonemes
from sonant.text.segment import segment
from sonant.text.tokenizer import BytePairTokenizer

# Guard against speech without end: frames allowed for a text, generous next to the 2 to 5 frames that a
# token of ordinary speech takes.
CEILING_FRAMES = 50
CEILING_FRAMES_PER_TOKEN = 10

SEGMENT_LENGTH = 350
"""Texts longer than this, in Latin letters, are spoken in segments of at most this length (about half a
minute). The model takes more, but its pace drifts."""
WIDE_LETTER = 2.5
"""How many Latin letters an ideograph, kana or hangul counts for: it takes about as long to say."""
FRONT_END_LENGTH = 150
"""The same for models with a front end: they are small and learned from sentences of this length."""


class Preparing:
    """What one checkpoint is told, made from requests."""

    def __init__(
        self,
        spec: ModelSpec,
        config: ModelConfig,
        network: Network,
        tokenizer: BytePairTokenizer,
        speech_tokenizer: SpeechTokenizer,
        front_end: PacedPhonemes | None,
    ) -> None:
        self.spec = spec
        self.config = config
        self.front_end = front_end
        self._segment_length = SEGMENT_LENGTH if front_end is None else FRONT_END_LENGTH
        self.network = network
        self.tokenizer = tokenizer
        self.speech_tokenizer = speech_tokenizer
        self.device = network.talker.codec_embedding.weight.device

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """Each segment's prompt when it is wanted, or why it has none; see `SpeechModel.each_prompt`."""
        if request.text_feed is not None:
            yield self._fed(request, request.text_feed, segment_seed(request.seed or 0, 0))
            return
        text = request.text.strip()
        if not any(letter.isalnum() for letter in text):
            raise RequestError(
                f"the text {request.text[:60]!r} has no letter or digit to say. Give at least one word.",
                field="text",
            )
        seed = 0 if request.seed is None else request.seed
        for index, (piece, pause) in enumerate(_segments(text, self._segment_length)):
            make = partial(self._prompt, piece, request, segment_seed(seed, index), pause)
            yield attempt(piece, make)

    def units(self, text: str) -> list[str]:
        """The tokens that the text becomes, spelled out; with a front end the phonemes."""
        if self.front_end is not None:
            return self.front_end.phonemes(text)
        ids = self.tokenizer.encode(text, markers=False)
        return [self.tokenizer.decode([token]) for token in ids]

    def _builder(self, request: SpeechRequest) -> Callable[[Sequence[int], TextLayout], prompts.TalkerInputs]:
        """What makes a prompt of wrapped text ids, with the request's voice, language and instruction."""
        kind = self.config.kind
        speaker: Tensor | int | None = None
        speaker_name: str | None = None
        reference: prompts.Reference | None = None
        if kind == "base":
            voice = self._cloned_voice(request.voice)
            speaker = voice.tensors["xvector"].to(self.device)
            tokens = voice.tensors.get("codes")
            if (
                voice.transcript
                and tokens is not None
                and not request.options.get("speaker_vector_only", False)
            ):
                ids = prompts.reference_ids(self.tokenizer, voice.transcript.strip())
                reference = prompts.Reference(ids, tokens.to(self.device, torch.int64))
        elif kind == "custom_voice":
            speaker_name = self._preset_voice(request.voice)
            speaker = prompts.speaker_id(self.config.talker, speaker_name)
        elif request.voice is not None:
            raise UnsupportedError(
                f"{self.spec.name} makes its voice from the instruction and takes no other. Leave the voice "
                "out, or design a voice and speak with a Base model.",
                field="voice",
            )
        language = prompts.language_id(self.config.talker, language_name(request.language), speaker_name)
        instruction = self._instruction(request)

        def build(ids: Sequence[int], layout: TextLayout) -> prompts.TalkerInputs:
            return prompts.build_inputs(
                self.network,
                self.config,
                text=ids,
                layout=layout,
                language=language,
                speaker=speaker,
                instruction=instruction,
                reference=reference,
            )

        return build

    def _prompt(self, text: str, request: SpeechRequest, seed: int, pause: float) -> Prompt:
        layout = prompts.DEFAULT_LAYOUT[self.config.kind]
        spoken = text
        if self.front_end is not None:  # it paces the text by the frame, so a frame takes one token
            spoken, layout = self.front_end(text, request.speed), "progressive"
        ids = prompts.text_ids(self.tokenizer, spoken)
        inputs = self._builder(request)(ids, request.text_layout or layout)
        return self.make_prompt(
            text,
            replace(inputs, in_chunks=request.options.get("codec_chunks", False)),
            request=request,
            words=len(ids),
            seed=seed,
            pause_after=pause,
        )

    def _fed(self, request: SpeechRequest, feed: TextFeed, seed: int) -> Prompt:
        """A prompt whose text is still to come; it is spoken as one segment."""
        if request.text_layout == "full":
            raise RequestError(
                "the full layout has all text in the prompt, and a text feed has none yet. "
                "Leave text_layout out.",
                field="text_layout",
            )
        build_of = self._builder(request)
        before, after = (self.tokenizer.encode(mark) for mark in (prompts.ROLE, prompts.AFTER_TEXT))
        wrapping = len(before) + len(after)

        def build(words: Sequence[int]) -> prompts.TalkerInputs:
            return build_of([*before, *words, *after], "progressive")

        first = build(self.tokenizer.encode("a", markers=False))
        reference = first.reference
        needed = 1
        if reference is not None:
            assert isinstance(request.voice, Voice)
            said = prompts.reference_ids(self.tokenizer, (request.voice.transcript or "").strip())
            room = len(reference) + 1 - (len(said) - prompts.ROLE_IDS - prompts.AFTER_REFERENCE_IDS)
            needed = max(1, room)
        device = first.filler.device

        def embed(words: Sequence[int]) -> Tensor:
            return self.network.talker.text(torch.tensor(words, dtype=torch.int64, device=device))

        longest = self.make_prompt(
            "", first, request=request, words=MAX_FED_FRAMES // CEILING_FRAMES_PER_TOKEN, seed=seed
        )
        inputs = FedInputs(
            feed=feed,
            tokenizer=self.tokenizer,
            build=build,
            embed=embed,
            needed=needed,
            ceiling=lambda words: min(
                longest.ceiling, CEILING_FRAMES + CEILING_FRAMES_PER_TOKEN * (words + wrapping)
            ),
            reference=reference,
            in_chunks=request.options.get("codec_chunks", False),
        )
        return replace(longest, inputs=inputs)

    def make_prompt(
        self,
        text: str,
        inputs: prompts.TalkerInputs,
        *,
        request: SpeechRequest,
        words: int,
        seed: int,
        pause_after: float = 0.0,
    ) -> Prompt:
        """A Prompt from its vectors; `words` is the number of text tokens."""
        sampling = request.sampling.over(self.spec.sampling)
        length = inputs.embeds.shape[0]
        room = self.config.talker.max_positions - length
        if room < 1:
            raise RequestError(
                f"the prompt takes {length} positions; the model has {self.config.talker.max_positions}. "
                "Use a shorter text, instruction or reference clip.",
                field="text",
            )
        ceiling = min(
            CEILING_FRAMES + CEILING_FRAMES_PER_TOKEN * words,
            sampling.max_frames or self.config.talker.max_positions,
            room,
        )
        return Prompt(
            text=text,
            sampling=sampling,
            seed=seed,
            ceiling=ceiling,
            inputs=inputs,
            pause_after=pause_after,
            positions=length + ceiling,
            reference=inputs.reference,
        )

    def _instruction(self, request: SpeechRequest) -> list[int] | None:
        text = (request.style.instruction or "").strip()
        if not text:
            if self.config.kind == "voice_design":
                raise RequestError(
                    f"{self.spec.name} makes its voice from a description, and none was given. "
                    'Give one as instruction, such as "a calm, low male voice".',
                    field="instruction",
                )
            return None
        if not self.config.follows_instructions:
            where = "the 1.7B CustomVoice or VoiceDesign model"
            raise UnsupportedError(
                f"{self.spec.name} does not follow instructions ({text[:40]!r} was given). "
                f"Leave the instruction out, or use {where}.",
                field="instruction",
            )
        return prompts.instruction_ids(self.tokenizer, text)

    def _cloned_voice(self, voice: Voice | str | None) -> Voice:
        if not isinstance(voice, Voice):
            given = "none was given" if voice is None else f"{voice!r} is a name without a clip"
            raise VoiceError(
                f"{self.spec.name} speaks with the voice of a clip; {given}. "
                "Clone one with: sonant voice add NAME CLIP"
            )
        if (voice.family, voice.fingerprint) != (FAMILY, self.spec.fingerprint):
            raise VoiceError(
                f"voice {voice.name!r} was made by {voice.family or 'no model'} ({voice.fingerprint}); this "
                f"model is {FAMILY} ({self.spec.fingerprint}). "
                "Encode the reference again with: sonant voice add NAME CLIP"
            )
        vector, tokens = voice.tensors.get("xvector"), voice.tensors.get("codes")
        width = self.config.talker.width
        if vector is None or tuple(vector.shape) != (width,):
            found = "no speaker vector" if vector is None else f"a speaker vector {list(vector.shape)}"
            raise VoiceError(
                f"voice {voice.name!r} holds {found}; expected one of {width} numbers. The file is damaged: "
                "encode the reference again with: sonant voice add NAME CLIP"
            )
        if tokens is not None:
            try:
                self.speech_tokenizer.check_tokens(tokens)
            except RequestError as error:
                raise VoiceError(
                    f"voice {voice.name!r} is damaged: {error} "
                    "Encode the reference again with: sonant voice add NAME CLIP"
                ) from error
        return voice

    def _preset_voice(self, voice: Voice | str | None) -> str:
        if isinstance(voice, Voice):
            if voice.tensors or voice.clip is not None:
                raise UnsupportedError(
                    f"{self.spec.name} has voices of its own and cannot clone {voice.name!r}. Choose one of "
                    f"{', '.join(self.spec.voices)}, or use a Base model.",
                    field="voice",
                )
            voice = voice.name
        if voice is None:
            raise VoiceError(
                f"{self.spec.name} needs one of its voices; none was given. "
                f"Choose one of: {', '.join(self.spec.voices)}."
            )
        return voice


def _segments(text: str, limit: int) -> list[tuple[str, float]]:
    """The text in pieces that suit the model, each with the pause after it in seconds."""
    if _spoken_length(text) <= limit:
        return [(text, 0.0)]
    pieces: list[tuple[str, float]] = []
    for piece in segment(text, limit=limit, length=_spoken_length):
        if any(letter.isalnum() for letter in piece.spoken):
            pieces.append((piece.spoken, piece.pause))
    return pieces


def _spoken_length(text: str) -> int:
    """Length in Latin letters: scripts from the East Asian blocks on count more."""
    return round(sum(WIDE_LETTER if letter >= "\u2e80" else 1.0 for letter in text))
