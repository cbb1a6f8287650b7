"""Checks of the CosyVoice3 kit before the networks: weights, text, audio features, noise, sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sonant.audio.fbank import fbank
from sonant.audio.mel import WHISPER_128, log_mel
from sonant.checkpoints.files import read_pickle, read_tensors
from sonant.families.cosyvoice3.config import MAX_SILENT_RUN, QWEN_FOLDER, SILENT_TOKENS
from sonant.families.cosyvoice3.encoders import ENCODER_RATE, PROMPT_MEL, at_rate
from sonant.families.cosyvoice3.noise import ReferenceNoise
from sonant.families.cosyvoice3.prompt import trimmed
from sonant.families.cosyvoice3.sampler import (
    Pick,
    SilenceFilter,
    mask_before_minimum,
    nucleus,
    race,
    repetition_aware,
)
from sonant.families.cosyvoice3.text import (
    END_OF_PROMPT,
    Normalizer,
    TextRules,
    remove_blanks,
    special_tokens,
)
from sonant.parity.kit import KitReport
from sonant.parity.kits.cosyvoice3.folder import CosyKit
from sonant.request.audio import Audio

RENAMED = (
    ("llm.model.model.embed_tokens.", "text_embedding."),
    ("llm_decoder.", "head."),
    ("llm.model.model.", "decoder."),
)
CLIPS = {"mono24k": "prompt_24k", "stereo44k": "prompt_44k_stereo", "mono16k": "source_16k"}


def _most_tensors(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The table with the most tensors in what was saved, the first of those; found without the loader that
    is judged."""
    tables = [saved]
    for table in tables:
        tables += [value for value in table.values() if isinstance(value, Mapping)]
    found = [{str(k): v for k, v in table.items() if isinstance(v, Tensor)} for table in tables]
    return {key.removeprefix("module."): tensor for key, tensor in max(found, key=len).items()}


def weights(kit: CosyKit) -> None:
    """`llm.pt` wins over the decoy values in the Qwen2 folder; sizes are as the manifest says."""
    report, model = kit.report, kit.model
    official = _most_tensors(read_pickle(kit.folder / "model" / "llm.pt"))
    decoy = read_tensors(kit.folder / "model" / QWEN_FOLDER / "model.safetensors")
    loaded, has_compared = model.language.state_dict(), False
    for key in sorted(official):
        name = key
        for old, new in RENAMED:
            name = name.replace(old, new)
        if name in loaded:
            report.equal("weights", key, loaded[name], official[key])
            has_compared = True
    if not has_compared:
        report.check("weights", "llm.pt", False, "none of its names is the network's")
    for key, tensor in decoy.items():
        name = f"llm.model.{key}"
        if name in official and tensor.shape == official[name].shape and tensor.float().std() > 0:
            is_other = not torch.equal(tensor.float(), official[name])
            report.check("weights", f"decoy differs: {key}", is_other)
    config = model.config.language
    stops = [config.start, model.language.speech_embedding.num_embeddings - 1]
    special: dict[str, Any] = {"sos": config.start, "eos": config.end, "task_id": config.task}
    special |= {"fill": config.fill, "stop_ids": stops}
    for name, found in special.items():
        report.equal("weights", f"special id {name}", found, kit.manifest["special_speech_ids"][name])
    sizes = {"speech_token_size": config.speech_tokens, "endofprompt_id": model.tokenizer.id(END_OF_PROMPT)}
    for name, found in sizes.items():
        report.equal("weights", name, found, kit.manifest[name])


