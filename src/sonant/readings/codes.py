"""Speech tokens in a file: what `sonant codec` writes and reads, one safetensors file with its origin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.errors import RequestError, UnsupportedError
from sonant.files import write_atomically
from sonant.request.audio import Audio

if TYPE_CHECKING:
    from torch import Tensor

    from sonant.engine.model import SpeechModel

FORMAT = "sonant-codes-1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """Tokens [T, K] of a clip, and the codec they belong to."""

    tokens: Tensor
    family: str
    fingerprint: str
    sample_rate: int
    frame_rate: float

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        from safetensors.torch import save

        record = {
            "family": self.family,
            "fingerprint": self.fingerprint,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
        }
        metadata = {"format": FORMAT, "codes": json.dumps(record)}
        write_atomically(
            path, save({"tokens": self.tokens.cpu().contiguous()}, metadata=metadata), is_private=False
        )

    @staticmethod
    def load(path: Path) -> Codes:
        """Read one. Raises RequestError when it is missing, damaged or no such file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
                record = json.loads(metadata["codes"])
                tokens = file.get_tensor("tokens")
            if tokens.ndim != 2 or tokens.is_floating_point():
                raise ValueError(f"its tokens are {tokens.dtype} of shape {tuple(tokens.shape)}")
            return Codes(
                tokens=tokens,
                family=str(record["family"]),
                fingerprint=str(record["fingerprint"]),
                sample_rate=int(record["sample_rate"]),
                frame_rate=float(record["frame_rate"]),
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RequestError(
                f"cannot read {path} as speech tokens ({error}); expected a file that sonant codec encode "
                "wrote. Check the path."
            ) from error


def encode(model: SpeechModel, audio: Audio) -> Codes:
    """Tokens of a clip. Raises UnsupportedError for a model whose codec does not encode."""
    import torch

    method = _method(model, "encode_audio", "turns audio into tokens")
    with torch.inference_mode():
        tokens: Tensor = method(audio)
    spec = model.spec
    return Codes(
        tokens=tokens,
        family=spec.family,
        fingerprint=spec.fingerprint,
        sample_rate=spec.sample_rate,
        frame_rate=spec.frame_rate,
    )


def decode(model: SpeechModel, codes: Codes) -> Audio:
    """The sound of tokens. Raises UnsupportedError, and RequestError for tokens of another family."""
    import torch

    method = _method(model, "decode_tokens", "turns tokens into audio")
    if codes.family != model.spec.family:
        raise RequestError(
            f"the tokens are of {codes.family}; {model.spec.name} is {model.spec.family} and would make "
            "noise of them. Decode them with a model of their own family."
        )
    with torch.inference_mode():
        samples: Tensor = method(codes.tokens)
    return Audio(samples.float().cpu().numpy(), model.spec.sample_rate)


def _method(model: SpeechModel, name: str, what: str) -> Any:
    method = getattr(model, name, None)
    if method is None:
        raise UnsupportedError(
            f"{model.spec.name} ({model.spec.family}) has no codec that {what}; expected a model "
            "whose tokens are a codec's, or a speech tokenizer. Choose another --model."
        )
    return method
