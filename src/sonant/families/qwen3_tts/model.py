"""Qwen3-TTS as a SpeechModel: one utterance a segment, one cache row each, one frame of tokens a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
    every_prompt,
)
from sonant.errors import UnsupportedError
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.config import FAMILY, ModelConfig
from sonant.families.qwen3_tts.decoding import Barred, choose_predictor, choose_talker, predictor_choice
from sonant.families.qwen3_tts.fed import IDLE_SECONDS, Fed, FedInputs
from sonant.families.qwen3_tts.frame_steps import FrameSteps, RowState, Stacks
from sonant.families.qwen3_tts.plans import plan_of, state_plainly
from sonant.families.qwen3_tts.preparing import Preparing
from sonant.families.qwen3_tts.speaker import speaker_mel
from sonant.families.qwen3_tts.speech_tokenizer import SpeechTokenizer
from sonant.families.qwen3_tts.talker import Choose, Network
from sonant.nn.cache import KVCache
from sonant.nn.quantized import NativeDecoder, NativeLinear
from sonant.nn.sampling import chance_of, generator
from sonant.nn.tap import is_tapped, tap
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec, Sampling, SpeechRequest
from sonant.request.voice import Voice
from sonant.text.paced_phonemes import PacedPhonemes
from sonant.text.tokenizer import BytePairTokenizer


@dataclass(eq=False)
class TalkerState:
    """Of one running utterance: what the next step starts from."""

    hidden: Tensor
    """[D], the talker's last state after the final norm."""
    logits: Tensor
    """[V], float32, over the next token 0."""
    barred: Barred
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
        self.network = network
        self.tokenizer = tokenizer
        self.speech_tokenizer = speech_tokenizer
        self.preparing = Preparing(spec, config, network, tokenizer, speech_tokenizer, front_end)
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
        return self.preparing.each_prompt(request)

    def units(self, text: str) -> list[str]:
        """The tokens that the text becomes, spelled out; with a front end the phonemes."""
        return self.preparing.units(text)

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
        talker = self.config.talker
        barred = Barred.of(talker.vocabulary, talker.codec_eos_token_id, self.device)
        if isinstance(prompt.inputs, FedInputs):  # its prefill comes with its first words
            nothing = torch.zeros(0, device=self.device)
            state = TalkerState(nothing, nothing, barred, fed=Fed(prompt.inputs))
            return Utterance(
                prompt=prompt, slots=(slot,), generator=generator(prompt.seed, "tokens"), state=state
            )
        inputs: prompts.TalkerInputs = prompt.inputs
        rows = self._cache.rows([slot], inputs.embeds.shape[0])
        hidden = self.network.talker(inputs.embeds[None], rows=rows)[:, -1]
        logits = self.network.talker.logits(hidden)[0]
        rng = generator(prompt.seed, "tokens")
        begun: TalkerState | RowState = TalkerState(hidden[0], logits, barred)
        if self._frames is not None and not is_tapped():  # a trace needs every step
            token = int(choose_talker(logits, (), prompt.sampling, rng, barred))
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
        chosen = [
            torch.tensor(u.state.token)
            if isinstance(u.state, RowState)
            else choose_talker(
                u.state.logits, u.state.history, u.prompt.sampling, u.generator, u.state.barred
            )
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
        choices = [predictor_choice(utterance.prompt.sampling) for utterance in utterances]
        generators = [utterance.generator for utterance in utterances]
        first = torch.tensor(chosen, device=self.device)
        embedded = talker.codec_embedding(first)
        hidden = torch.stack([state.hidden for state in states])
        frame = self.network.predictor.frame
        if choose is None and frame and frame.takes(choices) and not is_tapped():
            others, total = frame(hidden, embedded, self._predictor_cache, choices, generators)
        else:
            others, total = self.network.predictor(
                hidden,
                embedded,
                self._predictor_cache,
                choose or (lambda _, logits: choose_predictor(logits, choices, generators)),
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
