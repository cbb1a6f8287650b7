"""IndexTTS2 and IndexTTS-2.5 behind the family contract.

    voice + emotion + text -> prompts -> beams of semantic codes, batched over utterances -> `IndexDecoder`

A step feeds one code into every row of every running utterance and gives nothing until an utterance's
beams end; then it gives all of its codes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sonant.engine.model import Ending, Prompt, Step, Unspeakable, Utterance, every_prompt
from sonant.families.indextts2 import weights
from sonant.families.indextts2.decoder import IndexDecoder
from sonant.families.indextts2.gpt import cached_code_position
from sonant.families.indextts2.preparing import IndexInputs, IndexParts, Preparing
from sonant.families.indextts2.search import Search, SearchSettings, Turn, make_search
from sonant.nn.cache import KVCache
from sonant.nn.narrow_products import state_narrow_products
from sonant.nn.precision import stack_plan
from sonant.nn.row_steps import RowSteps
from sonant.nn.sampling import chance_of, generator
from sonant.nn.tap import is_tapped
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec, SpeechRequest
from sonant.request.voice import Voice


@dataclass(eq=False)
class _SearchState:
    """State of one utterance: its search, and the logits [beams, V] that the next choice is made from."""

    search: Search
    logits: Tensor
    codes: int = 0


class IndexTTS2:
    """One loaded checkpoint."""

    def __init__(self, parts: IndexParts, spec: ModelSpec, *, device: torch.device | str) -> None:
        self.parts = parts
        self.spec = spec
        self.device = torch.device(device)
        self._cache: KVCache | None = None
        self._steps: RowSteps | None = None
        self._steps_in_one_piece = self.device.type != "cpu"
        self.preparing = Preparing(parts, spec, self.device)

    def narrow(self, precision: str) -> None:
        """Do the arithmetic of "int8" or "int4" in torch, where every stage can be seen."""
        weights.state_plainly(self.parts.gpt, stack_plan(precision, self.parts.config.gpt.layers))
        state_narrow_products(*weights.narrow_parts(self.parts.s2mel.estimator))

    # -- voices ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Everything a second sentence needs, so that it runs no encoder; the transcript is only kept."""
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

    # -- prompts --------------------------------------------------------------------------------

    @torch.inference_mode()
    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each segment. Emotion clips and texts are encoded here, once for all of them."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives; the text is read out and cut at first, each segment when it is wanted."""
        return self.preparing.each_prompt(request)

    def units(self, text: str) -> list[str]:
        """The segments that the text becomes, as the vocabulary spells them."""
        return self.preparing.units(text)

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
