"""Faults of Qwen3-TTS ports, from the pitfalls of the original."""

import sonant.nn.transformer as transformer
from sonant.audio import mel
from sonant.families.qwen3_tts import (
    codec,
    codec_encoder,
    decoding,
    model,
    prompt,
    speaker,
    speech_tokenizer,
    talker,
)
from sonant.nn import cache, channel_last, norm, quantize, sampling, snake
from sonant.nn.rope import rope_table, rotate_half_split, rotate_interleaved
from tests.parity.faults import Fault, change, loaded, replace

STACKS = ("talker", "predictor", "codec.pre_transformer")
LEAVES = ("query", "key", "attention", "mlp")
NARROW = "return self.weight * wide.to(torch.bfloat16).to(x.dtype)"


def stacks(*leaves):
    """A stage of all three decoder stacks, in the order of computation."""
    return tuple(f"{name}.layer.{{layer}}.{leaf}" for name in STACKS for leaf in leaves)


def normed_stacks(*leaves):
    """A stage of the two stacks with query and key norms."""
    return tuple(f"{name}.layer.{{layer}}.{leaf}" for name in ("talker", "predictor") for leaf in leaves)


def _roll_rows(linear, rows):
    linear.weight.data.copy_(linear.weight.data.roll(rows, 0))


def coarse_table(positions, dim, theta):
    """The tables of the rotary embedding, rounded."""
    return tuple(table.bfloat16().float() for table in rope_table(positions, dim, theta))


