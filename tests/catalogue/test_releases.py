"""Every released repository as it really is: sizes explained, files chosen, found, planned and loaded."""

import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch

from sonant.catalogue import registry
from sonant.catalogue.hub import KNOWN, choose_files, known
from sonant.catalogue.inspection import inspect_folder
from sonant.errors import RequestError
from tests.parity import cases
from tests.releases import SENTENCE, catalogue, lay_out, make_speakable, sources, tensor_bytes, tensors_of

NAMES = [model.name for model in KNOWN if model.repository in catalogue()]
SIZED = [name for name in NAMES if name != "indextts2.5"]
"""Of IndexTTS-2.5 the sizes of the large files are not known."""
QUICK = ("qwen3-tts-0.6b-customvoice", "qwen3-tts-tokenizer-12hz")
MARKED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
WEIGHTS = [(repository, path) for repository, release in catalogue().items() for path in release["weights"]]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """Name -> the sparse folder of that release, made once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = lay_out(name, tmp_path_factory.mktemp("release") / name)
        return made[name]

    return folder


def test_every_known_model_is_in_the_catalogue():
    needed = {model.repository for model in KNOWN if model.family != "kokoro"}
    needed |= {companion.repository for model in KNOWN for companion in model.companions}
    assert needed == set(catalogue())


@pytest.mark.parametrize(("repository", "path"), WEIGHTS)
def test_an_inventory_explains_the_published_size(repository, path):
    """What a file has beyond its tensors is a header: names, shapes and padding, some 500 bytes a tensor."""
    published = catalogue()[repository]["files"][path]
    count = len(list(tensors_of(catalogue()[repository]["weights"][path])))
    assert count == len({name for name, _, _ in tensors_of(catalogue()[repository]["weights"][path])})
    if published is None:
        pytest.skip("no published size is known")
    beyond = published - tensor_bytes(repository, path)
    if path == "s2mel.pth":
        trained = sum(math.prod(shape) for _, dtype, shape in tensors_of("indextts2-s2mel") if dtype == "F32")
        assert 0.9 < beyond / (2 * 4 * trained) < 1  # an optimizer's two moments of what was trained
        return
    assert 70 * count <= beyond <= 1_200 * count


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pulled_is_there_and_what_is_left_is_read_by_nobody(name):
    model = known(name)
    files = catalogue()[model.repository]["files"]
    chosen, missing = choose_files(files, model.files)
    assert not missing
    unread = {path.rsplit("/", 1)[-1] for path in set(files) - set(chosen)}
    assert unread <= {
        "configuration.json", "preprocessor_config.json", "README.md", ".gitattributes", "dingding.png",
        "llm.rl.pt", "flow.decoder.estimator.fp32.onnx", "speech_tokenizer_v3.batch.onnx", "Modelfile",
        "generation_config.json", "bpe.model",
        *(["model.safetensors", "config.json"] if name == "cosyvoice3-0.5b" else []),
    }  # fmt: skip
    for companion in model.companions:
        assert set(companion.files) <= set(catalogue()[companion.repository]["files"])


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_a_release_is_found_described_inspected_and_planned(laid_out, name, caplog):
    folder = laid_out(name)
    assert sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) < 60e6
    assert registry.detect(folder) == known(name).family
    spec = registry.describe(folder)
    assert bool(spec.capabilities) == (name != "qwen3-tts-tokenizer-12hz")
    with caplog.at_level(logging.WARNING, logger="sonant"):
        read = registry.numbers_read(folder, strict=True)
    assert not caplog.records
    found = inspect_folder(spec.family, folder, read)
    assert not [file.problem for file in found.weights if file.problem]
    assert all(file.is_opened for file in found.weights)
    assert found.parameters == sum(read.values())
    planned = registry.plan(folder, memory_limit="20GB", device="cpu", slots=1, taken=0)
    widest = sum(path.stat().st_size for path in folder.rglob("*")) * 2.5
    assert 0.1 * found.parameters < planned.needed < widest
    with pytest.raises(RequestError, match="needs about"):
        registry.plan(folder, memory_limit="100MB", device="cpu", slots=1, taken=0)


SPEAKING = [name for name in NAMES if name != "qwen3-tts-tokenizer-12hz"]


@pytest.fixture
def configured(tmp_path):
    """A folder with the configs of a release, and nothing else."""

    def made(name):
        for path, small in catalogue()[known(name).repository]["small"].items():
            small = catalogue("shared").get(small, small) if isinstance(small, str) else small
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(small if isinstance(small, str) else json.dumps(small), encoding="utf-8")
        return tmp_path

    return made


@pytest.mark.parametrize("name", SPEAKING)
def test_auto_is_int8_for_every_release_on_a_cpu(configured, name, monkeypatch):
    folder = configured(name)
    monkeypatch.setattr("sonant.native.library", lambda: object())
    assert registry.choose_precision(folder, device="cpu") == "int8"
    assert registry.choose_precision(folder, device="cpu", dtype="bfloat16") == "full"
    assert registry.choose_precision(folder, device="cuda") == "full"
    assert registry.choose_precision(folder, "lossless", device="cpu") == "lossless"
    monkeypatch.setattr("sonant.native.library", lambda: None)
    assert registry.choose_precision(folder, device="cpu") == "lossless", "torch gains nothing by int8"


@pytest.mark.parametrize("name", SPEAKING)
def test_float32_by_name_is_float32_arithmetic(configured, name, monkeypatch):
    folder = configured(name)
    monkeypatch.setattr("sonant.native.library", lambda: object())
    assert registry.choose_precision(folder, device="cpu", dtype="float32") == "lossless"
    assert registry.choose_precision(folder, "int8", device="cpu", dtype="float32") == "int8"


@pytest.mark.parametrize("family", cases.CASES)
def test_auto_loses_nothing_of_a_narrow_checkpoint(family, monkeypatch):
    monkeypatch.setattr("sonant.native.library", lambda: object())
    folder = cases.checkpoint(family)
    assert registry.choose_precision(folder, device="cpu") == "lossless"


def test_what_the_releases_say_of_themselves(laid_out):
    spec = registry.describe(laid_out("qwen3-tts-0.6b-customvoice"))
    assert len(spec.voices) == 9
    assert "instruction" not in spec.capabilities  # the small one follows none
    assert "instruction" in registry.describe(laid_out("qwen3-tts-1.7b-customvoice")).capabilities
    assert registry.describe(laid_out("cosyvoice3-0.5b")).frame_rate == 25
    assert "emotion_text" in registry.describe(laid_out("indextts2")).capabilities


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_release_loads_strictly(laid_out, name, caplog):
    """Missing, misshapen or unexpected keys would be errors here; weights stay where they are mapped."""
    with caplog.at_level(logging.WARNING, logger="sonant"):
        model = registry.load_model(laid_out(name), device="cpu", dtype="bfloat16", strict=True)
    assert not caplog.records
    assert model.spec == registry.describe(laid_out(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3-tts-0.6b-customvoice", "cosyvoice3-0.5b", "indextts2"])
def test_one_second_of_speech_at_the_released_sizes(laid_out, name, tmp_path):
    """Weights of zeros say nothing, but every layer runs at its true size."""
    from sonant import Sampling, SpeechRequest
    from sonant.bench.reference_clip import reference_voice

    folder = laid_out(name)
    make_speakable(folder)
    voice = None
    if name == "cosyvoice3-0.5b":
        voice = "ann"
        torch.save({"ann": _stored_speaker()}, folder / "spk2info.pt")
    elif name.startswith("qwen3"):
        voice = "ryan"
    with registry.load(folder, device="cpu", precision=None, slots=1) as engine:
        frames = math.ceil(engine.spec.frame_rate)
        if engine.spec.needs_voice and voice is None:
            voice = reference_voice(engine)
        steps = 2 if "flow_steps" in engine.spec.sampling else None
        sampling = Sampling(max_frames=frames, flow_steps=steps)
        speech = engine.synthesize(SpeechRequest(SENTENCE, voice=voice, seed=3, sampling=sampling))
    (folder / "spk2info.pt").unlink(missing_ok=True)
    assert 0.9 <= len(speech.samples) / speech.sample_rate <= 1.3
    assert torch.isfinite(torch.from_numpy(speech.samples)).all()


def _stored_speaker():
    return {
        "flow_embedding": torch.zeros(1, 192),
        "flow_prompt_speech_token": torch.zeros(1, 25, dtype=torch.int32),
        "prompt_speech_feat": torch.zeros(1, 50, 80),
        "prompt_text": torch.tensor([[7, 151_646, 8]], dtype=torch.int32),
    }


def figures(name):
    """Files, bytes that are pulled, and bytes of the whole repositories without words and pictures."""
    pulled = [catalogue()[repository]["files"][path] for repository, path, _ in sources(name)]
    own = catalogue()[known(name).repository]["files"]
    skipped = (".md", ".png", ".gitattributes")
    whole = sum(size or 0 for path, size in own.items() if not path.endswith(skipped))
    beside = sum(
        catalogue()[repository]["files"][path]
        for repository, path, _ in sources(name)
        if repository != known(name).repository
    )
    return len(pulled), sum(size or 0 for size in pulled), whole + beside


@pytest.mark.parametrize("name", SIZED)
def test_the_table_of_the_docs_is_true(name):
    text = (DOCS / "releases.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{re.escape(name)}` \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", text, re.MULTILINE)
    assert row, f"no row of {name}"
    count, before, after = (int(value.replace(",", "")) for value in row.groups())
    assert (count, after, before) == figures(name)
