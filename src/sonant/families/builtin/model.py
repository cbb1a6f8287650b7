"""The built-in voice behind the family contract.

    text -> phoneme ids (the "tokens", 16 a step) -> ONNX acoustic network + signal model at finish, 24 kHz

The acoustic network sees a whole sentence at once, so audio streams by segment, as IndexTTS2's does. Nothing
here is torch's, nor loads it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sonant.engine.model import AudioDecoder, Prompt, Step, Unspeakable, Utterance, attempt, every_prompt
from sonant.errors import RequestError, UnsupportedError
from sonant.families.builtin.spec import builtin_spec
from sonant.native.graphs import onnxruntime
from sonant.request.audio import Audio, Samples
from sonant.request.seeds import segment_seed
from sonant.request.speech import SpeechRequest
from sonant.request.voice import Voice
from sonant.text.bounds import within_bounds
from sonant.text.phoneme_pieces import fitting
from sonant.text.segment import sentences

IDS_PER_STEP = 16
PAUSE = 0.12
"""Seconds after a sentence; the network itself ends each with a short silence."""
MAX_PHONEMES = 400
"""Longest phoneme string that the network was made for. Source: hibari.tts.MAX_PHONEMES."""


@dataclass(frozen=True, eq=False)
class BuiltinInputs:
    """Phoneme ids [N] with the pads at both ends, and the pace."""

    ids: npt.NDArray[np.int64]
    speed: float


class BuiltinModel:
    """One voice, English, about a hundred times faster than real time on one core."""

    tokens_are_speech = False
    """They are phonemes, so a text that repeats itself does so in them."""
    uses_torch = False

    def __init__(self) -> None:
        self.spec = builtin_spec()

    @cached_property
    def _voice(self) -> Any:
        onnxruntime()
        from hibari import Hibari
        from hibari.g2p import G2P

        with ThreadPoolExecutor(1) as beside:  # lexicons are read while the network is, by onnxruntime
            reading = beside.submit(G2P)
            return Hibari(threads=1, g2p=lambda text: reading.result()(text))

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Always refused: this voice cannot imitate."""
        raise UnsupportedError(
            "the built-in voice cannot clone. Use a model that can: see sonant models.",
            field="voice",
        )

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each sentence; sentences without sound are left out."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives, each sentence when it is wanted."""
        voice = self._voice
        assert request.seed is not None
        count, has_told = 0, False
        is_read = request.normalize == "sonant"
        cut = sentences(request.text) if is_read else voice.split_sentences(request.text)
        for sentence in (piece.strip() for found in cut for piece in within_bounds(found)):
            made = attempt(sentence, partial(self._phonemes, sentence))
            if isinstance(made, Unspeakable):
                has_told = True
                yield made
                continue
            yield None
            said = [ids for ids in map(voice.ids, made) if len(ids) >= 3]
            if not said and any(letter.isalnum() for letter in sentence):
                has_told = True
                yield Unspeakable(sentence, _unreadable(sentence))
            for ids in said:
                yield Prompt(
                    text=sentence,
                    sampling=request.sampling,
                    seed=segment_seed(request.seed, count),
                    ceiling=len(ids),
                    inputs=BuiltinInputs(np.array(ids), request.speed),
                    pause_after=PAUSE,
                )
                count += 1
        if not count and not has_told:
            raise _unreadable(request.text)

    def units(self, text: str) -> list[str]:
        """The phonemes of each sentence."""
        return [self._voice.g2p(sentence) for found in sentences(text) for sentence in within_bounds(found)]

    def _phonemes(self, sentence: str) -> list[str]:
        return fitting(self._voice.g2p(sentence), MAX_PHONEMES)

    def allocate(self, slots: int, positions: int) -> None:
        """Nothing to hold."""

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """An utterance at its first phoneme."""
        return Utterance(prompt=prompt, slots=tuple(slots), state=0)

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """The next phoneme ids of each utterance."""
        steps = []
        for utterance in utterances:
            ids = utterance.prompt.inputs.ids
            begin = utterance.state
            utterance.state = min(begin + IDS_PER_STEP, len(ids))
            steps.append(Step(ids[begin : utterance.state, None], utterance.state == len(ids)))
        return steps

    def decoder(self, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
        """A decoder that speaks the sentence when its last phoneme is there."""
        return BuiltinDecoder(self._voice, prompt)


class BuiltinDecoder:
    """Gathers phoneme ids; the waveform of the sentence comes at `finish`."""

    def __init__(self, voice: Any, prompt: Prompt) -> None:
        self.timings: dict[str, float] = {}
        self._voice = voice
        self._prompt = prompt
        self._ids: list[int] = []

    def push(self, tokens: npt.NDArray[np.int64]) -> Samples:
        """No samples yet: the network needs the whole sentence."""
        self._ids.extend(tokens[:, 0].tolist())
        return np.zeros(0, np.float32)

    def finish(self) -> Samples:
        """The sentence, [S] at 24 kHz."""
        began = time.monotonic()
        noise = np.random.default_rng(self._prompt.seed)
        samples: Samples = self._voice.from_ids(self._ids, self._prompt.inputs.speed, noise)
        self.timings["vocoder"] = time.monotonic() - began
        return samples


def _unreadable(text: str) -> RequestError:
    return RequestError(
        f"nothing in {text[:60]!r} can be read aloud in English. "
        "Give words, or use a model that speaks this language.",
        field="text",
    )
