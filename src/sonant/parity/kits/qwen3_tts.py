"""The Qwen3-TTS conformance kit: everything it records, in order of computation.

Cases run twice: teacher-forced with the recorded tokens, one row at a time, for the tensors; then freely,
all rows as one batch, for the tokens (greedy cases) and the waveform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.checkpoints.tensors import build, load_strict, read_tensors
from sonant.engine.model import Prompt, Utterance
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.config import (
    BUILT_IN_GENERATION,
    CODEC_FOLDER,
    read_codec_config,
    read_generation_defaults,
    read_model_config,
    sampling_fields,
)
from sonant.families.qwen3_tts.decoding import predictor_scores, talker_scores
from sonant.families.qwen3_tts.loading import load_folder
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.families.qwen3_tts.speaker import speaker_mel
from sonant.families.qwen3_tts.speech_tokenizer import reference_samples
from sonant.families.qwen3_tts.talker import Network
from sonant.families.qwen3_tts.weights import CODEC_IGNORED, MODEL_RULES, Codec, codec_rules
from sonant.nn.tap import tapped
from sonant.parity.kit import KitReport, RecordedFiles
from sonant.parity.kits.qwen3_tts_rows import Row, at_rate, read_rows
from sonant.request.audio import Audio
from sonant.request.speech import Sampling

PROMPT, HIDDEN, LOGITS, PREDICTOR, SCORES, PROBABILITIES = 1e-5, 2e-5, 2e-5, 5e-5, 5e-5, 1e-5
CODEC, WAVEFORM, MEL, VECTOR = 1e-4, 5e-5, 1e-4, 1e-5

Tensors = Mapping[str, Tensor]


def recognises(folder: Path) -> bool:
    """True when the folder is a kit of this family."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kit") == "qwen3_tts"


def run(folder: Path, report: KitReport) -> None:
    """Check everything the kit records."""

    @lru_cache(maxsize=2)
    def model(name: str) -> Qwen3TTS:
        loaded = load_folder(folder / "checkpoints" / name, device=torch.device("cpu"), dtype=torch.float32)
        assert isinstance(loaded, Qwen3TTS)
        return loaded

    expected = folder / "expected"
    files = RecordedFiles(expected)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir() if path.is_dir())
    with torch.inference_mode():
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("tensor_names.json", lambda: _tensor_names(folder, names, report)),
            ("tokenizer.json", lambda: _tokenizer(folder, model(names[0]), report)),
            ("icl_trim.json", lambda: _trim(folder, report)),
            ("sampling/sampling.json", lambda: _sampling(folder, files, report)),
            ("codec/decode.json", lambda: _codec_decoder(folder, files, model(names[0]), report)),
            ("codec/encode.json", lambda: _codec_encoder(folder, files, model(names[0]), report)),
        )
        for part, check in parts:
            if (expected / part).is_file():
                with report.section(part):
                    check()
        for name in names:
            if f"{name}/speaker_encoder" in files:
                with report.section(f"{name}/speaker_encoder"):
                    _speaker_encoder(folder, files, name, model(name), report)
            for case in sorted((expected / name).glob("*/case.json")):
                with report.section(f"{name}/{case.parent.name}"):
                    _case(folder, files, case.parent, model(name), report)
        files.check_coverage(report)


@contextmanager
def _recorded() -> Iterator[dict[str, list[Tensor]]]:
    """All tapped tensors inside the block by name, in order of time."""
    seen: dict[str, list[Tensor]] = {}

    def sink(name: str, tensor: Tensor) -> None:
        seen.setdefault(name, []).append(tensor.clone())

    with tapped(sink):
        yield seen


def _network_fits(
    make: Callable[[], torch.nn.Module], shapes: Mapping[str, list[int]], **options: Any
) -> None:
    """Raise CheckpointError unless tensors of these names and shapes fill the network exactly."""
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    load_strict(build(make), empty, **options)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# -- parts that need no case ----------------------------------------------------------------------


