"""Qwen3-TTS as a SpeechModel: one utterance a segment, one cache row each, one frame of tokens a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from sonant.audio.resample import resample_soxr
from sonant.engine.model import (
    AudioDecoder,
    Ending,
    Prompt,
    Step,
    Unspeakable,
    Utterance,
    attempt,
    every_prompt,
)
from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.config import FAMILY, ModelConfig
from sonant.families.qwen3_tts.decoding import choose_predictor, choose_talker, quick_choices
from sonant.families.qwen3_tts.fed import IDLE_SECONDS, MAX_FED_FRAMES, Fed, FedInputs
from sonant.families.qwen3_tts.frame_steps import FrameSteps, RowState, Stacks
from sonant.families.qwen3_tts.plans import plan_of, state_plainly
from sonant.families.qwen3_tts.speaker import speaker_mel
from sonant.families.qwen3_tts.speech_tokenizer import SpeechTokenizer
from sonant.families.qwen3_tts.talker import Choose, Network
from sonant.nn.cache import KVCache
from sonant.nn.quantized import NativeDecoder, NativeLinear
from sonant.nn.sampling import chance_of, generator, segment_seed
from sonant.nn.tap import is_tapped, tap
from sonant.request.audio import Audio
from sonant.request.checks import check_clip
from sonant.request.settings import TextLayout
from sonant.request.speech import ModelSpec, Sampling, SpeechRequest, TextFeed, language_name
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


@dataclass(eq=False)
class TalkerState:
    """Of one running utterance: what the next step starts from."""

    hidden: Tensor
    """[D], the talker's last state after the final norm."""
    logits: Tensor
    """[V], float32, over the next token 0."""
    history: list[int] = field(default_factory=list)
    """Tokens 0 chosen so far, as many as frames."""
    fed: Fed | None = None
    """Of text that arrives while it is spoken."""

    @property
    def frames(self) -> int:
        """Frames the talker has run on."""
        return len(self.history)