def text(kit: CosyKit) -> None:
    """Normalisation, splitting and token ids."""
    data, report, tokenizer = kit.json("frontend"), kit.report, kit.model.tokenizer
    rules = TextRules(lambda text: len(tokenizer.encode(text)), as_original=True)
    modes: tuple[Normalizer, ...] = ("off", "none", "wetext")
    for row in data["normalisation"]:
        for mode in modes:
            _normalised(report, rules, row, mode)
    for given, expected in data["spell_out_number"]:
        report.equal("text", f"numbers {given[:30]!r}", rules.spell_numbers(given), expected)
    for given, expected in data["replace_blank"]:
        report.equal("text", f"blanks {given[:30]!r}", remove_blanks(given), expected)
    for row in data["token_ids"]:
        report.equal("text", f"ids {row['text'][:30]!r}", tokenizer.encode(row["text"]), row["ids"])
    for token, expected in data["special_token_ids"].items():
        report.equal("text", f"id of {token}", tokenizer.id(token), expected)
    report.equal("text", "len_tokenizer", len(tokenizer), data["len_tokenizer"])
    markers = {tokenizer.id(token) for token in special_tokens()}
    for row in data["decode"]:
        plain = [token for token in row["ids"] if token not in markers]
        report.equal("text", f"decode {row['text'][:30]!r}", tokenizer.decode(plain), row["text"])


def _normalised(report: KitReport, rules: TextRules, row: Any, mode: Normalizer) -> None:
    title = f"{mode} {row['text'][:24]!r}"
    for key, run in (("split", rules.segments), ("whole", rules.whole)):
        expected = row[f"{mode}.{key}"]
        found: Any = run(row["text"], normalizer=mode)
        if isinstance(expected, dict):
            # The original crashes here; having an answer is all that can be asked.
            report.check("text", f"{title} {key}", found is not None, "answers where the original raises")
        else:
            report.equal("text", f"{title} {key}", found, expected)


def features(kit: CosyKit) -> None:
    """Resampling, the three features, the two encoders and the trim, for each clip."""
    recorded, encoders = kit.files["frontend"], kit.model.encoders
    for clip in recorded.groups():
        audio = Audio.read(kit.folder / "audio" / f"{CLIPS.get(clip, clip)}.wav")
        waveform = at_rate(audio, ENCODER_RATE)
        raw = fbank(waveform)
        tokens, mel = encoders.speech_tokens(audio), encoders.mel(audio)
        prompt, prompt_mel = trimmed(tokens, mel, kit.model.config.flow.frames_per_token)
        found = {
            "speech_16k": waveform,
            "speech_24k": at_rate(audio, PROMPT_MEL.sample_rate),
            "whisper_logmel": log_mel(waveform, WHISPER_128),
            "fbank_raw": raw,
            "fbank": raw - raw.mean(dim=0, keepdim=True),
            "embedding": encoders.speaker(audio),
            "speech_token_untrimmed": tokens,
            "mel24_untrimmed": mel,
            "prompt_speech_token": prompt,
        }
        kit.compare("clip", clip, recorded, found, prefix=f"{clip}.")
        length = int(recorded[f"{clip}.prompt_speech_feat_len"])
        kit.report.equal(clip, "prompt_speech_feat_len", prompt_mel.shape[0], length)


def noise(kit: CosyKit) -> None:
    """The constructor noise, bit for bit: the stored beginnings and the hashes of the whole buffers."""
    recorded, config, report = kit.files["noise"], kit.model.config, kit.report
    made, rounded = ReferenceNoise(config), kit.limits["rounded_draw"]
    frames = recorded["flow.rand_noise"].shape[-1]
    found = made.flow(frames)[None]
    # Normal draws come from uniform ones by logarithm and cosine, which other instructions round otherwise;
    # then they are compared by value, and what is said of their bits cannot be.
    has_other_bits = not torch.equal(found, recorded["flow.rand_noise"])
    if has_other_bits:
        report.close("noise", "flow.rand_noise", found, recorded["flow.rand_noise"], rounded)
    else:
        report.equal("noise", "flow.rand_noise", found, recorded["flow.rand_noise"])
    report.equal("noise", "hift.rand_ini", made.start_phases[None], recorded["hift.rand_ini"])
    stored = recorded["hift.sine_noise"][0]
    whole = stored.shape[0] // config.vocoder.samples
    source = torch.cat([made.source(at, min(at + 30, whole)) for at in range(0, whole, 30)])
    report.equal("noise", "hift.sine_noise", source, stored[: len(source)])
    for title, digest in _digests(ReferenceNoise(config), config.vocoder.harmonics):
        expected = [value for key, value in kit.manifest["noise_sha256"].items() if key.startswith(title)]
        if title == "flow.rand_noise" and has_other_bits:
            near = float((found - recorded["flow.rand_noise"]).abs().max()) <= rounded
            detail = "this processor rounds normal draws otherwise: compared by value"
            report.check("noise", f"{title}, SHA-256 of the whole", near, detail)
            continue
        report.equal("noise", f"{title}, SHA-256 of the whole", [digest], expected)