def _tensor_names(folder: Path, names: Sequence[str], report: KitReport) -> None:
    recorded = _json(folder / "expected" / "tensor_names.json")

    def shapes(tensors: Tensors) -> dict[str, list[int]]:
        return {key: list(tensor.shape) for key, tensor in sorted(tensors.items())}

    for name, expected in recorded.items():
        is_codec = name == CODEC_FOLDER
        home = folder / "checkpoints" / (names[0] if is_codec else name)
        weights = home / CODEC_FOLDER if is_codec else home
        found = shapes(read_tensors(weights / "model.safetensors"))
        report.equal(f"tensor_names/{name}", "names and shapes", found, dict(sorted(expected.items())))
        if is_codec:
            codec = read_codec_config(weights)
            _network_fits(partial(Codec, codec), expected, rules=codec_rules(codec), ignored=CODEC_IGNORED)
        else:
            _network_fits(partial(Network, read_model_config(weights)), expected, rules=MODEL_RULES)
        report.check(f"tensor_names/{name}", "every tensor has its place in the network", True)


def _tokenizer(folder: Path, model: Qwen3TTS, report: KitReport) -> None:
    record = _json(folder / "expected" / "tokenizer.json")
    for token, index in record["special_ids"].items():
        report.equal("tokenizer", token, model.tokenizer.id(token), index)
    report.equal("tokenizer", "assistant", model.tokenizer.encode("assistant"), [record["assistant"]])
    report.equal("tokenizer", "user", model.tokenizer.encode("user"), [record["user"]])
    report.equal("tokenizer", "newline", model.tokenizer.encode("\n"), [record["newline"]])
    for number, row in enumerate(record["rows"]):
        wrapped = prompts.ROLE + row["text"] + prompts.AFTER_TEXT
        report.equal("tokenizer", f"row.{number}.wrapped", wrapped, row["wrapped"])
        found = prompts.text_ids(model.tokenizer, row["text"], markers=True)
        report.equal("tokenizer", f"row.{number}.ids", found, row["ids"])


def _trim(folder: Path, report: KitReport) -> None:
    record = _json(folder / "expected" / "icl_trim.json")
    name = next(path for path in sorted((folder / "checkpoints").iterdir()) if path.is_dir())
    rate = read_codec_config(name / CODEC_FOLDER).decode_upsample_rate
    for reference, generated, cut in record["rows"]:
        total = reference + generated
        found = reference_samples(reference, total, total * rate)
        report.equal("icl_trim", f"{reference} + {generated} frames", found, cut)


def _sampling(folder: Path, files: RecordedFiles, report: KitReport) -> None:
    record = _json(folder / "expected" / "sampling" / "sampling.json")
    tensors = files["sampling/sampling"]
    for settings in record["sets"]:
        name = settings["name"]
        logits, history = tensors[f"{name}.logits"], tensors[f"{name}.history"]
        values = {key: settings[key] for key in ("temperature", "top_k", "top_p")}
        if settings["talker"]:
            sampling = Sampling(repetition_penalty=settings["repetition_penalty"], **values)
            rows = [
                talker_scores(row, past, sampling, end=settings["eos"])
                for row, past in zip(logits, history, strict=True)
            ]
            scores = torch.stack(rows)
        else:
            sampling = Sampling(**{f"predictor_{key}": value for key, value in values.items()})
            scores = predictor_scores(logits, sampling)
        report.close("sampling", f"{name}.scores", scores, tensors[f"{name}.scores"], SCORES)
        report.close("sampling", f"{name}.probs", scores.softmax(-1), tensors[f"{name}.probs"], PROBABILITIES)


# -- codec ----------------------------------------------------------------------------------------


