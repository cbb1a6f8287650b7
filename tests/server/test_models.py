"""The pool: names, loading on demand, idle unloading, the memory ceiling."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from sonant.catalogue import registry
from sonant.checkpoints.memory import resident_bytes
from sonant.errors import BusyError, CheckpointError, ConfigError, RequestError
from sonant.server.models import ModelPool, ModelSource, find_sources
from sonant.server.problems import HttpProblem
from tests.server.conftest import toy_source

MIB = 2**20


@pytest.fixture
def searched():
    """Memory is given back as users have it."""


def run(work):
    async def whole():
        return await work

    return asyncio.run(whole())


def test_openai_names_and_own_aliases_stand_for_models():
    pool = ModelPool([toy_source("a"), toy_source("b")], aliases={"tts-1-hd": "b", "best": "b"})
    assert pool.resolve(None) == pool.resolve("tts-1") == pool.resolve("gpt-4o-mini-tts") == "a"
    assert pool.resolve("tts-1-hd") == pool.resolve("best") == "b"
    with pytest.raises(HttpProblem, match="no model 'c'"):
        pool.resolve("c")
    with pytest.raises(ConfigError, match="not served"):
        ModelPool([toy_source("a")], aliases={"x": "nothing"})
    with pytest.raises(ConfigError, match="no model to serve"):
        ModelPool([])


def test_a_model_is_loaded_once_for_all_who_wait():
    async def work():
        pool = ModelPool([toy_source("a")])

        async def one():
            async with pool.use("a") as model:
                return model

        models = await asyncio.gather(*(one() for _ in range(5)))
        assert len(set(models)) == 1
        assert pool.loads == 1
        assert pool.spec("a").name == "toy"
        await pool.close()

    run(work())


def test_the_one_who_asked_first_may_leave_while_it_loads():
    async def work():
        gate = threading.Event()
        source = toy_source("a")

        def slow():
            gate.wait(10)
            return source.open()

        pool = ModelPool([ModelSource(name="a", open=slow)])
        first = asyncio.create_task(pool.load("a"))
        second = asyncio.create_task(pool.load("a"))
        await asyncio.sleep(0)
        assert pool.state("a") == "loading"
        first.cancel()
        gate.set()
        assert (await second).name == "a"
        assert pool.loads == 1
        await pool.close()

    run(work())


def test_a_failed_load_is_told_and_tried_again():
    async def work():
        answers = [CheckpointError("the folder is gone"), None]
        source = toy_source("a")

        def flaky():
            error = answers.pop(0)
            if error is not None:
                raise error
            return source.open()

        pool = ModelPool([ModelSource(name="a", open=flaky)])
        with pytest.raises(CheckpointError, match="gone"):
            await pool.load("a")
        assert (await pool.load("a")).name == "a"
        await pool.close()

    run(work())


def test_the_ceiling_drops_who_was_idle_longest_and_never_who_speaks():
    async def work():
        sources = [toy_source(name, size=100 * MIB) for name in "abc"]
        pool = ModelPool(sources, max_bytes=250 * MIB)
        for name in "ab":
            await pool.load(name)
        async with pool.use("a"):
            await pool.load("c")
            assert {model.name for model in pool.loaded} == {"a", "c"}
            async with pool.use("c"):
                with pytest.raises(BusyError, match="ceiling"):
                    await pool.load("b")
                with pytest.raises(BusyError, match="speaking"):
                    await pool.unload("a")
        await pool.close()

    run(work())
    with pytest.raises(ConfigError, match="ceiling"):
        ModelPool([toy_source("a", size=300)], max_bytes=250)


def test_idle_models_are_unloaded_and_come_back():
    async def work():
        pool = ModelPool([toy_source("a")], idle_seconds=0.0)
        async with pool.use("a"):
            await pool.unload_idle()
            assert pool.state("a") == "loaded"
        await pool.unload_idle()
        assert pool.state("a") == "unloaded"
        assert pool.spec("a") is not None
        async with pool.use("a") as model:
            assert model.spec.name == "toy"
        assert pool.loads == 2
        await pool.close()

    run(work())


def test_sources_are_found_by_name_and_folder(library, tmp_path, monkeypatch):
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path))
    options = {"device": "cpu", "dtype": "auto", "slots": 1, "queue_limit": 4}
    assert [source.name for source in find_sources([], library, **options)] == ["builtin", "nano"]
    assert [source.name for source in find_sources(["mine=builtin"], library, **options)] == ["mine"]
    with pytest.raises(CheckpointError):
        find_sources(["nothing-of-the-kind"], library, **options)
    with pytest.raises(ConfigError, match="two models"):
        find_sources(["builtin", "builtin"], library, **options)


def test_a_model_tells_what_it_can_before_it_is_loaded_and_a_broken_one_spoils_no_other(
    library, tmp_path, caplog
):
    tiny = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"
    shutil.copytree(tiny, tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "qwen3_tts"}')
    names = ["builtin", f"tiny={tiny}", str(tmp_path / "broken")]
    pool = ModelPool(find_sources(names, library, device="cpu", slots=1, queue_limit=4))
    assert pool.state("tiny") == "unloaded"
    assert "clone_in_context" in pool.spec("tiny").capabilities
    assert pool.spec("builtin").voices == ("heart",)
    assert pool.spec("broken") is None
    assert "model broken cannot be loaded as it is" in caplog.text


def test_a_source_says_what_auto_is(library, monkeypatch):
    monkeypatch.setattr("sonant.native.library", lambda: None)
    tiny = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"

    def words(**options):
        sources = find_sources(["builtin", f"tiny={tiny}"], library, slots=1, queue_limit=4, **options)
        return [source.words() for source in sources]

    assert words(device="cpu") == [("auto", "auto"), ("auto", "lossless")]
    assert words(device="cpu", memory_limit=10**12) == words(device="cpu"), "a wide limit changes no key"
    assert words(device="cpu", precision="int8") == [("auto", "auto"), ("auto", "int8")]
    assert words(device="cpu", dtype="bfloat16") == [("bfloat16", "auto"), ("bfloat16", "full")]


def test_a_memory_limit_chooses_how_models_are_loaded(library, caplog):
    limit = resident_bytes() + 700 * MIB
    (source,) = find_sources(["builtin"], library, slots=2, queue_limit=4, memory_limit=limit)
    assert source.bytes == registry.plan("builtin", memory_limit=limit).needed
    with pytest.raises(
        RequestError, match=r"builtin needs about .* the memory limit is 100 MB\. Give a higher"
    ):
        find_sources(["builtin"], library, slots=2, queue_limit=4, memory_limit=10**8)
    with pytest.raises(ConfigError, match="no model"):  # found by itself, it is only left out
        ModelPool(find_sources([], library, slots=2, queue_limit=4, memory_limit=10**8))
    assert "model builtin is not served: builtin needs about" in caplog.text
