"""From a request to prompts: whose voice, which texts in which segments, which noise; or why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sonant.engine.model import Prompt, Unspeakable, attempt
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.cosyvoice3 import feeding
from sonant.families.cosyvoice3.config import FAMILY, MAX_SECONDS, MAX_TOKEN_RATIO, CosyVoice3Config
from sonant.families.cosyvoice3.encoders import Encoders
from sonant.families.cosyvoice3.prompt import Inputs, layout, trimmed
from sonant.families.cosyvoice3.stream import CONTEXT_TOKENS, DecodeOptions, FlowVoice
from sonant.families.cosyvoice3.text import TextRules
from sonant.request.audio import Audio
from sonant.request.seeds import segment_seed
from sonant.request.speech import ModelSpec, SpeechRequest, TextFeed, language_name
from sonant.request.voice import Voice
from sonant.text.tokenizer import BytePairTokenizer


def check_tokens(tokens: Tensor, *, config: CosyVoice3Config) -> None:
    """VoiceError unless all are speech tokens of this model."""
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.flow.speech_tokens:
        raise VoiceError(
            f"speech tokens from {int(tokens.min())} to {int(tokens.max())}; this model knows 0 to "
            f"{config.flow.speech_tokens - 1}. The tokenizer or the voice is of another model."
        )


class Preparing:
    """What one checkpoint is told, made from requests."""

    def __init__(
        self,
        spec: ModelSpec,
        config: CosyVoice3Config,
        encoders: Encoders,
        tokenizer: BytePairTokenizer,
        presets: Mapping[str, Mapping[str, Tensor]],
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.config = config
        self.encoders = encoders
        self.tokenizer = tokenizer
        self.presets = presets
        self.device = device
        self.rules = TextRules(lambda text: len(tokenizer.encode(text)))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """Each segment's prompt when it is wanted; the text is read out and cut at first. See
        `SpeechModel.each_prompt`."""
        tensors, transcript = self._tensors(request.voice)
        sampling = request.sampling.over(self.spec.sampling)
        options = self._options(request, sampling.flow_steps, sampling.guidance)
        noise = request.options.get("noise", "seeded")
        seed = request.seed or 0
        request = replace(request, sampling=sampling)
        if request.source_audio is not None:
            yield self._conversion(request, request.source_audio, tensors, options, noise, seed)
            return
        tokens, mel = trimmed(tensors["tokens"], tensors["mel"], self.config.flow.frames_per_token)
        reference = self._reference(tokens, mel, tensors["speaker"])
        instruction = (request.style.instruction or "").strip() or None
        if request.text_feed is not None:
            yield self._fed(request, request.text_feed, tensors, transcript, options, noise, seed)
            return
        count = 0
        for segment in self._segments(request):
            texts = layout(segment, transcript=transcript, instruction=instruction)
            encoded = attempt(segment, partial(self._encode_both, texts.prompt_text, texts.text))
            if isinstance(encoded, Unspeakable):
                yield encoded
                continue
            prompt_text, text = encoded
            has_speech = texts.has_prompt_speech
            if "prompt_text" in tensors and instruction is None:
                # A stored speaker keeps its transcript as token ids, system sentence included.
                prompt_text, text, has_speech = tensors["prompt_text"].long(), self._encode(segment), True
            if not len(text):
                yield None
                continue
            inputs = Inputs(
                prompt_text=prompt_text,
                text=text,
                prompt_speech=tokens.long() if has_speech else tokens.new_zeros(0).long(),
                reference=reference,
                options=options,
                noise=noise,
            )
            yield self._prompt(segment, request, inputs, segment_seed(seed, count))
            count += 1

    def units(self, text: str) -> list[str]:
        """The tokens that the text becomes, spelled out."""
        return [self.tokenizer.decode([token]) for token in self.tokenizer.encode(text)]

    def _tensors(self, voice: Voice | str | None) -> tuple[Mapping[str, Tensor], str | None]:
        """Tensors and transcript of the voice of a request."""
        if voice is None:
            voice = self.spec.default_voice
        if voice is None:
            raise RequestError(
                f"{self.spec.name} speaks only with a voice. Pass a clip or a stored voice "
                "(sonant voice add NAME CLIP).",
                field="voice",
            )
        if isinstance(voice, str):
            if voice not in self.presets:
                known = ", ".join(self.presets) or "none"
                raise VoiceError(f"{self.spec.name} has no voice {voice!r}; its own voices are: {known}.")
            return self.presets[voice], None
        missing = {"speaker", "tokens", "mel"} - voice.tensors.keys()
        if voice.family != FAMILY or voice.fingerprint != self.spec.fingerprint or missing:
            raise VoiceError(
                f"voice {voice.name!r} was made by {voice.family or 'nothing'} ({voice.fingerprint}); this "
                f"model is {FAMILY} ({self.spec.fingerprint}). Encode the reference again."
            )
        check_tokens(voice.tensors["tokens"], config=self.config)
        return voice.tensors, voice.transcript

    def _segments(self, request: SpeechRequest) -> list[str]:
        if request.normalize == "sonant":  # numbers are words: what is left is the original's cutting
            text = request.text.replace("\n", " ")
            return self.rules.segments(text, normalizer="none", reads_numbers=False)
        if request.normalize == "off":
            return self.rules.segments(request.text, normalizer="off")
        # The English number words of the rules are wrong in other languages, so a named one has none.
        reads_numbers = language_name(request.language) in (None, "chinese", "english")
        return self.rules.segments(request.text, normalizer="wetext", reads_numbers=reads_numbers)

    def _prompt(self, segment: str, request: SpeechRequest, inputs: Inputs, seed: int) -> Prompt:
        most = MAX_TOKEN_RATIO * len(inputs.text)
        budget = MAX_SECONDS * self.config.token_rate - len(inputs.reference.tokens)
        ceiling = max(1, min(most, budget, request.sampling.max_frames or budget))
        length = 2 + len(inputs.prompt_text) + len(inputs.text) + len(inputs.prompt_speech)
        return Prompt(
            text=segment,
            sampling=request.sampling,
            seed=seed,
            ceiling=ceiling,
            inputs=inputs,
            positions=length + ceiling,
            reference=inputs.prompt_speech[:, None] if len(inputs.prompt_speech) else None,
        )

    def _conversion(
        self,
        request: SpeechRequest,
        source: Audio,
        tensors: Mapping[str, Tensor],
        options: DecodeOptions,
        noise: str,
        seed: int,
    ) -> Prompt:
        if request.style.instruction:
            raise UnsupportedError(
                "voice conversion takes no instruction: it keeps what the source says and how. Leave it out.",
                field="instruction",
            )
        found = self.encoders.speech_tokens(source)
        check_tokens(found, config=self.config)
        none = torch.zeros(0, dtype=torch.long)
        inputs = Inputs(
            prompt_text=none,
            text=none,
            prompt_speech=none,
            reference=self._reference(tensors["tokens"], tensors["mel"], tensors["speaker"]),
            options=options,
            noise=noise,
            source=found,
        )
        return Prompt(
            text="",
            sampling=request.sampling,
            seed=seed,
            ceiling=max(1, len(found)),
            inputs=inputs,
            positions=1,
        )

    def _fed(
        self,
        request: SpeechRequest,
        feed: TextFeed,
        tensors: Mapping[str, Tensor],
        transcript: str | None,
        options: DecodeOptions,
        noise: str,
        seed: int,
    ) -> Prompt:
        """A prompt whose text is still to come; it is spoken as one segment, without normalisation."""
        tokens, mel = trimmed(tensors["tokens"], tensors["mel"], self.config.flow.frames_per_token)
        instruction = (request.style.instruction or "").strip() or None
        texts = layout("", transcript=transcript, instruction=instruction)
        known = self._encode(texts.prompt_text or texts.text)
        has_speech = texts.has_prompt_speech
        if "prompt_text" in tensors and instruction is None:
            known, has_speech = tensors["prompt_text"].long(), True
        inputs = Inputs(
            prompt_text=known,
            text=known.new_zeros(0),
            prompt_speech=tokens.long() if has_speech else tokens.new_zeros(0).long(),
            reference=self._reference(tokens, mel, tensors["speaker"]),
            options=options,
            noise=noise,
            feed=feed,
        )
        most = round(feeding.MAX_FED_SECONDS * self.config.token_rate)
        ceiling = min(most, request.sampling.max_frames or most)
        length = 2 + len(known) + len(inputs.prompt_speech)
        return Prompt(
            text="", sampling=request.sampling, seed=seed, ceiling=ceiling, inputs=inputs,
            positions=length + 2 * ceiling + 2 * self.config.language.mix_ratio[0],
        )  # fmt: skip

    def _reference(self, tokens: Tensor, mel: Tensor, speaker: Tensor) -> FlowVoice:
        return FlowVoice(
            tokens=tokens.long().to(self.device), mel=mel.to(self.device), speaker=speaker.to(self.device)
        )

    def _options(self, request: SpeechRequest, steps: int | None, guidance: float | None) -> DecodeOptions:
        hop = request.options.get("stream_hop")
        chunk = self.config.chunk_tokens
        if hop not in (None, chunk, 2 * chunk, 4 * chunk):
            raise RequestError(
                f"stream_hop is {hop}; the original's hops are {chunk}, {2 * chunk} and "
                f"{4 * chunk} tokens. Choose one of them.",
                field="stream_hop",
            )
        whole = request.options.get("reference_stream", False)
        return DecodeOptions(
            steps=steps,
            guidance=guidance,
            speed=request.speed,
            hop=hop,
            context_tokens=None if whole else CONTEXT_TOKENS,
        )

    def _encode_both(self, prompt_text: str, text: str) -> tuple[Tensor, Tensor]:
        return self._encode(prompt_text), self._encode(text)

    def _encode(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text), dtype=torch.long)