def _codec_decoder(folder: Path, files: RecordedFiles, model: Qwen3TTS, report: KitReport) -> None:
    place = folder / "expected" / "codec"
    if (place / "shapes.json").is_file():
        for name, listed in _json(place / "shapes.json").items():
            shapes = files[f"codec/{name.removesuffix('.safetensors')}"].shapes()
            report.equal("codec/shapes", name, shapes, {key: shape for key, (_, shape) in listed.items()})
    record = _json(place / "decode.json")
    decoder = model.speech_tokenizer.codec.decoder
    for name in ("decode_stages", "decode_window"):
        expected = files[f"codec/{name}"]
        tokens = expected["codes"].transpose(1, 2)
        with _recorded() as seen:
            decoder(tokens)
        for key in _stages(expected):
            found = seen[f"codec.{key}.out" if ".layer." in key else f"codec.{key}"][0]
            if ".layer." not in key and key != "pre_transformer.out" and found.ndim == 3:
                found = found.transpose(1, 2)  # the kit has channels before time
            limit = WAVEFORM if key.startswith("wav") else CODEC
            report.close(f"codec/{name}", key, found, expected[key], limit)
        streaming = model.speech_tokenizer.decoder()
        pieces = [streaming.push(frame[None]) for frame in tokens[0]]
        streamed = torch.cat([*pieces, streaming.finish()])
        report.close(f"codec/{name}", "wav, frame by frame", streamed[None], expected["wav"], WAVEFORM)
    expected = files["codec/decode_chunked"]
    waveform = decoder.decode_in_chunks(
        expected["codes"][0].T, chunk=record["chunk_size"], context=record["left_context_size"]
    )
    report.close("codec/decode_chunked", "wav_chunked", waveform[None], expected["wav_chunked"], WAVEFORM)
    waveform = decoder.decode_in_chunks(
        expected["default.codes"][0].T,
        chunk=record["default_chunk_size"],
        context=record["default_left_context_size"],
    )
    frame = decoder.config.samples_per_frame
    report.equal(
        "codec/decode_chunked", "default.wav.length", waveform.shape[0], int(expected["default.wav.length"])
    )
    for crop, value in record["default_crops_in_frames"].items():
        if crop == "stride":
            key, found = f"default.wav.every_{value}", waveform[::value]
        else:
            key, found = f"default.wav.{crop}", waveform[value[0] * frame : value[1] * frame]
        report.close("codec/decode_chunked", key, found[None], expected[key], WAVEFORM)
    expected = files["codec/decode_batch"]
    for row, frames in enumerate(record["batch_lengths"]):
        report.equal("codec/decode_batch", f"frames.{row}", len(expected[f"codes.{row}"]), frames)
        waveform = decoder.decode_in_chunks(expected[f"codes.{row}"])
        report.close("codec/decode_batch", f"wav.{row}", waveform, expected[f"wav.{row}"], WAVEFORM)


def _stages(expected: Tensors) -> list[str]:
    """Keys of a decode file in order of computation."""
    order = ["quantizer", "pre_conv", "pre_transformer.layer", "pre_transformer.out", "upsample", "decoder"]

    def rank(key: str) -> tuple[int, bool, str]:
        place = next((i for i, part in enumerate(order) if key.startswith(part)), len(order))
        return place, key == "quantizer.out", key if key != "wav" else "wav_z"

    return sorted((key for key in expected if key != "codes"), key=rank)


def _codec_encoder(folder: Path, files: RecordedFiles, model: Qwen3TTS, report: KitReport) -> None:
    place = folder / "expected" / "codec"
    record = _json(place / "encode.json")
    codec = model.speech_tokenizer
    for name in (key for key in record if key != "batch"):
        case, expected = f"codec/encode_{name}", files[f"codec/encode_{name}"]
        audio = Audio.read(folder / record[name]["file"])
        report.equal(case, "source rate", audio.sample_rate, record[name]["source_rate"])
        resampled = at_rate(audio, codec.config.input_sample_rate)
        report.equal(case, "samples at 24 kHz", len(resampled), record[name]["samples_24k"])
        if "wav_mono" in expected:
            report.close(case, "wav_mono", audio.samples, expected["wav_mono"], WAVEFORM)
        if "wav_24k" in expected:
            report.close(case, "wav_24k", resampled, expected["wav_24k"], WAVEFORM)
        with _recorded() as seen:
            tokens = codec.codec.encoder(resampled[None])[0]
        for key in ("seanet.out", "transformer.out", "downsample.out"):
            report.close(case, key, seen[f"codec_encoder.{key}"][0], expected[key], CODEC)
        report.equal(case, "codes.all_quantizers", tokens.T, expected["codes.all_quantizers"])
        valid = codec.encode_audio(audio)
        report.equal(case, "codes.valid", valid, expected["codes.valid"])
        report.equal(case, "frames", valid.shape[0], record[name]["frames"])
    if "batch" not in record:
        return
    batch, case = record["batch"], "codec/encode_batch"
    expected = files["codec/encode_batch"]
    source = at_rate(Audio.read(folder / batch["source"]), codec.config.input_sample_rate)
    rows = [source[:length] for length in batch["lengths"]]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    together = codec.codec.encoder(padded, codec.quantizers)
    for row, (clip, frames) in enumerate(zip(rows, batch["frames"], strict=True)):
        report.equal(case, f"codes.{row}", together[row, :frames], expected[f"codes.{row}"])
        alone = codec.codec.encoder(clip[None], codec.quantizers)[0]
        report.equal(case, f"codes_alone.{row}", alone, expected[f"codes_alone.{row}"])
        same = (alone == together[row, :frames]).all(dim=1).tolist()
        report.equal(case, f"frames_equal_to_single.{row}", same, batch["frames_equal_to_single"][row])


