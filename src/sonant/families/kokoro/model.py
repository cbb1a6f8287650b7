"""Kokoro-82M behind the family contract.

    text -> phonemes -> ids (the "tokens", 16 a step) -> the graph at finish, 24 kHz

The graph sees a whole sentence at once, with one of its voice's 510 style vectors: that of its length. It
gives samples alone, no durations, so there are no word times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.checkpoints.files import read_json
from sonant.engine.model import AudioDecoder, Prompt, Step, Unspeakable, Utterance, attempt, every_prompt
from sonant.errors import CheckpointError, RequestError, UnsupportedError
from sonant.families.kokoro.front_end import Phonemizer, phonemizer
from sonant.families.kokoro.spec import BRITISH, LANGUAGES, graph_file, kokoro_spec, voice_files
from sonant.native.graphs import onnxruntime
from sonant.nn.sampling import generator
from sonant.nn.tap import tap
from sonant.request.audio import Audio
from sonant.request.mixing import parse_mixture
from sonant.request.seeds import segment_seed
from sonant.request.speech import SpeechRequest
from sonant.request.voice import Voice
from sonant.text.bounds import within_bounds
from sonant.text.phoneme_pieces import fitting
from sonant.text.segment import sentences

IDS_PER_STEP = 16
MAX_PHONEMES = 400
"""Of a piece; the graph takes 510, and hurries through pieces near that."""
STYLES, WIDTH = 510, 256
"""Style vectors of a voice, one for each number of phonemes, and their width."""
PAD = 0


@dataclass(frozen=True, eq=False)
class KokoroInputs:
    """Phoneme ids [N] without the pads, the style vector [256] for their number, and the pace."""

    ids: Tensor
    style: Tensor
    speed: float


class KokoroModel:
    """The voices of one folder."""

    def __init__(self, folder: Path, *, device: torch.device, variant: str | None = None) -> None:
        self.spec = kokoro_spec(folder, variant)
        self._graph = graph_file(folder, variant)
        self._device = device
        self._voices = voice_files(folder)
        self._ids = _vocabulary(folder / "tokenizer.json")
        self._styles: dict[str, Tensor] = {}
        self._front_ends: dict[tuple[str, bool], Phonemizer] = {}
        self._session  # noqa: B018  # a damaged graph is told when the model is loaded

    @cached_property
    def _session(self) -> Any:
        return _session(self._graph, self._device)

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Always refused: a voice here is a table of vectors that training made."""
        raise UnsupportedError(
            "Kokoro cannot clone; it has voices of its own and mixtures of them. Use a model that "
            "can: see sonant models.",
            field="voice",
        )

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each sentence; sentences without sound are left out."""
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request: SpeechRequest) -> Iterator[Prompt | Unspeakable | None]:
        """What `prepare` gives, each sentence when it is wanted."""
        assert request.seed is not None
        voice = request.voice if isinstance(request.voice, str) else self.spec.default_voice
        assert voice is not None
        styles = tap("voice.styles", self.styles(voice))
        first = parse_mixture(voice)[0][0]
        language = request.language or LANGUAGES[first[0]]
        read = self._front_end(language, british=first.startswith(BRITISH))
        count, has_told = 0, False
        cut = sentences(request.text)
        for sentence in (piece.strip() for found in cut for piece in within_bounds(found)):
            made = attempt(sentence, partial(self._phonemes, read, sentence))
            if isinstance(made, Unspeakable):
                has_told = True
                yield made
                continue
            yield None
            said = [(phonemes, self.ids(phonemes)) for phonemes in made]
            if not any(ids for _, ids in said) and any(letter.isalnum() for letter in sentence):
                has_told = True
                yield Unspeakable(sentence, _unreadable(sentence, language))
            for phonemes, found_ids in said:
                if not found_ids:
                    continue
                ids = tap("text.ids", torch.tensor(found_ids, dtype=torch.int64))
                # As the model's own pipeline does, by the length of the phoneme string less one.
                style = styles[min(len(phonemes), STYLES) - 1]
                yield Prompt(
                    text=sentence,
                    sampling=request.sampling,
                    seed=segment_seed(request.seed, count),
                    ceiling=len(ids),
                    inputs=KokoroInputs(ids, style, request.speed),
                )
                count += 1
        if not count and not has_told:
            raise _unreadable(request.text, language)

    def _front_end(self, language: str, *, british: bool) -> Phonemizer:
        key = (language, british)
        if key not in self._front_ends:
            self._front_ends[key] = phonemizer(language, british=british)
        return self._front_ends[key]

    def _phonemes(self, read: Phonemizer, sentence: str) -> list[str]:
        return fitting(read(sentence), MAX_PHONEMES)

    def ids(self, phonemes: str) -> list[int]:
        """Ids of the phonemes that the model knows; the original leaves out the others as well."""
        return [self._ids[letter] for letter in phonemes if letter in self._ids]

    def styles(self, voice: str) -> Tensor:
        """Style vectors [510, 256] of a voice, or of a mixture such as af_bella:0.6+af_sky:0.4."""
        mixed = [weight * self._own_styles(name) for name, weight in parse_mixture(voice)]
        return torch.stack(mixed).sum(dim=0) if len(mixed) > 1 else self._own_styles(voice.partition(":")[0])

    def _own_styles(self, name: str) -> Tensor:
        if name not in self._styles:
            path = self._voices[name]
            values = np.fromfile(path, dtype="<f4")
            if values.size != STYLES * WIDTH or not np.isfinite(values).all():
                raise CheckpointError(
                    f"{path} holds {values.size} numbers; expected {STYLES} x {WIDTH} finite float32. Fetch "
                    "it again with: sonant pull kokoro"
                )
            self._styles[name] = torch.from_numpy(values.reshape(STYLES, WIDTH))
        return self._styles[name]

    def allocate(self, slots: int, positions: int) -> None:
        """Nothing to hold."""

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """An utterance at its first phoneme."""
        return Utterance(
            prompt=prompt, slots=tuple(slots), generator=generator(prompt.seed, "tokens"), state=0
        )

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """The next phoneme ids of each utterance."""
        steps = []
        for utterance in utterances:
            ids: Tensor = utterance.prompt.inputs.ids
            begin = utterance.state
            utterance.state = min(begin + IDS_PER_STEP, len(ids))
            steps.append(Step(ids[begin : utterance.state, None], utterance.state == len(ids)))
        return steps

    def decoder(self, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
        """A decoder that speaks the sentence when its last phoneme is there."""
        return KokoroDecoder(self, prompt.inputs)

    def speak(self, ids: Sequence[int], style: Tensor, speed: float) -> Tensor:
        """Waveform [S] of phoneme ids. Raises CheckpointError when the graph fails on them."""
        names = [item.name for item in self._session.get_inputs()]
        # The two public exports name the ids input_ids or tokens; style and speed are alike.
        feeds = {
            names[0]: np.array([[PAD, *ids, PAD]], dtype=np.int64),
            "style": style[None].numpy().astype(np.float32),
            "speed": np.array([speed], dtype=np.float32),
        }
        try:
            (samples, *_) = self._session.run(None, feeds)
        except Exception as error:  # onnxruntime's own errors share no public root
            raise CheckpointError(
                f"{self._graph} failed on {len(ids)} phonemes ({error}). Use the official file: "
                "sonant pull kokoro"
            ) from error
        return tap("waveform", torch.from_numpy(np.asarray(samples, dtype=np.float32).reshape(-1)))


class KokoroDecoder:
    """Gathers phoneme ids; the waveform of the sentence comes at `finish`."""

    def __init__(self, model: KokoroModel, inputs: KokoroInputs) -> None:
        self.timings: dict[str, float] = {}
        self._model = model
        self._inputs = inputs
        self._ids: list[int] = []

    def push(self, tokens: Tensor) -> Tensor:
        """No samples yet: the graph needs the whole sentence."""
        self._ids.extend(tokens[:, 0].tolist())
        return torch.zeros(0)

    def finish(self) -> Tensor:
        """The sentence, [S] at 24 kHz."""
        began = time.monotonic()
        samples = self._model.speak(self._ids, self._inputs.style, self._inputs.speed)
        self.timings["vocoder"] = time.monotonic() - began
        return samples


def _unreadable(text: str, language: str) -> RequestError:
    return RequestError(
        f"nothing in {text[:60]!r} can be read aloud in {language}. Give words, or a voice of the text's "
        "language.",
        field="text",
    )


def _vocabulary(path: Path) -> dict[str, int]:
    """Phoneme -> id, from the export's tokenizer file."""
    model = read_json(path).get("model")
    table = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(table, dict) or not all(isinstance(index, int) for index in table.values()):
        raise CheckpointError(
            f"{path} has no table model.vocab of phonemes and ids; expected that of the export. Fetch it "
            "again with: sonant pull kokoro"
        )
    return {str(letter): index for letter, index in table.items() if index != PAD}


def _session(path: Path, device: torch.device) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        made = ort.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:  # onnxruntime's own errors share no public root
        raise CheckpointError(
            f"{path} is no readable ONNX graph ({type(error).__name__}); its size is {path.stat().st_size} "
            "bytes. Download it again."
        ) from error
    names = [item.name for item in made.get_inputs()]
    if len(names) != 3 or names[0] not in ("input_ids", "tokens") or set(names[1:]) != {"style", "speed"}:
        raise CheckpointError(
            f"{path} takes {', '.join(names)}; expected input_ids (or tokens), style and speed. It is not "
            "Kokoro's export: fetch that with: sonant pull kokoro"
        )
    return made
