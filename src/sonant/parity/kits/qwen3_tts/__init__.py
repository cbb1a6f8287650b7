"""The Qwen3-TTS conformance kit: everything it records, in order of computation.

Cases run twice: teacher-forced with the recorded tokens, one row at a time, for the tensors; then freely,
all rows as one batch, for the tokens (greedy cases) and the waveform. What is compared with what is in
`qwen3_tts.toml`.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.checkpoints.files import read_weights
from sonant.checkpoints.modules import build, load_strict
from sonant.engine.model import Prompt, Utterance
from sonant.errors import CheckpointError
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.config import (
    BUILT_IN_GENERATION,
    CODEC_FOLDER,
    read_codec_config,
    read_generation_defaults,
    read_model_config,
    sampling_fields,
)
from sonant.families.qwen3_tts.decoding import Barred, predictor_scores, talker_scores
from sonant.families.qwen3_tts.loading import load_folder
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.families.qwen3_tts.speaker import SpeakerEncoder, speaker_mel
from sonant.families.qwen3_tts.speech_tokenizer import reference_samples
from sonant.families.qwen3_tts.talker import Network
from sonant.families.qwen3_tts.weights import CODEC_IGNORED, MODEL_RULES, Codec, codec_rules
from sonant.parity.kit import KitReport
from sonant.parity.kits.driver import Kit, watched
from sonant.parity.kits.qwen3_tts.rows import Row, at_rate, read_rows
from sonant.request.audio import Audio
from sonant.request.speech import Sampling

STREAMED_FRAMES = 300
"""Recordings up to this length are also decoded frame by frame."""

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

    kit = Kit(folder, folder / "expected", report, "qwen3_tts")
    names = sorted(path.name for path in (folder / "checkpoints").glob("*/"))
    if not names:
        raise CheckpointError(
            f"{folder} has no checkpoints; expected a folder for each in {folder / 'checkpoints'}. "
            "The kit is incomplete: fetch it again."
        )
    with torch.inference_mode():
        parts: tuple[tuple[str, Callable[[Any], None]], ...] = (
            ("tensor_names", partial(_tensor_names, kit, names)),
            ("tokenizer", lambda record: _tokenizer(kit, model(names[0]), record)),
            ("icl_trim", partial(_trim, kit, names[0])),
            ("sampling/sampling", partial(_sampling, kit)),
            ("codec/decode", lambda record: _codec_decoder(kit, model(names[0]), record)),
            ("codec/encode", lambda record: _codec_encoder(kit, model(names[0]), record)),
        )
        for part, check in parts:
            if (record := kit.json(part)) is not None:
                with report.section(f"{part}.json"):
                    check(record)
        for name in names:
            if f"{name}/speaker_encoder" in kit.files:
                with report.section(f"{name}/speaker_encoder"):
                    _speaker_encoder(kit, name, model(name))
            for case in sorted((kit.files.folder / name).glob("*/case.json")):
                with report.section(f"{name}/{case.parent.name}"):
                    _case(kit, f"{name}/{case.parent.name}", model(name))
        kit.files.check_coverage(report)


# -- parts that need no case ----------------------------------------------------------------------


def _tensor_names(kit: Kit, names: Sequence[str], record: Any) -> None:
    for name, expected in record.items():
        is_codec = name == CODEC_FOLDER
        home = kit.folder / "checkpoints" / (names[0] if is_codec else name)
        weights = home / CODEC_FOLDER if is_codec else home
        case, tensors = f"tensor_names/{name}", read_weights(weights)
        # What training left in the file beside them is nobody's.
        found = {key: list(tensor.shape) for key, tensor in sorted(tensors.items()) if key in expected}
        kit.report.equal(case, "names and shapes", found, dict(sorted(expected.items())))
        empty = {key: torch.empty(shape, device="meta") for key, shape in expected.items()}
        if is_codec:
            codec = read_codec_config(weights)
            load_strict(build(partial(Codec, codec)), empty, rules=codec_rules(codec), ignored=CODEC_IGNORED)
        else:
            load_strict(build(partial(Network, read_model_config(weights))), empty, rules=MODEL_RULES)
        kit.report.check(case, "every tensor has its place in the network", True)


def _tokenizer(kit: Kit, model: Qwen3TTS, record: Any) -> None:
    report, tokenizer = kit.report, model.tokenizer
    for token, index in record["special_ids"].items():
        report.equal("tokenizer", token, tokenizer.id(token), index)
    for name, text in (("assistant", "assistant"), ("user", "user"), ("newline", "\n")):
        report.equal("tokenizer", name, tokenizer.encode(text), [record[name]])
    for number, row in enumerate(record["rows"]):
        wrapped = prompts.ROLE + row["text"] + prompts.AFTER_TEXT
        report.equal("tokenizer", f"row.{number}.wrapped", wrapped, row["wrapped"])
        ids = prompts.text_ids(tokenizer, row["text"], markers=True)
        report.equal("tokenizer", f"row.{number}.ids", ids, row["ids"])


def _trim(kit: Kit, name: str, record: Any) -> None:
    rate = read_codec_config(kit.folder / "checkpoints" / name / CODEC_FOLDER).decode_upsample_rate
    for reference, generated, cut in record["rows"]:
        total = reference + generated
        found = reference_samples(reference, total, total * rate)
        kit.report.equal("icl_trim", f"{reference} + {generated} frames", found, cut)


def _sampling(kit: Kit, record: Any) -> None:
    tensors = kit.files["sampling/sampling"]
    for settings in record["sets"]:
        name = settings["name"]
        logits, history = tensors[f"{name}.logits"], tensors[f"{name}.history"]
        values = {key: settings[key] for key in ("temperature", "top_k", "top_p")}
        if settings["talker"]:
            sampling = Sampling(repetition_penalty=settings["repetition_penalty"], **values)
            barred = Barred.of(logits.shape[-1], settings["eos"], logits.device)
            rows = zip(logits, history, strict=True)
            scores = torch.stack([talker_scores(row, past, sampling, barred) for row, past in rows])
        else:
            scores = predictor_scores(logits, Sampling(**{f"predictor_{k}": v for k, v in values.items()}))
        found = {"scores": scores, "probs": scores.softmax(-1)}
        kit.compare("sampling", "sampling", tensors, found, prefix=f"{name}.", title=f"{name}.{{}}")


# -- codec ----------------------------------------------------------------------------------------


def _codec_decoder(kit: Kit, model: Qwen3TTS, record: Any) -> None:
    for name, listed in (kit.json("codec/shapes") or {}).items():
        shapes = kit.files[f"codec/{name.removesuffix('.safetensors')}"].shapes()
        kit.report.equal("codec/shapes", name, shapes, {key: shape for key, (_, shape) in listed.items()})
    decoder = model.speech_tokenizer.codec.decoder
    for name in ("codec/decode_stages", "codec/decode_window"):
        expected = kit.files[name]
        tokens = expected["codes"].mT
        with watched() as seen:
            decoder(tokens)
        exact = partial(_in_float64, decoder, tokens)
        kit.compare("codec_decoder", name, expected, seen, exact=exact)
        streaming = model.speech_tokenizer.decoder()
        pieces = [streaming.push(frame[None]) for frame in tokens[0]]
        streamed = {"codec.wav": torch.cat([*pieces, streaming.finish()])}
        kit.compare("codec_decoder", name, {"wav": expected["wav"]}, streamed, title="{}, frame by frame")

    expected = kit.files["codec/decode_chunked"]
    sizes = {prefix: record[f"{prefix}chunk_size"] for prefix in ("", "default_")}
    context = {prefix: record[f"{prefix}left_context_size"] for prefix in sizes}
    short, long = (
        decoder.decode_in_chunks(expected[key][0].T, chunk=sizes[prefix], context=context[prefix])
        for prefix, key in (("", "codes"), ("default_", "default.codes"))
    )
    frame = decoder.config.samples_per_frame
    length = int(expected["default.wav.length"])
    kit.report.equal("codec/decode_chunked", "default.wav.length", len(long), length)
    found = {"wav_chunked": short}
    for crop, value in record["default_crops_in_frames"].items():
        if crop == "stride":
            found[f"default.wav.every_{value}"] = long[::value]
        else:
            found[f"default.wav.{crop}"] = long[value[0] * frame : value[1] * frame]
    kit.compare("codec_decoded", "codec/decode_chunked", expected, found)
    expected = kit.files["codec/decode_batch"]
    for row, frames in enumerate(record["batch_lengths"]):
        kit.report.equal("codec/decode_batch", f"frames.{row}", len(expected[f"codes.{row}"]), frames)
    found = {
        f"wav.{row}": decoder.decode_in_chunks(expected[f"codes.{row}"])
        for row in range(len(record["batch_lengths"]))
    }
    kit.compare("codec_decoded", "codec/decode_batch", expected, found)


def _codec_encoder(kit: Kit, model: Qwen3TTS, record: Any) -> None:
    codec, report = model.speech_tokenizer, kit.report
    rate = codec.config.input_sample_rate
    for name in (key for key in record if key != "batch"):
        case, listed = f"codec/encode_{name}", record[name]
        audio = Audio.read(kit.folder / listed["file"])
        resampled = at_rate(audio, rate)
        report.equal(case, "source rate", audio.sample_rate, listed["source_rate"])
        report.equal(case, "samples at 24 kHz", len(resampled), listed["samples_24k"])
        found: dict[str, Any] = {"wav_mono": torch.from_numpy(audio.samples), "wav_24k": resampled}
        with watched() as seen:
            tokens = codec.codec.encoder(resampled[None])[0]
        valid = codec.encode_audio(audio)
        found |= seen
        found |= {"codes.all_quantizers": tokens.T, "codes.valid": valid}
        exact = partial(_in_float64, codec.codec.encoder, resampled[None])
        kit.compare("codec_encoder", case, kit.files[case], found, exact=exact)
        report.equal(case, "frames", valid.shape[0], listed["frames"])
    if "batch" not in record:
        return
    batch, case = record["batch"], "codec/encode_batch"
    source = at_rate(Audio.read(kit.folder / batch["source"]), rate)
    rows = [source[:length] for length in batch["lengths"]]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    together = codec.codec.encoder(padded, codec.quantizers)
    for row, (clip, frames) in enumerate(zip(rows, batch["frames"], strict=True)):
        alone = codec.codec.encoder(clip[None], codec.quantizers)[0]
        found = {f"codes.{row}": together[row, :frames], f"codes_alone.{row}": alone}
        kit.compare("codec_batch", case, {key: kit.files[case][key] for key in found}, found)
        same = (alone == together[row, :frames]).all(dim=1).tolist()
        report.equal(case, f"frames_equal_to_single.{row}", same, batch["frames_equal_to_single"][row])


def _speaker_encoder(kit: Kit, name: str, model: Qwen3TTS) -> None:
    expected = kit.files[f"{name}/speaker_encoder"]
    encoder = model.network.speaker_encoder
    assert encoder is not None
    for clip in sorted(expected.groups()):
        audio = Audio.read(kit.folder / kit.json("codec/encode")[clip]["file"])
        resampled = at_rate(audio, encoder.config.sample_rate)[None]
        heard = partial(_speaker, encoder, resampled)
        seen = heard()
        kit.compare(
            "speaker_encoder",
            f"{name}/speaker_encoder",
            expected,
            seen,
            prefix=f"{clip}.",
            title=f"{clip}.{{}}",
            exact=partial(heard, is_exact=True),
        )


def _speaker(encoder: SpeakerEncoder, samples: Tensor, *, is_exact: bool = False) -> dict[str, Any]:
    """Stages of the speaker encoder for samples [1, S], the last block by a name of its own."""
    if is_exact:
        encoder, samples = copy.deepcopy(encoder).double(), samples.double()
    with watched() as seen:
        encoder(speaker_mel(samples, encoder.config))
    last = max(int(key.rsplit(".", 1)[1]) for key in seen if key.startswith("speaker.block."))
    return {**seen, "speaker.block.last": seen[f"speaker.block.{last}"]}


def _in_float64(network: torch.nn.Module, given: Tensor) -> dict[str, Any]:
    """Stages of a network in float64; whole numbers are given as they are."""
    with watched() as seen:
        copy.deepcopy(network).double()(given.double() if given.is_floating_point() else given)
    return dict(seen)


# -- cases ----------------------------------------------------------------------------------------


def _case(kit: Kit, place: str, model: Qwen3TTS) -> None:
    record = kit.json(f"{place}/case")
    inputs, summary = record["inputs"], record["summary"]
    expected = kit.files[f"{place}/tensors"]
    case, report = f"{record['variant']}/{record['case']}", kit.report
    if "tensors" in record:
        listed = {key: shape for key, (_, shape) in record["tensors"].items()}
        report.equal(case, "tensors listed", expected.shapes(), listed)

    generation = {**read_generation_defaults(kit.folder / record["checkpoint"]), **inputs["generate"]}
    sampling = Sampling(**sampling_fields(generation))
    frames = max(0, {**BUILT_IN_GENERATION, **generation}["max_new_tokens"] - 1)
    rows = read_rows(kit.folder, inputs, model, sampling, frames)
    lengths = [row.prompt.inputs.embeds.shape[0] for row in rows]
    longest = max(lengths)
    compared = kit.compare("prompt", case, expected, _prompts(rows, longest))

    def told(**found: Any) -> None:
        for name, value in found.items():
            report.equal(case, f"summary.{name}", value, summary[name])

    told(prompt_len=longest, batch=len(rows))
    steps, best = _forced(kit, case, rows, expected, model, compared)
    compared |= kit.compare("passes", case, expected, _tracks(steps, lengths, longest))

    # Drawn tokens depend on the original's random stream; that each survives the filters was checked
    # above, and the rest is checked on the recorded ones.
    is_greedy = bool(sampling.greedy) and bool(sampling.predictor_greedy)
    tokens, ended = _free(rows, model) if is_greedy else (_codes(expected, rows), summary["eos_seen"])
    end = model.config.talker.codec_eos_token_id
    for number, found in enumerate(tokens):
        compared |= {f"codes.{number}", "talker.tokens"}
        if is_greedy:
            report.equal(case, f"codes.{number}", found, expected[f"codes.{number}"])
        # Without an end the last token is chosen but becomes no frame; drawn, it can be any allowed one.
        unheard = best[number] if sampling.greedy else int(expected["talker.tokens"][number, len(found)])
        chain = [*found[:, 0].tolist(), end if ended[number] else unheard]
        report.equal(
            case, "talker.tokens", torch.tensor(chain), expected["talker.tokens"][number, : len(chain)]
        )
    told(frames=[len(found) for found in tokens], eos_seen=list(ended), sample_rate=model.spec.sample_rate)
    samples = []
    for number, (row, found) in enumerate(zip(rows, tokens, strict=True)):
        key = f"wav.{number}"
        if key not in expected:
            samples.append(_length(row, len(found), model))
            continue
        whole = _decoded(replace(row.prompt, inputs=replace(row.prompt.inputs, in_chunks=True)), found, model)
        samples.append(len(whole))
        recorded = {key: expected[key]}
        compared |= kit.compare("codec_decoded", case, recorded, {key: whole})
        total = len(found) + (0 if row.reference is None else len(row.reference.tokens))
        streamed = _decoded(row.prompt, found, model)
        if total <= STREAMED_FRAMES and len(streamed) == len(whole):
            kit.compare("codec_decoded", case, recorded, {key: streamed}, title="{}, frame by frame")
    told(samples=samples)
    report.equal(case, "tensors of the case not compared", sorted(set(expected) - compared), [])


def _prompts(rows: Sequence[Row], longest: int) -> dict[str, Tensor]:
    """The batch as the original pads it: prompts on the left with zeros, trailing text on the right."""
    asked = [row.instruction for row in rows if row.instruction is not None]
    told = [row.transcript for row in rows if row.transcript is not None]
    found = {
        f"ids.{kind}.{number}": torch.tensor(ids)
        for kind, ids_of_rows in (("text", [row.text for row in rows]), ("instruct", asked), ("ref", told))
        for number, ids in enumerate(ids_of_rows)
    }
    embeds, masks, trailing = [], [], []
    most = max(len(row.prompt.inputs.trailing) for row in rows)
    for number, row in enumerate(rows):
        if row.vector is not None:
            found[f"ref.xvector.{number}"] = row.vector
        if row.reference is not None:
            found[f"ref.codes.{number}"] = row.reference.tokens
        inputs: prompts.TalkerInputs = row.prompt.inputs
        pads = longest - len(inputs.embeds)
        embeds.append(torch.nn.functional.pad(inputs.embeds, (0, 0, pads, 0)))
        masks.append(torch.cat((torch.zeros(pads), torch.ones(longest - pads))).long())
        filler = inputs.filler.expand(most - len(inputs.trailing), -1)
        trailing.append(torch.cat((inputs.trailing, filler)))
    mask = torch.stack(masks)
    return found | {
        "prompt.embeds": torch.stack(embeds),
        "prompt.mask": mask,
        "prompt.position_ids": torch.where(mask == 1, mask.cumsum(1) - 1, 1),
        "prompt.trailing_text": torch.stack(trailing),
        "prompt.tts_pad": rows[0].prompt.inputs.filler,
    }


def _codes(expected: Tensors, rows: Sequence[Row]) -> list[Tensor]:
    return [expected[f"codes.{number}"] for number in range(len(rows))]


def _start(model: Qwen3TTS, rows: Sequence[Row]) -> list[Utterance]:
    model.allocate(len(rows), max(row.prompt.positions for row in rows) + 1)
    return [model.start(row.prompt, [slot]) for slot, row in enumerate(rows)]


def _forced(
    kit: Kit, case: str, rows: Sequence[Row], expected: Tensors, model: Qwen3TTS, compared: set[str]
) -> tuple[list[list[int]], list[int]]:
    """Run each row on the recorded tokens and compare; cache lengths after every pass, row by row, and the
    best token after the last one.

    A row is compared while it speaks: after its end the reference went on with tokens it never recorded.
    """
    lengths: list[list[int]] = []
    best: list[int] = []
    for number, (row, codes) in enumerate(zip(rows, _codes(expected, rows), strict=True)):
        sampling = row.prompt.sampling
        with watched() as seen:
            (utterance,) = _start(model, [row])
        layers = sum(key.endswith(".in") for key in seen if key.startswith("talker.layer."))
        seen[f"talker.layer.{layers}.in"] = seen["talker.norm"]  # so the original counts its hidden states
        compared |= kit.compare("prefill", case, expected, seen)
        assert model._cache is not None
        track, possible = [], True
        made: dict[str, list[Tensor]] = defaultdict(list)
        for step in range(len(codes) + 1):
            state, frame = utterance.state, codes[step] if step < len(codes) else None
            track.append(model._cache.lengths[0])
            made["talker.last_hidden"].append(state.hidden)
            made["talker.logits"].append(state.logits)
            scores = talker_scores(state.logits, state.history, sampling, state.barred)
            made["talker.scores"].append(scores)
            if frame is None:
                best.append(int(scores.argmax()))
                possible &= bool(scores[expected["talker.tokens"][number, step]].isfinite())
                break
            possible &= bool(scores[frame[0]].isfinite())

            def choose(group: int, _: Tensor, frame: Tensor = frame) -> Tensor:
                return frame[None, group]

            with watched() as seen:
                model.advance([utterance], [int(frame[0])], choose)
            made["predictor.inputs"].append(seen["predictor.inputs"][0][0])
            guess = torch.cat(seen["predictor.logits"])
            made["predictor.logits"].append(guess)
            made["predictor.scores"].append(predictor_scores(guess, sampling))
            possible &= bool(made["predictor.scores"][-1].gather(1, frame[1:, None]).isfinite().all())
        lengths.append(track)
        kit.report.check(case, f"codes.{number} survive the filters", possible)
        # The recording may end before or after what was made of a row.
        recorded = {key: expected[key][number, : len(made[key])] for key in made if key in expected}
        found = {key: torch.stack(made[key][: len(wanted)]) for key, wanted in recorded.items()}
        tag = "" if len(rows) == 1 else f"[{number}]"
        compared |= kit.compare("steps", case, recorded, found, title=f"{{}}{tag}")
    return lengths, best


def _tracks(steps: Sequence[Sequence[int]], lengths: Sequence[int], longest: int) -> dict[str, Tensor]:
    """Cache length after each pass, pads counted as the original does; last position of each pass [B, S].

    Rows that ended take part in the passes of the others, so their positions go on.
    """
    number = max(range(len(steps)), key=lambda row: len(steps[row]))
    cache = torch.tensor([length + longest - lengths[number] for length in steps[number]])
    whole = [[*track, *range(track[-1] + 1, track[-1] + 1 + len(cache) - len(track))] for track in steps]
    return {"talker.kv_len": cache, "talker.decode_positions": torch.tensor(whole) - 1}


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