def _digests(made: ReferenceNoise, harmonics: int) -> Iterator[tuple[str, str]]:
    yield "flow.rand_noise", hashlib.sha256(_bytes(made.flow(15_000))).hexdigest()
    yield "hift.rand_ini", hashlib.sha256(_bytes(made.start_phases)).hexdigest()
    rng, block, count = made.generator, 240_000, 30  # 7 200 000 samples: 300 s
    for title, width in (("hift.sine_noise", harmonics), ("hift.uv_noise", 1)):
        state = hashlib.sha256()
        for _ in range(count):
            state.update(_bytes(torch.rand(block, width, generator=rng)))
        yield title, state.hexdigest()
        for size in (harmonics, 1):  # the source's linear layer is made between the two buffers
            torch.empty(size).uniform_(generator=rng)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def inverse_cdf(uniforms: Iterator[float]) -> Pick:
    """The kit's contract of a draw: the first entry whose cumulative probability exceeds the uniform."""

    def pick(probabilities: Tensor) -> int:
        sums = probabilities.double().cumsum(dim=0)
        above = sums / sums[-1] > next(uniforms)
        return int(above.int().argmax()) if bool(above.any()) else len(sums) - 1

    return pick


def sampling(kit: CosyKit) -> None:
    """Repetition-aware sampling with given uniforms and with torch's own draws; masks; silences."""
    data, recorded, report = kit.json("sampling"), kit.files["sampling"], kit.report
    params = data["params"]
    sampler = kit.model.config.language.sampler
    for name, value in params.items():
        report.equal("sampling", f"config {name}", getattr(sampler, name), value)
    names = {"top_p": "top_p", "top_k": "top_k", "win_size": "window", "tau_r": "share"}
    settings = {name: params[key] for key, name in names.items()}
    for index, case in enumerate(data["cases"]):
        scores, title = recorded["log_probs"][index], f"case {index}"
        _, ids = nucleus(scores.softmax(dim=0), params["top_p"], params["top_k"])
        report.equal("sampling", f"{title} nucleus_ids", ids.tolist(), case["nucleus_ids"])
        report.equal("sampling", f"{title} nucleus_size", len(ids), case["nucleus_size"])
        draws: list[Tensor] = []
        pick = inverse_cdf(iter(case["uniforms"]))
        chosen = repetition_aware(scores, case["history"], _counted(pick, draws), **settings)
        report.equal("sampling", f"{title} chosen", chosen, case["chosen"])
        report.equal("sampling", f"{title} draws", len(draws), case["draws"])
        rng = torch.Generator().manual_seed(case["torch_seed"])
        seeded = repetition_aware(scores, case["history"], race(rng), **settings)
        report.equal("sampling", f"{title} torch seeded", seeded, case["chosen_torch_seeded"])
    masked = mask_before_minimum(recorded["ignore_eos.in"], kit.model.config.language.speech_tokens)
    masked = masked.clamp(min=-1e30)  # the kit's word for minus infinity
    report.equal("sampling", "ignore_eos", masked, recorded["ignore_eos.out"])
    for index, row in enumerate(data["silent_filter"]):
        silence = SilenceFilter()
        kept = [token for token in row["in"] if silence.keeps(token)]
        report.equal("sampling", f"silent_filter {index}", kept, row["out"])
    report.equal("sampling", "silent ids", sorted(SILENT_TOKENS), sorted(data["silent_token_ids"]))
    report.equal("sampling", "longest silence", MAX_SILENT_RUN, data["max_consecutive_silent"])


def _counted(pick: Pick, draws: list[Tensor]) -> Pick:
    def counting(probabilities: Tensor) -> int:
        draws.append(probabilities)
        return pick(probabilities)

    return counting


CHECKS: tuple[Callable[[CosyKit], None], ...] = (weights, text, features, noise, sampling)