def _speaker_encoder(
    folder: Path, files: RecordedFiles, name: str, model: Qwen3TTS, report: KitReport
) -> None:
    case = f"{name}/speaker_encoder"
    expected = files[f"{name}/speaker_encoder"]
    clips = _json(folder / "expected" / "codec" / "encode.json")
    encoder = model.network.speaker_encoder
    assert encoder is not None
    for clip in sorted({key.split(".")[0] for key in expected}):
        samples = at_rate(Audio.read(folder / clips[clip]["file"]), encoder.config.sample_rate)
        with _recorded() as seen:
            encoder(speaker_mel(samples[None], encoder.config))
        last = max(int(key.rsplit(".", 1)[1]) for key in seen if key.startswith("speaker.block."))
        for key, tap, limit in (
            ("mel", "speaker.mel", MEL),
            ("block0", "speaker.block.0", HIDDEN),
            ("block_last", f"speaker.block.{last}", HIDDEN),
            ("mfa", "speaker.mfa", HIDDEN),
            ("asp", "speaker.statistics", HIDDEN),
            ("xvector", "speaker.vector", VECTOR),
        ):
            if f"{clip}.{key}" in expected:
                wanted = expected[f"{clip}.{key}"]
                found = seen[tap][0][0]
                if key in {"block0", "block_last", "mfa"}:
                    found = found[:, : wanted.shape[1]]  # the kit keeps the first frames
                report.close(case, f"{clip}.{key}", found, wanted, limit)


# -- cases ----------------------------------------------------------------------------------------


def _case(folder: Path, files: RecordedFiles, place: Path, model: Qwen3TTS, report: KitReport) -> None:
    record = _json(place / "case.json")
    inputs, summary = record["inputs"], record["summary"]
    expected = files[f"{place.parent.name}/{place.name}/tensors"]
    case = f"{record['variant']}/{record['case']}"
    if "tensors" in record:
        listed = {key: shape for key, (_, shape) in record["tensors"].items()}
        report.equal(case, "tensors listed", expected.shapes(), listed)
    compared: set[str] = set()

    def close(key: str, found: Tensor, limit: float, wanted: Tensor | None = None) -> None:
        if key in expected:
            compared.add(key)
            report.close(case, key, found, expected[key] if wanted is None else wanted, limit)

    def equal(key: str, found: Tensor, wanted: Tensor | None = None) -> None:
        if key in expected:
            compared.add(key)
            report.equal(case, key, found, expected[key] if wanted is None else wanted)

    generation = {**read_generation_defaults(folder / record["checkpoint"]), **inputs["generate"]}
    sampling = Sampling(**sampling_fields(generation))
    frames = max(0, {**BUILT_IN_GENERATION, **generation}["max_new_tokens"] - 1)
    rows = read_rows(folder, inputs, model, sampling, frames)

    for kind, numbered in (
        ("text", [row.text for row in rows]),
        ("instruct", [row.instruction for row in rows if row.instruction is not None]),
        ("ref", [row.transcript for row in rows if row.transcript is not None]),
    ):
        for number, ids in enumerate(numbered):
            equal(f"ids.{kind}.{number}", torch.tensor(ids))
    for number, row in enumerate(rows):
        if row.vector is not None:
            close(f"ref.xvector.{number}", row.vector, VECTOR)
        if row.reference is not None:
            equal(f"ref.codes.{number}", row.reference.tokens)
    lengths = [row.prompt.inputs.embeds.shape[0] for row in rows]
    longest = max(lengths)
    _prompts(rows, longest, close, equal)
    report.equal(case, "summary.prompt_len", longest, summary["prompt_len"])
    report.equal(case, "summary.batch", len(rows), summary["batch"])

    steps, best = _forced(case, rows, expected, model, report, compared)
    kv_length, positions = _tracks(steps, lengths, longest)
    equal("talker.kv_len", kv_length)
    if "talker.decode_positions" in expected:
        equal("talker.decode_positions", positions)

    # Drawn tokens depend on the original's random stream; that each survives the filters was checked
    # above, and the rest is checked on the recorded ones.
    is_greedy = bool(sampling.greedy) and bool(sampling.predictor_greedy)
    tokens, ended = _free(rows, model) if is_greedy else (_codes(expected, rows), summary["eos_seen"])
    end = model.config.talker.codec_eos_token_id
    for number, found in enumerate(tokens):
        compared.add(f"codes.{number}")
        if is_greedy:
            equal(f"codes.{number}", found)
        # Without an end the last token is chosen but becomes no frame; drawn, it can be any allowed one.
        unheard = best[number] if sampling.greedy else int(expected["talker.tokens"][number, len(found)])
        chain = [*found[:, 0].tolist(), end if ended[number] else unheard]
        equal("talker.tokens", torch.tensor(chain), expected["talker.tokens"][number, : len(chain)])
    report.equal(case, "summary.frames", [len(found) for found in tokens], summary["frames"])
    report.equal(case, "summary.eos_seen", list(ended), summary["eos_seen"])
    report.equal(case, "summary.sample_rate", model.spec.sample_rate, summary["sample_rate"])
    samples = []
    for number, (row, found) in enumerate(zip(rows, tokens, strict=True)):
        if f"wav.{number}" not in expected:
            samples.append(_length(row, len(found), model))
            continue
        whole = _decoded(replace(row.prompt, inputs=replace(row.prompt.inputs, in_chunks=True)), found, model)
        samples.append(len(whole))
        close(f"wav.{number}", whole, WAVEFORM)
        total = len(found) + (0 if row.reference is None else len(row.reference.tokens))
        streamed = _decoded(row.prompt, found, model)
        if total <= 300 and len(streamed) == len(whole):
            report.close(case, f"wav.{number}, frame by frame", streamed, expected[f"wav.{number}"], WAVEFORM)
    report.equal(case, "summary.samples", samples, summary["samples"])
    left = sorted(set(expected) - compared)
    report.equal(case, "tensors of the case not compared", left, [])