class Qwen3TTS:
    """One loaded checkpoint."""

    def __init__(
        self,
        spec: ModelSpec,
        config: ModelConfig,
        network: Network,
        tokenizer: BytePairTokenizer,
        speech_tokenizer: SpeechTokenizer,
        front_end: PacedPhonemes | None = None,
    ) -> None:
        self.spec = spec
        self.config = config
        self.front_end = front_end
        self._segment_length = SEGMENT_LENGTH if front_end is None else FRONT_END_LENGTH
        self.network = network
        self.tokenizer = tokenizer
        self.speech_tokenizer = speech_tokenizer
        weight = network.talker.codec_embedding.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._cache: KVCache | None = None
        self._predictor_cache: KVCache | None = None
        self._stacks: Stacks | None = None
        self._frames: FrameSteps | None = None
        if self.device.type != "cpu":
            self.step_whole_frames()

    # -- voices -------------------------------------------------------------------------------

    @property
    def ignores_threads(self) -> bool:
        """True when steps run in the C kernel, which sums alike on any number of threads."""
        talker, predictor = self.network.talker, self.network.predictor
        stacks, heads = (talker.decoder, predictor.decoder), (talker.codec_head, *predictor.lm_head)
        return all(isinstance(stack, NativeDecoder) for stack in stacks) and all(
            isinstance(head, NativeLinear) for head in heads
        )

    def narrow(self, precision: str) -> None:
        """Do the arithmetic of "int8", "mixed" or "int4" in torch, where every stage can be seen."""
        state_plainly(self.network, plan_of(precision, self.config))

    @property
    def least_positions(self) -> int:
        """Cache positions worth having from the start: recorded steps are lost when the cache grows."""
        return 2048 if self.device.type == "cuda" else 256

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """A voice from a clip: its speaker vector, and its tokens when a transcript allows to continue it."""
        if self.network.speaker_encoder is None:
            raise UnsupportedError(
                f"{self.spec.name} cannot clone voices; it has no speaker encoder. Use a Base model.",
                field="voice",
            )
        check_clip(audio, self.spec, field="voice", what="reference clip")
        transcript = (transcript or "").strip() or None
        tensors = {"xvector": self.speaker_vector(audio)}
        if transcript is not None:
            tensors["codes"] = self.encode_audio(audio).to("cpu", torch.int32)
        return Voice(
            family=FAMILY,
            fingerprint=self.spec.fingerprint,
            tensors=tensors,
            transcript=transcript,
            clip=audio,
        )

    def speaker_vector(self, audio: Audio) -> Tensor:
        """The speaker vector [D] of a clip, on the CPU."""
        assert self.config.speaker is not None
        assert self.network.speaker_encoder is not None
        rate = self.config.speaker.sample_rate
        samples = torch.from_numpy(resample_soxr(audio.samples, audio.sample_rate, rate))
        weight = self.network.speaker_encoder.fc.weight
        with torch.inference_mode():
            mel = speaker_mel(samples[None], self.config.speaker)
            return self.network.speaker_encoder(mel.to(weight))[0].cpu()

    def encode_audio(self, audio: Audio) -> Tensor:
        """Codec tokens [frames, G] of a clip."""
        return self.speech_tokenizer.encode_audio(audio)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Samples [S] of codec tokens [frames, G]."""
        return self.speech_tokenizer.decode_tokens(tokens)

    # -- prompts ------------------------------------------------------------------------------

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each segment of the text."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives, each when it is wanted."""
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

    # -- speaking -----------------------------------------------------------------------------

    def allocate(self, slots: int, positions: int) -> None:
        """Room for `slots` utterances of `positions` each, and for one frame of the code predictor."""
        talker = self.config.talker
        # What was there, recordings included, is freed before the new is made.
        self._cache = self._predictor_cache = self._frames = None
        self._cache = KVCache(
            layers=talker.layers,
            slots=slots,
            heads=talker.kv_heads,
            head_dim=talker.head_dim,
            capacity=positions + (self._stacks is not None),  # one for rows that rest
            dtype=self.dtype,
            device=self.device,
        )
        self._predictor_cache = self.network.predictor.cache(slots, self.dtype, self.device)
        if self._stacks is not None:
            self._frames = FrameSteps(self.network, self._stacks, self.config, self._cache, slots=slots)

    def grow(self, positions: int) -> bool:
        """Rows of `positions`, with what is in them; False where frames were made for the old ones."""
        if self._cache is None or self._frames is not None:
            return False
        self._cache = self._cache.grown(positions)
        return True

    def step_whole_frames(self) -> None:
        """From the next `allocate` on, a frame is one piece of work that waits for the device once: what
        everything but a CPU does from the start. Weights that are in C already stay as they are."""
        self._stacks = Stacks.of(self.network)

    def warm_up(self) -> None:
        """Record the steps of every size of batch, where steps are recorded (CUDA)."""
        if self._frames is not None and self._frames.replay.records:
            with torch.inference_mode():
                self._frames.warm_up(Sampling(**self.spec.sampling))
                if self.speech_tokenizer.steps is not None:
                    self.speech_tokenizer.steps.warm_up()

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """Prefill of one prompt into its cache row."""
        assert self._cache is not None, "allocate comes first"
        (slot,) = slots
        self._cache.free(slot)
        if isinstance(prompt.inputs, FedInputs):  # its prefill comes with its first words
            nothing = torch.zeros(0, device=self.device)
            state = TalkerState(nothing, nothing, fed=Fed(prompt.inputs))
            return Utterance(
                prompt=prompt, slots=(slot,), generator=generator(prompt.seed, "tokens"), state=state
            )
        inputs: prompts.TalkerInputs = prompt.inputs
        rows = self._cache.rows([slot], inputs.embeds.shape[0])
        hidden = self.network.talker(inputs.embeds[None], rows=rows)[:, -1]
        logits = self.network.talker.logits(hidden)[0]
        rng = generator(prompt.seed, "tokens")
        begun: TalkerState | RowState = TalkerState(hidden[0], logits)
        if self._frames is not None and not is_tapped():  # a trace needs every step
            end = self.config.talker.codec_eos_token_id
            token = int(choose_talker(logits, (), prompt.sampling, rng, end=end))
            begun = self._frames.start(slot, hidden[0], token, prompt.sampling)
        return Utterance(prompt=prompt, slots=(slot,), generator=rng, state=begun)

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """Token 0 from the held logits, the frame's other tokens, then the talker's next state.

        A frame counts once the talker has run on it: the token that comes after the last allowed frame
        is still chosen, to tell an end by the model from one by the ceiling. An utterance whose text has
        not arrived yet gives nothing, and draws nothing.
        """
        end = self.config.talker.codec_eos_token_id
        nothing = torch.zeros(0, self.config.talker.groups, dtype=torch.int64)
        ready = [index for index, utterance in enumerate(utterances) if self._has_text(utterance)]
        steps = [Step(nothing, _is_empty(utterance)) for utterance in utterances]
        if not ready:
            if not any(step.is_final for step in steps):
                # Nothing to do but wait; the caller's loop must not spin meanwhile.
                utterances[0].state.fed.inputs.feed.wait(IDLE_SECONDS)
            return steps
        chosen = dict(zip(ready, self._first_tokens([utterances[i] for i in ready]), strict=True))
        going: list[int] = []
        for index, token in chosen.items():
            if token == end:
                steps[index] = Step(nothing, True)
            elif utterances[index].state.frames >= _ceiling(utterances[index]):
                steps[index] = Step(nothing, True, at_ceiling=True)
            else:
                going.append(index)
        if going:
            going.sort(key=lambda index: utterances[index].slots)
            frames = self._frames_of([utterances[i] for i in going], [chosen[i] for i in going])
            for index, frame in zip(going, frames, strict=True):
                steps[index] = Step(frame[None], False)
        return steps

    def ending(self, utterance: Utterance) -> Ending | None:
        """How near the end token is in the scores of the next token 0."""
        state: TalkerState | RowState = utterance.state
        if isinstance(state, RowState):
            logits = self._frames.logits[utterance.slots[0]] if self._frames is not None else torch.zeros(0)
        else:
            logits = state.logits
        return Ending(*chance_of(self.config.talker.codec_eos_token_id, logits)) if len(logits) else None

    def _has_text(self, utterance: Utterance) -> bool:
        """Whether the next frame's text is there; a fed utterance's prefill comes with its first words."""
        state = utterance.state
        fed: Fed | None = getattr(state, "fed", None)
        if fed is None:
            return True
        fed.take()
        if fed.known is None:
            if not fed.can_begin:
                return False
            assert self._cache is not None
            embeds = fed.begin()
            rows = self._cache.rows([utterance.slots[0]], embeds.shape[0])
            hidden = self.network.talker(embeds[None], rows=rows)[:, -1]
            state.hidden, state.logits = hidden[0], self.network.talker.logits(hidden)[0]
        return fed.has(state.frames)

    def _first_tokens(self, utterances: Sequence[Utterance]) -> list[int]:
        """Token 0 of each utterance's next frame."""
        end = self.config.talker.codec_eos_token_id
        chosen = [
            torch.tensor(u.state.token)
            if isinstance(u.state, RowState)
            else choose_talker(u.state.logits, u.state.history, u.prompt.sampling, u.generator, end=end)
            for u in utterances
        ]
        if not any(isinstance(u.state, TalkerState) for u in utterances):
            return [int(token) for token in chosen]
        return tap("talker.token", torch.stack([token.to(self.device) for token in chosen])).tolist()

    def _frames_of(self, utterances: Sequence[Utterance], chosen: Sequence[int]) -> list[Tensor]:
        """The frames [G] that begin with the chosen tokens; an utterance keeps to the way it was started."""
        whole = [u for u in utterances if isinstance(u.state, RowState)]
        others = [(u, token) for u, token in zip(utterances, chosen, strict=True) if u not in whole]
        frames: dict[Utterance, Tensor] = {}
        if whole:
            assert self._frames is not None
            frames.update(zip(whole, self._frames.advance(whole), strict=True))
        if others:
            made = self.advance([u for u, _ in others], [token for _, token in others])
            frames.update(zip((u for u, _ in others), made, strict=True))
        return [frames[utterance] for utterance in utterances]

    def advance(
        self, utterances: Sequence[Utterance], chosen: Sequence[int], choose: Choose | None = None
    ) -> Tensor:
        """Frames [B, G] that begin with the chosen tokens; every utterance's state moves on.

        The frames' other tokens are drawn as each utterance's settings say, or given by `choose`.
        """
        assert self._cache is not None
        assert self._predictor_cache is not None
        talker = self.network.talker
        states: list[TalkerState] = [utterance.state for utterance in utterances]
        samplings = [utterance.prompt.sampling for utterance in utterances]
        generators = [utterance.generator for utterance in utterances]
        first = torch.tensor(chosen, device=self.device)
        embedded = talker.codec_embedding(first)
        hidden = torch.stack([state.hidden for state in states])
        frame = self.network.predictor.frame
        quick = quick_choices(samplings, generators)
        if choose is None and frame and quick and frame.takes(len(quick)) and not is_tapped():
            others, total = frame(hidden, embedded, self._predictor_cache, quick)
        else:
            others, total = self.network.predictor(
                hidden,
                embedded,
                self._predictor_cache,
                choose or (lambda _, logits: choose_predictor(logits, samplings, generators)),
            )
        words = []
        for utterance, state in zip(utterances, states, strict=True):
            inputs: prompts.TalkerInputs = utterance.prompt.inputs
            spoken = len(state.history)
            if state.fed is not None:
                words.append(state.fed.vector(spoken))
            else:
                words.append(inputs.trailing[spoken] if spoken < len(inputs.trailing) else inputs.filler)
        x = tap("talker.frame", (embedded + total + torch.stack(words))[:, None])
        rows = self._cache.rows([utterance.slots[0] for utterance in utterances], 1)
        hidden = talker(x, rows=rows)[:, -1]
        logits = talker.logits(hidden)
        for row, (state, token) in enumerate(zip(states, chosen, strict=True)):
            state.history.append(token)
            state.hidden, state.logits = hidden[row], logits[row]
        return torch.cat((first[:, None], others), dim=1).cpu()

    def decoder(self, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
        """A fresh decoder; streaming or not, the samples are the same."""
        inputs: prompts.TalkerInputs | FedInputs = prompt.inputs
        return self.speech_tokenizer.decoder(inputs.reference, in_chunks=inputs.in_chunks)


def _is_empty(utterance: Utterance) -> bool:
    """True when the text of a feed ended before it began."""
    fed: Fed | None = getattr(utterance.state, "fed", None)
    return fed is not None and fed.is_over


def _ceiling(utterance: Utterance) -> int:
    """Most frames; of a feed whose text has all come, what that text allows."""
    fed: Fed | None = getattr(utterance.state, "fed", None)
    if fed is None or not fed.is_closed:
        return utterance.prompt.ceiling
    return fed.inputs.ceiling(len(fed.words))


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
