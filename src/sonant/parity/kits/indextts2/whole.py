"""Checks of whole sentences, of what is encoded how often, and of the checkpoint's own listing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.checkpoints.files import read_json
from sonant.engine.model import Prompt
from sonant.families.indextts2.config import W2vBertConfig
from sonant.families.indextts2.multilingual import STOP
from sonant.families.indextts2.preparing import IndexInputs
from sonant.families.indextts2.text import TextFrontEnd
from sonant.families.indextts2.weights import GPT_WRAPPER, read_any
from sonant.parity.kits.driver import watched
from sonant.parity.kits.indextts2.folder import IndexKit
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from sonant.request.voice import Voice
from sonant.voices.casting import Casting

FULL_SCALE = 32767.0
LOW_MEMORY_PIECE = 40  # characters. Source: the original's low-memory mode
DEFAULT_SILENCE = 200  # milliseconds. Source: the original's `infer`

STAGES = {"latent": "latent.out", "S": "s2mel.features"}


def request_of(kit: IndexKit, case: dict[str, Any], voice: Voice) -> SpeechRequest:
    """The request that means the same as the original's keyword arguments."""
    given, known = dict(case["kwargs"]), kit.data["arguments"]
    unknown = given.keys() - known["sampling"].keys() - known["options"].keys() - known["other"].keys()
    if unknown:
        raise ValueError(f"the case has arguments without a counterpart: {sorted(unknown)}")
    chosen, options = (
        {name: given[argument] for argument, name in known[home].items() if argument in given}
        for home in ("sampling", "options")
    )
    if not given.get("typical_sampling", False):
        options.pop("typical_mass", None)
    elif "typical_mass" not in options:
        options["typical_mass"] = 0.9
    if kit.is_multilingual:
        options.pop("quick_pieces", None)  # accepted and not read there
        options["language_code"] = case["lang"]
        if case["low_vram"]:
            options["piece_characters"] = LOW_MEMORY_PIECE
    options["emotion_bias"] = False  # the original's `infer` takes the numbers as they are
    options["emotion_random_seed"] = case["python_seed"]
    style: dict[str, Any] = {"emotion_random": given.get("use_random", False)}
    if given.get("use_emo_text"):
        if given.get("emo_text") is not None:
            style["emotion_text"] = given["emo_text"]
        else:
            style["emotion_from_text"] = True
    elif given.get("emo_vector") is not None:
        style["emotion_vector"] = tuple(given["emo_vector"])
    elif given.get("emo_audio_prompt"):
        style["emotion_audio"] = Audio.read(kit.audio(given["emo_audio_prompt"]))
    if len(style) > 1:
        style["emotion_strength"] = given.get("emo_alpha", 1.0)
    return SpeechRequest(
        case["text"],
        voice=voice,
        style=Style(**style),
        sampling=Sampling(greedy=case["deterministic"], **chosen),
        seed=0,
        normalize="original" if given.get("text_normalization", True) else "off",
        options=options,
    )


def check_whole(kit: IndexKit) -> None:
    """Every end-to-end case, from the wav files and the text to 16-bit samples."""
    voices: dict[str, Voice] = {}
    for case in kit.json("e2e") or []:
        with kit.report.section(f"e2e {case['name']}"), torch.inference_mode():
            name = case["ref"]
            if name not in voices:
                voices[name] = kit.model.encode_voice(Audio.read(kit.audio(name)), None)
            _check_case(kit, case, voices[name])


