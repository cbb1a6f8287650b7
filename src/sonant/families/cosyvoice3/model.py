"""CosyVoice3 behind the family contract: voices, prompts, steps, decoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sonant.engine.model import Ending, Prompt, Step, Unspeakable, Utterance, every_prompt
from sonant.families.cosyvoice3 import feeding, generate, weights
from sonant.families.cosyvoice3.config import FAMILY, QWEN_FOLDER, CosyVoice3Config
from sonant.families.cosyvoice3.encoders import ENCODER_RATE, MAX_CLIP_SECONDS, Encoders
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.noise import Noise, ReferenceNoise, SeededNoise
from sonant.families.cosyvoice3.past import KeptPrompts
from sonant.families.cosyvoice3.preparing import Preparing, check_tokens
from sonant.families.cosyvoice3.prompt import Inputs
from sonant.families.cosyvoice3.speaking import Feeding, TokenState
from sonant.families.cosyvoice3.stream import PROMPTS, SpeechDecoder, stream_bytes
from sonant.families.cosyvoice3.text import END_OF_PROMPT, MARKS, special_tokens
from sonant.families.cosyvoice3.vocoder import Vocoder
from sonant.nn.cache import KVCache
from sonant.nn.narrow_products import state_narrow_products
from sonant.nn.precision import stack_plan
from sonant.nn.row_steps import RowSteps
from sonant.nn.sampling import chance_of, generator
from sonant.nn.step_stack import StepStack
from sonant.request.audio import Audio
from sonant.request.settings import options_of
from sonant.request.speech import ModelSpec, SpeechRequest, TextFeed
from sonant.request.voice import Voice
from sonant.text.tokenizer import BytePairTokenizer

LANGUAGES = (
    "chinese", "english", "japanese", "korean", "german", "spanish", "french", "italian", "russian",
)  # fmt: skip
IDLE_SECONDS = 0.02
"""How long a step waits for text when no utterance has anything else to do."""
OPTIONS = options_of("noise", "stream_hop", "reference_stream")


def make_spec(
    config: CosyVoice3Config, presets: Mapping[str, Mapping[str, Tensor]], *, fingerprint: str, name: str
) -> ModelSpec:
    """What a checkpoint is and can do; `presets` are the speakers that it brings."""
    sampler = config.language.sampler
    return ModelSpec(
        family=FAMILY,
        name=name,
        fingerprint=fingerprint,
        sample_rate=config.sample_rate,
        frame_rate=float(config.token_rate),
        languages=LANGUAGES,
        voices=tuple(presets),
        default_voice=next(iter(presets), None),
        capabilities=frozenset(
            {
                "clone",
                "clone_in_context",
                "instruction",
                "voice_conversion",
                "speed",
                "frame_streaming",
                "text_stream",
                "seed",
                *(["preset_voice"] if presets else []),
            }
        ),
        sampling={
            "greedy": False,
            "top_p": sampler.top_p,
            "top_k": sampler.top_k,
            "flow_steps": config.flow.steps,
            "guidance": config.flow.guidance,
            "max_frames": None,
        },
        options=OPTIONS,
        needs_voice=not presets,
        max_reference_seconds=MAX_CLIP_SECONDS,
        min_reference_seconds=0.3,
        min_reference_rate=ENCODER_RATE,
        streams_by="chunk",
        text_marks=MARKS,
        licence="Apache-2.0 (Fun-CosyVoice3-0.5B)",
    )


class CosyVoice3Model:
    """One loaded checkpoint. Nothing of an utterance is kept here but its rows of the cache."""

    def __init__(
        self,
        *,
        config: CosyVoice3Config,
        language: LanguageModel,
        flow: Flow,
        vocoder: Vocoder,
        encoders: Encoders,
        tokenizer: BytePairTokenizer,
        presets: Mapping[str, Mapping[str, Tensor]],
        fingerprint: str,
        name: str,
        device: torch.device,
    ) -> None:
        self.config = config
        self.language = language
        self.flow = flow
        self.vocoder = vocoder
        self.encoders = encoders
        self.tokenizer = tokenizer
        self.device = device
        self.keeps_past = device.type == "cpu"
        """Whether streams keep what they have solved; elsewhere memory is dearer than the time it saves."""
        self._prompts = KeptPrompts(PROMPTS)
        self._cache: KVCache | None = None
        self._stack: StepStack | None = None
        self._steps: RowSteps | None = None
        if device.type != "cpu":
            self.step_in_one_piece()
        self.spec = make_spec(config, presets, fingerprint=fingerprint, name=name)
        self.preparing = Preparing(self.spec, config, encoders, tokenizer, presets, device)

    def narrow(self, precision: str) -> None:
        """Do the arithmetic of "int8" or "int4" in torch, where every stage can be seen."""
        weights.state_plainly(self.language, stack_plan(precision, self.config.language.decoder.layers))
        state_narrow_products(*weights.narrow_parts(self.flow))

    # -- voices -------------------------------------------------------------------------------

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Speaker vector, speech tokens and mel of a clip; untrimmed, because conversion wants them so."""
        tensors = {
            "speaker": self.encoders.speaker(audio),
            "tokens": self.encoders.speech_tokens(audio).int(),
            "mel": self.encoders.mel(audio).contiguous(),
        }
        check_tokens(tensors["tokens"], config=self.config)
        return Voice(
            family=FAMILY,
            fingerprint=self.spec.fingerprint,
            tensors=tensors,
            transcript=(transcript or "").strip() or None,
            clip=audio,
        )

    # -- prompts ------------------------------------------------------------------------------

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each segment of the text, or one for a conversion."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives, each when it is wanted."""
        return self.preparing.each_prompt(request)

    def units(self, text: str) -> list[str]:
        """The tokens that the text becomes, spelled out."""
        return self.preparing.units(text)

    # -- speaking -----------------------------------------------------------------------------

    def allocate(self, slots: int, positions: int) -> None:
        """Room for `slots` utterances of `positions`."""
        decoder = self.config.language.decoder
        weight = self.language.speech_embedding.weight
        self._cache = self._steps = None  # the old, recordings included, is freed before the new is made
        self._cache = KVCache(
            layers=decoder.layers,
            slots=slots,
            heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            capacity=positions + (self._stack is not None),  # one for rows that rest
            dtype=weight.dtype,
            device=weight.device,
        )
        if self._stack is not None:
            self._steps = self.language.row_steps(self._stack, self._cache, slots=slots)

    def grow(self, positions: int) -> bool:
        """Rows of `positions`, with what is in them; False where steps were made for the old ones."""
        if self._cache is None or self._steps is not None:
            return False
        self._cache = self._cache.grown(positions)
        return True

    def past_bytes(self, slots: int) -> int:
        """What `slots` streams and the voices they speak with keep at a time."""
        return slots * stream_bytes(self.config) + PROMPTS if self.keeps_past else 0

    def step_in_one_piece(self) -> None:
        """From the next `allocate` on, a step of the language model is one piece of work that waits for the
        device once: what everything but a CPU does from the start."""
        self._stack = self.language.step_stack()

    def warm_up(self) -> None:
        """Record the steps of every size of batch, where steps are recorded (CUDA)."""
        if self._steps is not None and self._steps.replay.records:
            with torch.inference_mode():
                self._steps.warm_up()

    @property
    def least_positions(self) -> int:
        """Cache positions worth having from the start: recorded steps are lost when the cache grows."""
        return 2048 if self.device.type == "cuda" else 256

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """The utterance after its prefill; a conversion has nothing to fill."""
        inputs: Inputs = prompt.inputs
        rng = generator(prompt.seed, "tokens")
        utterance = Utterance(prompt=prompt, slots=tuple(slots), generator=rng)
        if inputs.feed is not None:
            assert self._cache is not None, "allocate comes before start"
            self._cache.free(slots[0])
            utterance.state = TokenState(
                pick=generate.picker(prompt.sampling, rng),
                minimum=0,
                feeding=self._begin(prompt, inputs.feed),
            )
        elif inputs.source is None:
            assert self._cache is not None, "allocate comes before start"
            text = torch.cat((inputs.prompt_text, inputs.text)).to(self.device)
            x = self.language.prompt(text, inputs.prompt_speech.to(self.device))
            utterance.state = TokenState(
                pick=generate.picker(prompt.sampling, rng),
                minimum=generate.minimum_length(len(inputs.text)),
                logits=generate.prefill(self.language, self._cache, slots[0], x),
            )
        return utterance

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """One speech token for each utterance, or none where it is a silence too many."""
        idle: set[Utterance] = set()
        speaking = [u for u in utterances if u.state is not None]
        if speaking:
            assert self._cache is not None, "allocate comes before step"
            for utterance in speaking:
                fed = utterance.state.feeding
                if fed is not None and not feeding.provide(self.language, self._cache, utterance):
                    idle.add(utterance)
            going = [u for u in speaking if u not in idle]
            generate.next_scores(self.language, self._cache, going, self._steps)
        if len(idle) == len(utterances):
            # Nothing to do but wait; the caller's loop must not spin meanwhile.
            utterances[0].prompt.inputs.feed.wait(IDLE_SECONDS)
        return [self._advance(utterance) for utterance in utterances]

    def ending(self, utterance: Utterance) -> Ending | None:
        """How near the likeliest of the ids that end is, in the scores of the last choice."""
        scores = utterance.state.seen if utterance.state is not None else None
        if scores is None:
            return None
        first = self.config.language.speech_tokens
        return Ending(*chance_of(first + int(scores[first:].argmax()), scores))

    def _advance(self, utterance: Utterance) -> Step:
        source = utterance.prompt.inputs.source
        if source is not None:
            return Step(source[:, None], is_final=True)
        if utterance.state.feeding is not None:
            return feeding.advance(self.config.language, utterance)
        return generate.advance(self.config.language, utterance)

    def _begin(self, prompt: Prompt, feed: TextFeed) -> Feeding:
        """The known text, parted where the prefix of the mode ends and a transcript begins."""
        inputs: Inputs = prompt.inputs
        known = inputs.prompt_text
        end = known.tolist().index(self.tokenizer.id(END_OF_PROMPT)) + 1
        return feeding.begin(
            self.language,
            feed,
            self.tokenizer,
            prefix=known[:end].to(self.device),
            prompt_text=known[end:],
            prompt_speech=inputs.prompt_speech,
            room=prompt.positions,
        )

    def decoder(self, prompt: Prompt, *, streaming: bool) -> SpeechDecoder:
        """A fresh decoder with its own noise."""
        inputs: Inputs = prompt.inputs
        known = len(inputs.reference.tokens) * self.config.flow.frames_per_token
        if not inputs.options.is_chunked(streaming=streaming):
            known = 0
        noise: Noise = (
            ReferenceNoise(self.config)
            if inputs.noise == "reference"
            else SeededNoise(self.config, prompt.seed, prompt=known)
        )
        return SpeechDecoder(
            self.config,
            self.flow,
            self.vocoder,
            inputs.reference,
            noise,
            inputs.options if self.keeps_past else replace(inputs.options, memory=0),
            streaming=streaming,
            prompts=self._prompts,
        )


def load_tokenizer(folder: Path) -> BytePairTokenizer:
    """The tokenizer of a checkpoint folder, with the release's own markers."""
    return BytePairTokenizer.load(folder / QWEN_FOLDER, extra=special_tokens())