FAULTS = (
    Fault(
        "transposed conv trimmed on both sides",
        change(
            channel_last.TimeConvTranspose,
            "forward",
            "return y.view(batch, length * self.stride, outer), past",
            "y = y.view(batch, length * self.stride, outer)\n    half = self.stride // 2 * self.overlaps\n"
            "    return torch.cat((y[:, half:], y[:, :half] * 0), dim=1), past",
        ),
        ("codec.decoder.{block}.up",),
    ),
    Fault(
        "RoPE on adjacent pairs instead of halves",
        replace(transformer, "rotate_half_split", rotate_interleaved),
        stacks("query", "key"),
    ),
    Fault(
        "RoPE with the halves' signs swapped",
        replace(transformer, "rotate_half_split", lambda x, cos, sin: rotate_half_split(x, cos, -sin)),
        stacks("query", "key"),
    ),
    Fault(
        "query and key norm after RoPE",
        change(
            transformer.Attention,
            "forward",
            "query, key = self.q_norm(query), self.k_norm(key)\n    query = tap(self._query_tap, "
            "rotate_half_split(query.transpose(1, 2), cos, sin))",
            "key = self.k_norm(key)\n    query = tap(self._query_tap, (self.q_norm if c.qk_norm else "
            "nn.Identity())(rotate_half_split(query.transpose(1, 2), cos, sin)))",
        ),
        normed_stacks("query"),
    ),
    Fault(
        "no final norm in the decoder stacks",
        change(transformer.Decoder, "forward", "tap(self._norm_tap, self.norm(x))", "tap(self._norm_tap, x)"),
        ("talker.norm", "predictor.norm", "codec.pre_transformer.norm"),
    ),
    Fault(
        "GELU for SiLU in the gated MLP",
        change(transformer.SwiGLU, "forward", "F.silu(", "F.gelu("),
        stacks("mlp"),
    ),
    Fault(
        "layer scale left out in the codec",
        replace(transformer.LayerScale, "forward", lambda self, x: x),
        (
            "codec_encoder.layer.{layer}.out",
            "codec.pre_transformer.layer.{layer}.mlp",
            "codec.pre_transformer.layer.{layer}.out",
        ),
    ),
    Fault(
        "tanh GELU for the exact one in the ConvNeXt block",
        change(channel_last.ConvNeXt, "forward", "F.gelu(self", "F.gelu(approximate='tanh', input=self"),
        ("codec.upsample.{stage}.out",),
    ),
    Fault(
        "cache positions off by one after the prefill",
        change(
            cache.CacheRows,
            "positions",
            "torch.tensor(self.starts, device=device)",
            "torch.tensor([s + (s > 0) for s in self.starts], device=device)",
        ),
        (*normed_stacks("query", "key")[2:], *normed_stacks("query", "key")[:2]),
    ),
    Fault(
        "predictor embeds a token with the next group's table",
        change(
            talker.CodePredictor,
            "forward",
            "embedded = table(token)",
            "embedded = self.codec_embedding[group % len(self.codec_embedding)](token)",
        ),
        ("predictor.layer.{layer}.in", "talker.frame"),
    ),
    Fault(
        "trailing text one position late",
        change(model.Qwen3TTS, "advance", "spoken = len(state.history)", "spoken = len(state.history) + 1"),
        ("talker.frame",),
    ),
    Fault(
        "Snake parameters taken as they are, not as logarithms",
        change(
            snake.SnakeBeta,
            "terms",
            "self.alpha.exp(), 1.0 / (self.beta.exp() + 1e-9)",
            "self.alpha, 1.0 / (self.beta + 1e-9)",
        ),
        ("codec.decoder.{block}.up", "codec.decoder.{block}.unit.{unit}", "codec.decoder.{block}.out"),
    ),
    Fault(
        "no SiLU in the text projection",
        change(talker.TextProjection, "forward", "F.silu(self.linear_fc1(x))", "self.linear_fc1(x)"),
        ("prompt.part.text", "prompt.trailing", "prompt.filler"),
    ),
    Fault(
        "mel filters not normalised by their width",
        change(mel, "mel_filters", "triangles * area[:, None]", "triangles"),
        ("speaker.mel",),
    ),
    Fault(
        "repetition penalty divides negative logits too",
        change(sampling, "_penalised", "scores * penalty", "scores / penalty"),
        ("talker.scores",),
    ),
    Fault(
        "end token allowed from the start",
        change(decoding, "talker_scores", "len(past) < MIN_TOKENS", "False"),
        ("talker.scores",),
    ),
    Fault(
        "codebook usage not held to its floor",
        replace(quantize, "USAGE_FLOOR", 1e-9),
        ("codec_encoder.tokens", "codec.quantizer.acoustic"),
    ),
    Fault(
        "unbiased deviation in the speaker's statistics",
        change(
            speaker,
            "_statistics",
            ".sum(dim=2, keepdim=True)\n    return",
            ".sum(dim=2, keepdim=True) * (x.shape[2] / (x.shape[2] - 1))\n    return",
        ),
        ("speaker.statistics",),
    ),
    Fault(
        "zero padding before the encoder's downsampling",
        change(codec_encoder.CodecEncoder, "embed", 'mode="replicate"', 'mode="constant"'),
        ("codec_encoder.downsample.out",),
    ),
    Fault(
        "attention scores not divided by the root of the head's width",
        change(transformer.Attention, "forward", "attn_mask=mask,", "attn_mask=mask, scale=1.0,"),
        stacks("attention"),
    ),
    Fault(
        "top-k one too few",
        change(decoding, "_choice", "top_k or 0", "(top_k or 1) - 1"),
        ("talker.scores", "predictor.scores"),
    ),
    Fault(
        "temperature of the predictor ignored",
        change(model, "predictor_choice", "sampling.predictor_temperature", "1.0"),
        ("predictor.scores",),
    ),
    Fault(
        "a nucleus cut in the predictor that was not asked for",
        change(model, "predictor_choice", "sampling.predictor_top_p", "0.8"),
        ("predictor.scores",),
    ),
    Fault("one id too few suppressed", replace(decoding, "SUPPRESSED_TAIL", 1023), ("talker.scores",)),
    Fault(
        "codec tags without the text pad",
        change(
            prompt,
            "build_inputs",
            "filler.expand(sum(map(len, heard)), -1)",
            "torch.cat((filler.expand(len(heard[0]), -1) * 0, filler))",
        ),
        ("prompt.part.text",),
        words="codec tag",
    ),
    Fault(
        "speaker vector without the text pad",
        change(
            prompt,
            "build_inputs",
            "filler.expand(sum(map(len, heard)), -1)",
            "torch.cat((filler.expand(len(heard[0]), -1), filler * 0))",
        ),
        ("prompt.part.text",),
        words="speaker vector plus text pad",
    ),
    Fault(
        "speaker vector twice as strong",
        change(prompt, "build_inputs", "speaker.to(filler)[None]", "2 * speaker.to(filler)[None]"),
        ("prompt.part.speaker",),
        words="constant factor of 2",
    ),
    Fault(
        "tags of a named language where none was named",
        change(
            prompt,
            "build_inputs",
            "(ids.codec_nothink_id, ids.codec_think_bos_id,",
            "(ids.codec_think_id, ids.codec_think_bos_id,",
        ),
        ("prompt.part.language",),
        words="only position 0",
    ),
    Fault(
        "text begin without the codec pad",
        change(prompt, "build_inputs", "[*heard, codec_pad]", "[*heard, codec_pad * 0]"),
        ("prompt.part.codec",),
        words="text begin plus codec pad",
    ),
    Fault(
        "text before the clip's transcript",
        change(prompt, "build_inputs", "[*transcript, *words]", "[*words, *transcript]"),
        ("prompt.part.text",),
        words="text plus frame of the clip",
    ),
    Fault(
        "frames of the clip without their first codebook",
        change(
            prompt,
            "build_inputs",
            "network.embed_frames(reference.tokens.to(device))",
            "network.embed_frames(reference.tokens.to(device)) - codec(*reference.tokens[:, 0].tolist())",
        ),
        ("prompt.part.codec",),
        words="text plus frame of the clip",
    ),
    Fault(
        "both sides of the prompt added one position apart",
        change(
            prompt,
            "build_inputs",
            'tap("prompt.part.codec", torch.cat(codec_side))',
            'tap("prompt.part.codec", torch.cat(codec_side)).roll(1, 0)',
        ),
        ("prompt.embeds",),
    ),
    Fault(
        "no text added to the frames",
        change(model.Qwen3TTS, "advance", "embedded + total + torch.stack(words)", "embedded + total"),
        ("talker.frame",),
    ),
    Fault(
        "predictor begins with the token, not with the state",
        change(
            talker.CodePredictor,
            "forward",
            "torch.stack((hidden, first), dim=1)",
            "torch.stack((first, hidden), dim=1)",
        ),
        ("predictor.inputs",),
    ),
    Fault(
        "epsilon of one norm",
        loaded(lambda m: setattr(m.network.talker.decoder.layers[1].input_layernorm, "eps", 1.2e-6)),
        ("talker.layer.{layer}.query", "talker.layer.{layer}.key", "talker.layer.{layer}.attention"),
        is_suspicious=True,
    ),
    Fault(
        "key heads of one layer in another order",
        loaded(lambda m: _roll_rows(m.network.talker.decoder.layers[1].self_attn.k_proj, 16)),
        ("talker.layer.{layer}.key",),
    ),
    Fault(
        "ceiling one frame short",
        replace(model, "_ceiling", lambda utterance: utterance.prompt.ceiling - 1),
        ("talker.token",),
        ends=True,
    ),
    Fault(
        "speaker before the language's tags",
        change(prompt, "build_inputs", "[*heard, codec_pad]", "[*heard[::-1], codec_pad]"),
        ("prompt.part.codec",),
        words="speaker vector",
    ),
    Fault(
        "the language's tags from their end",
        change(prompt, "build_inputs", "codec(*tag)", "codec(*tag[:1], *tag[:0:-1])"),
        ("prompt.part.language",),
        words="permuted",
    ),
    Fault(
        "head of the codec tied to its embedding",
        change(talker.Talker, "logits", "self.codec_head(hidden)", "hidden @ self.codec_embedding.weight.T"),
        ("talker.logits",),
    ),
    Fault(
        "every group with the first one's head",
        change(talker.CodePredictor, "forward", "logits = head(last)", "logits = self.lm_head[0](last)"),
        ("predictor.logits",),
    ),
    Fault(
        "the prefill looks one position ahead",
        change(cache.CacheRows, "mask", "<= self.positions", "<= 1 + self.positions"),
        normed_stacks("attention"),
    ),
    Fault(
        "window of the codec one frame too wide",
        change(cache.WindowRows, "__init__", "distance < window)", "distance <= window)"),
        ("codec.pre_transformer.layer.{layer}.attention",),
    ),
    Fault(
        "first position of the cache forgotten",
        change(
            cache.CacheRows,
            "_write",
            "return view[:, :, : self.total]",
            "view = view[:, :, : self.total].clone()\n"
            "        view[:, :, 0] *= 0 if self.total > self.new else 1\n        return view",
        ),
        normed_stacks("attention")[::-1],
    ),
    Fault(
        "repetition penalty of the last token only",
        change(decoding, "talker_scores", "(logits, past, ", "(logits, past[-1:], "),
        ("talker.scores",),
    ),
    Fault(
        "rotary tables in bfloat16",
        replace(transformer, "rope_table", coarse_table),
        stacks("query", "key"),
    ),
    Fault(
        "norms in bfloat16",
        change(norm.RMSNorm, "forward", "return self.weight * wide.to(x.dtype)", NARROW),
        (
            *(f"{name}.layer.{{layer}}.{leaf}" for name in STACKS for leaf in LEAVES),
            *(f"{name}.norm" for name in STACKS),
        ),
    ),
    Fault(
        "keys and values kept in half precision",
        change(
            cache.CacheRows,
            "append",
            "self._write(self.cache.values[layer], values)",
            "self._write(self.cache.values[layer], values.half().float())",
        ),
        normed_stacks("attention"),
    ),
    Fault(
        "last frame not decoded",
        change(codec.CodecDecoder, "decode_in_chunks", "+ chunk])", "+ chunk][:, :-1])"),
        ("codec.tokens",),
    ),
    Fault(
        "the clip's frames left in what is heard",
        replace(speech_tokenizer, "reference_samples", lambda reference, total, samples: 0),
        ("output.samples",),
    ),
    Fault(
        "last codebook left out",
        change(
            codec.SplitQuantizer,
            "forward",
            "self.acoustic.decode(tokens[..., self.split :])",
            "self.acoustic.decode(tokens[..., self.split :]) - "
            "self.acoustic.layers[-1].vectors()[tokens[..., -1]]",
        ),
        ("codec.quantizer.acoustic",),
    ),
    Fault(
        "clip padded with zeros, not reflected",
        change(speaker, "log_mel", 'mode="reflect"', 'mode="constant"'),
        ("speaker.mel",),
    ),
    Fault(
        "energies for magnitudes in the mel",
        change(speaker, "log_mel", "if config.power == 2:", "if True:"),
        ("speaker.mel",),
    ),
    Fault(
        "text projected without its bias",
        loaded(lambda m: m.network.talker.text_projection.linear_fc2.bias.data.zero_()),
        ("prompt.part.text", "prompt.trailing", "prompt.filler"),
    ),
    Fault(
        "one row of the last codebook's table wrong",
        change(
            talker.CodePredictor,
            "forward",
            "embedded = table(token)",
            "embedded = table((token + (group == 15)) % table.num_embeddings)",
        ),
        ("talker.frame",),
    ),
)