def _check_case(kit: IndexKit, case: dict[str, Any], voice: Voice) -> None:
    report = kit.report
    name, tensors = f"e2e {case['name']}", kit.tensors(f"e2e_{case['name']}")
    prompts = kit.model.prepare(request_of(kit, case, voice))
    report.equal(name, "segments", len(prompts), case["segments"])
    ids = [list(prompt.inputs.decode.ids) for prompt in prompts]
    text = kit.model.parts.text
    if isinstance(text, TextFrontEnd):
        report.equal(name, "segment pieces", ids, [text.ids_of(part) for part in case["segment_pieces"]])
    else:
        report.equal(name, "segment ids", ids, [[*part, STOP] for part in case["segment_ids"]])
        texts = [part.strip() for part in case["segment_texts"]]
        report.equal(name, "segment texts", [prompt.text for prompt in prompts], texts)
        recorded_ids = [tensors[f"text_ids_{index}"][0] for index in range(len(prompts))]
        report.equal(name, "text ids", ids, [part.tolist() for part in recorded_ids])
    rng = _generator(kit, case["torch_seed"])
    spoken: list[Tensor] = []
    lengths: list[int] = []
    for index, prompt in enumerate(prompts):
        waveform, count = _check_segment(kit, name, tensors, index, prompt, rng)
        spoken.append(waveform)
        lengths.append(count)
    report.equal(name, "code lengths", lengths, case["code_lengths"])
    _check_samples(kit, name, case, tensors, spoken)


def _generator(kit: IndexKit, seed: int) -> torch.Generator:
    """The original's global generator as it stands when the first code is drawn.

    Its w2v-bert draws one number a layer for a layer drop that only training uses, and both the speaker's
    and the emotion's features were made after seeding; IndexTTS-2.5 makes the speaker's twice.
    """
    rng = torch.Generator().manual_seed(seed)
    layers = W2vBertConfig.read(read_json(kit.layout.w2v_bert / "config.json")).num_hidden_layers
    for _ in range((3 if kit.is_multilingual else 2) * layers):
        torch.rand([], generator=rng)
    return rng


def _check_segment(
    kit: IndexKit, name: str, tensors: Mapping[str, Tensor], index: int, prompt: Prompt, rng: torch.Generator
) -> tuple[Tensor, int]:
    model, inputs = kit.model, prompt.inputs
    assert isinstance(inputs, IndexInputs)
    model.allocate(prompt.rows, prompt.positions)
    utterance = model.start(prompt, range(prompt.rows))
    found = {"emovec": inputs.decode.emotion[None], "rng_state": rng.get_state()}
    utterance.generator = rng  # the original draws everything from the one global generator
    while True:
        (step,) = model.step([utterance])
        if step.is_final:
            break
    found["codes"] = torch.tensor([utterance.state.search.result])
    noise = tensors[f"noise_{index}"]
    found["noise"] = torch.randn(noise.shape, generator=rng)
    decoder = model.decoder(prompt, streaming=False, noise=noise)
    decoder.push(step.tokens)
    with watched() as seen:
        waveform = decoder.finish()
    found |= {key: seen[stage][0] for key, stage in STAGES.items() if stage in seen}
    found["cond"] = torch.cat((inputs.decode.condition, seen["s2mel.condition"][0]), dim=1)
    found["mel"] = seen["s2mel.mel"][0][..., inputs.decode.mel.shape[-1] :]
    found["wav"] = waveform
    ours = {f"{key}_{index}": value for key, value in found.items()}
    kit.compare("segment", name, {key: tensors[key] for key in ours if key in tensors}, ours)
    return waveform, len(step.tokens)


