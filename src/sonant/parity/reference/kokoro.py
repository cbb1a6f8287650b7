"""Record a sentence with Kokoro's own graph and front end, under Sonant's stage names.

Runs in an environment with onnxruntime, and misaki unless the phonemes are given; needs `tracefile.py` beside
it and nothing of Sonant:

    python kokoro.py FOLDER --text "Hello." --voice af_heart -o a.safetensors

One sentence, in English, on the CPU. The graph is the original itself, so what is compared are the phonemes,
their ids, the choice of the style vector and how the graph is fed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tracefile import TraceWriter, hash_files, versions


def main() -> None:
    """Parse, find the phonemes, run the graph, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="the layout of the ONNX export")
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice", default="af_heart")
    parser.add_argument("--phonemes", help="instead of misaki's")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--graph", default="model_quantized")
    parser.add_argument("--stages", default="*")
    parser.add_argument("--max-elements", type=int)
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()

    folder = Path(arguments.folder)
    phonemes = arguments.phonemes
    if phonemes is None:
        from misaki import en

        phonemes, _ = en.G2P(trf=False, british=arguments.voice.startswith("b"), fallback=None)(
            arguments.text
        )
    table = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    ids = [table[letter] for letter in phonemes if table.get(letter)]
    styles = np.fromfile(folder / "voices" / f"{arguments.voice}.bin", dtype=np.float32).reshape(-1, 256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(folder / "onnx" / f"{arguments.graph}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    feeds = {
        session.get_inputs()[0].name: np.array([[0, *ids, 0]], dtype=np.int64),
        "style": styles[len(phonemes) - 1][None],
        "speed": np.array([arguments.speed], dtype=np.float32),
    }
    waveform = torch.from_numpy(np.asarray(session.run(None, feeds)[0]).reshape(-1))
    writer = TraceWriter(stages=arguments.stages, max_elements=arguments.max_elements)
    writer.add("voice.styles", torch.from_numpy(styles))
    writer.add("text.ids", torch.tensor(ids))
    writer.add("waveform", waveform)
    writer.add("output.samples", waveform)
    writer.save(
        arguments.output,
        {
            "made_by": "Kokoro-82M ONNX",
            "family": "kokoro",
            "model": os.path.basename(os.path.abspath(folder)),
            "files": hash_files(folder),
            "dtype": "float32",
            "versions": versions("onnxruntime", "misaki", "numpy"),
            "threads": torch.get_num_threads(),
            "seed": 0,
            "request": {
                "text": arguments.text,
                "voice": arguments.voice,
                "speed": arguments.speed,
                "sampling": {},
                "style": {},
                "seed": 0,
                "rates": {},
            },
        },
    )


if __name__ == "__main__":
    main()