def _prompts(
    rows: Sequence[Row],
    longest: int,
    close: Callable[[str, Tensor, float], None],
    equal: Callable[[str, Tensor], None],
) -> None:
    """The batch as the original pads it: prompts on the left with zeros, trailing text on the right."""
    embeds, masks, places, trailing = [], [], [], []
    most = max(len(row.prompt.inputs.trailing) for row in rows)
    for row in rows:
        inputs: prompts.TalkerInputs = row.prompt.inputs
        pads = longest - len(inputs.embeds)
        embeds.append(torch.nn.functional.pad(inputs.embeds, (0, 0, pads, 0)))
        mask = torch.cat((torch.zeros(pads), torch.ones(longest - pads))).long()
        masks.append(mask)
        places.append(torch.where(mask == 1, mask.cumsum(0) - 1, 1))
        filler = inputs.filler.expand(most - len(inputs.trailing), -1)
        trailing.append(torch.cat((inputs.trailing, filler)))
    close("prompt.embeds", torch.stack(embeds), PROMPT)
    equal("prompt.mask", torch.stack(masks))
    equal("prompt.position_ids", torch.stack(places))
    close("prompt.trailing_text", torch.stack(trailing), PROMPT)
    close("prompt.tts_pad", rows[0].prompt.inputs.filler, PROMPT)


def _codes(expected: Tensors, rows: Sequence[Row]) -> list[Tensor]:
    return [expected[f"codes.{number}"] for number in range(len(rows))]


def _start(model: Qwen3TTS, rows: Sequence[Row]) -> list[Utterance]:
    model.allocate(len(rows), max(row.prompt.positions for row in rows) + 1)
    return [model.start(row.prompt, [slot]) for slot, row in enumerate(rows)]