def _check_samples(
    kit: IndexKit, name: str, case: dict[str, Any], tensors: Mapping[str, Tensor], spoken: list[Tensor]
) -> None:
    """Segments joined with their silence, as 16-bit samples; a stream also ends with silence.

    Where the original took pieces of the text one by one, silence is only between those.
    """
    report, limit = kit.report, kit.limits["int16"]
    milliseconds = case["kwargs"].get("interval_silence", DEFAULT_SILENCE)
    silence = torch.zeros(max(0, int(kit.model.spec.sample_rate * milliseconds / 1000.0)))
    chunks: list[tuple[Tensor, bool]] = []
    pauses = set(range(1, len(spoken)))
    if case.get("low_vram"):
        pauses = set(accumulate(case["segments_per_run"]))
    if case["kwargs"].get("stream_return"):
        pauses.add(len(spoken))
    else:
        pauses.discard(len(spoken))
    for index, waveform in enumerate(spoken, 1):
        chunks.append((waveform, False))
        if len(silence) and index in pauses:
            chunks.append((silence, True))
    if case.get("chunks"):
        found = [[[1, len(samples)], is_silence] for samples, is_silence in chunks]
        report.equal(name, "chunks", found, case["chunks"])
    joined = torch.cat([samples for samples, _ in chunks])
    scaled = (FULL_SCALE * joined).clamp(-FULL_SCALE, FULL_SCALE)
    integers = scaled.numpy().astype(np.int16)[:, None]  # cut towards zero, as the original does
    report.equal(name, "samples", len(integers), case["samples"])
    expected = tensors["wav_int16"].to(torch.int32)
    report.close(name, "wav_int16", integers.astype(np.int32), expected, limit)
    peak = int(np.abs(integers.astype(np.int32)).max())
    report.close(name, "peak", peak, case["peak"], limit)
    rms = float(np.sqrt(np.mean(integers.astype(np.float64) ** 2)))
    report.close(name, "rms", rms, case["rms"], limit)


def check_cache(kit: IndexKit) -> None:
    """Encoder runs of a sequence of calls: every clip is encoded once, whoever uses it again."""
    calls, report = kit.json("cache"), kit.report
    if not calls:
        return
    fresh = IndexKit(kit.folder, report).model
    casting = Casting(fresh, None)
    seen_voices: set[str] = set()
    seen_clips: set[str] = set()
    for number, call in enumerate(calls):
        with watched() as seen:
            audio = Audio.read(kit.audio(call["ref"]))
            voice = casting.encode(audio)
            clip = Audio.read(kit.audio(call["emo"])) if call["emo"] else None
            fresh.prepare(SpeechRequest("a b", voice=voice, style=Style(emotion_audio=clip), seed=0))
        runs = len(seen.get("w2v.hidden.0", []))
        # A voice keeps both of its features from the start, the original makes the second when it is used.
        new = 2 * (call["ref"] not in seen_voices) + (
            call["emo"] is not None and call["emo"] not in seen_clips
        )
        report.equal("cache", f"call {number} encoder runs of new content", runs, new)
        seen_voices.add(call["ref"])
        if call["emo"]:
            seen_clips.add(call["emo"])
        if call["encoder_runs"] == 0:
            report.equal("cache", f"call {number} runs no encoder", runs, 0)


def check_keys(kit: IndexKit) -> None:
    """The readers find the tensors that the kit lists, with their types and shapes.

    Whether the lists were made inside a file's wrapper or around it, and what training left beside them, says
    nothing about the readers.
    """
    path = kit.folder / "checkpoint_keys.json"
    if not path.is_file():
        return
    for file, expected in json.loads(path.read_text(encoding="utf-8")).items():
        found = _bare(_listing(read_any(kit.checkpoint / file)))
        wanted = _bare({name: (_type(kind), list(shape)) for name, (kind, shape) in expected.items()})
        if set(wanted) == {""} or len(wanted) == len(found) == 1:  # a file that is one tensor
            found = dict(zip(wanted, found.values(), strict=True))
        listed = {name: value for name, value in found.items() if name in wanted}
        kit.report.equal("checkpoint", file, listed, wanted)


def _bare(listing: dict[str, tuple[str, list[int]]]) -> dict[str, tuple[str, list[int]]]:
    """The names without the wrapper that a training checkpoint has."""
    return {name.removeprefix(f"{GPT_WRAPPER}/"): value for name, value in listing.items()}


def _type(name: str) -> str:
    short = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "F64": "float64"}
    return short.get(name, name)


def _listing(value: Any, prefix: str = "") -> dict[str, tuple[str, list[int]]]:
    if isinstance(value, Tensor):
        return {prefix: (str(value.dtype).removeprefix("torch."), list(value.shape))}
    listing: dict[str, tuple[str, list[int]]] = {}
    if isinstance(value, dict):
        for key, item in value.items():
            listing.update(_listing(item, f"{prefix}/{key}" if prefix else str(key)))
    return listing
