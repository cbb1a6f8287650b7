"""Compile the English and the Chinese grammar of WeTextProcessing into src/sonant/assets/wetextprocessing.

    python -m venv grammars && grammars/bin/pip install WeTextProcessing==1.2.0
    grammars/bin/python -m recipes.grammars

The package needs pynini to compile its rules, 700 MB once installed and without a build for Windows, so it is
no dependency of Sonant. The compiled grammars are plain OpenFst files, which kaldifst runs. The options are
those IndexTTS2's original gives: interjections and the suffix 儿 stay.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "src" / "sonant" / "assets" / "wetextprocessing"


def main() -> None:
    try:
        from tn.chinese.normalizer import Normalizer as Chinese
        from tn.english.normalizer import Normalizer as English
    except ImportError as error:
        sys.exit(f"{error}. Run this in an environment with WeTextProcessing==1.2.0.")
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        English(cache_dir=folder, overwrite_cache=True)
        Chinese(cache_dir=folder, overwrite_cache=True, remove_interjections=False, remove_erhua=False)
        for compiled in sorted(Path(folder).glob("*.fst")):
            name = f"{compiled.name.replace('_tn_', '_')}.xz"  # en_tagger.fst.xz
            packed = lzma.compress(compiled.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            (ASSETS / name).write_bytes(packed)
            print(f"{name}: {len(packed) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