def _forced(
    case: str,
    rows: Sequence[Row],
    expected: Tensors,
    model: Qwen3TTS,
    report: KitReport,
    compared: set[str],
) -> tuple[list[list[int]], list[int]]:
    """Run each row on the recorded tokens and compare; cache lengths after every pass, row by row, and the
    best token after the last one.

    A row is compared while it speaks: after its end the reference went on with tokens it never recorded.
    """
    lengths: list[list[int]] = []
    best: list[int] = []
    for number, (row, codes) in enumerate(zip(rows, _codes(expected, rows), strict=True)):
        sampling = row.prompt.sampling
        end = model.config.talker.codec_eos_token_id
        tag = "" if len(rows) == 1 else f"[{number}]"
        with _recorded() as seen:
            (utterance,) = _start(model, [row])
        _prefill(case, seen, expected, report, compared)
        assert model._cache is not None
        track = [model._cache.lengths[0]]
        logits, hidden, scores = [utterance.state.logits], [utterance.state.hidden], []
        inputs, guesses, guess_scores, possible = [], [], [], True
        for frame in codes:
            scores.append(_scores(utterance, sampling, end))

            def choose(group: int, _: Tensor, frame: Tensor = frame) -> Tensor:
                return frame[None, group]

            with _recorded() as seen:
                model.advance([utterance], [int(frame[0])], choose)
            inputs.append(seen["predictor.inputs"][0][0])
            guess = torch.cat(seen["predictor.logits"])
            guesses.append(guess)
            guess_scores.append(predictor_scores(guess, sampling))
            possible &= bool(scores[-1][frame[0]].isfinite())
            possible &= bool(guess_scores[-1].gather(1, frame[1:, None]).isfinite().all())
            logits.append(utterance.state.logits)
            hidden.append(utterance.state.hidden)
            track.append(model._cache.lengths[0])
        scores.append(_scores(utterance, sampling, end))
        best.append(int(scores[-1].argmax()))
        possible &= bool(scores[-1][expected["talker.tokens"][number, len(codes)]].isfinite())
        lengths.append(track)
        report.check(case, f"codes.{number} survive the filters", possible)
        for key, values, limit in (
            ("talker.last_hidden", hidden, HIDDEN),
            ("talker.logits", logits, LOGITS),
            ("talker.scores", scores, SCORES),
            ("predictor.inputs", inputs, HIDDEN),
            ("predictor.logits", guesses, PREDICTOR),
            ("predictor.scores", guess_scores, SCORES),
        ):
            if key in expected:
                compared.add(key)
                wanted = expected[key][number, : len(values)]
                found = torch.stack(values[: len(wanted)])
                report.close(case, key + tag, found, wanted, limit)
    return lengths, best


def _prefill(
    case: str, seen: Mapping[str, list[Tensor]], expected: Tensors, report: KitReport, compared: set[str]
) -> None:
    last = sum(1 for key in expected if key.startswith("prefill.hidden.")) - 1
    for index in range(last + 1):
        key = f"prefill.hidden.{index}"
        found = seen["talker.norm" if index == last else f"talker.layer.{index}.in"][0]
        compared.add(key)
        report.close(case, key, found, expected[key], HIDDEN)


def _scores(utterance: Utterance, sampling: Sampling, end: int) -> Tensor:
    return talker_scores(utterance.state.logits, utterance.state.history, sampling, end=end)


def _tracks(steps: Sequence[Sequence[int]], lengths: Sequence[int], longest: int) -> tuple[Tensor, Tensor]:
    """Cache length after each pass, pads counted as the original does; last position of each pass [B, S].

    Rows that ended take part in the passes of the others, so their positions go on.
    """
    number = max(range(len(steps)), key=lambda row: len(steps[row]))
    cache = torch.tensor([length + longest - lengths[number] for length in steps[number]])
    whole = [[*track, *range(track[-1] + 1, track[-1] + 1 + len(cache) - len(track))] for track in steps]
    return cache, torch.tensor(whole) - 1


def _free(rows: Sequence[Row], model: Qwen3TTS) -> tuple[list[Tensor], list[bool]]:
    """Tokens of all rows stepped as one batch, and whether each ended by itself."""
    running = list(enumerate(_start(model, rows)))
    tokens: list[list[Tensor]] = [[] for _ in rows]
    ended = [False] * len(rows)
    while running:
        results = model.step([utterance for _, utterance in running])
        for (number, _), step in zip(running, results, strict=True):
            tokens[number].append(step.tokens)
            ended[number] = step.is_final and not step.at_ceiling
        running = [pair for pair, step in zip(running, results, strict=True) if not step.is_final]
    return [torch.cat(parts) for parts in tokens], ended


def _decoded(prompt: Prompt, tokens: Tensor, model: Qwen3TTS) -> Tensor:
    decoder = model.decoder(prompt, streaming=True)
    return torch.cat((decoder.push(tokens), decoder.finish()))


def _length(row: Row, frames: int, model: Qwen3TTS) -> int:
    """Samples of a row that is not decoded."""
    reference = 0 if row.reference is None else len(row.reference.tokens)
    samples = (reference + frames) * model.speech_tokenizer.config.decode_upsample_rate
    return samples - reference_samples(reference, reference + frames, samples)
