"""The app on a Ray cluster: what can be set, who is let in, and that a replica speaks like a server."""

import pytest
from fastapi.testclient import TestClient

from sonant.errors import ConfigError, DependencyError
from sonant.server.auth import hash_key
from sonant.server.building import keys_given
from sonant.server.cluster import CLUSTER, application, builder
from sonant.server.options import from_words, options_on, server_settings


def read(**words):
    return from_words(words, (*options_on("cluster"), *CLUSTER))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for variable in ("SONANT_API_KEYS", "SONANT_ADMIN_KEYS"):
        monkeypatch.delenv(variable, raising=False)


def test_settings_are_read_from_words():
    made = read(model="a,b", replicas="3", cpus="1.5", insecure="Yes", gpus="0", max_input="500")
    assert (made["model"], made["replicas"], made["cpus"]) == (["a", "b"], 3, 1.5)
    assert (made["insecure"], made["gpus"], made["slots"]) == (True, 0.0, 4)
    settings = server_settings(read(max_input="500", alias="a=b,c=d", max_upload="2"))
    assert settings.max_input == 500
    assert settings.model_aliases == {"a": "b", "c": "d"}
    assert settings.uploads.max_bytes == 2 * 2**20


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"modell": "x"}, "unknown setting modell; expected some of: model"),
        ({"replicas": "two"}, "replicas is 'two'; expected a whole number"),
        ({"replicas": "0"}, "1 or more"),
        ({"insecure": "perhaps"}, "true or false"),
        ({"cpus": "nan"}, "0.01 or more"),
        ({"cpus": "inf"}, "0.01 or more"),
        ({"host": "0.0.0.0"}, "unknown setting host"),
        ({"key_file": "nowhere.txt"}, "nowhere.txt"),
        ({}, "SONANT_API_KEYS"),
    ],
)
def test_wrong_settings_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        application(given)


def test_ray_is_asked_for_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(DependencyError, match="ray"):
        application({"insecure": "true"})


def test_a_replica_is_the_whole_app(tmp_path, monkeypatch):
    monkeypatch.setenv("SONANT_API_KEYS", "sk-one")
    settings = read(model="builtin", voices=str(tmp_path), cpus="1")
    keys = keys_given(settings)
    assert [key.hash for key in keys] == [hash_key("sk-one")]
    body = {"model": "builtin", "input": "Hello.", "response_format": "wav", "seed": 1}
    with TestClient(builder(settings, keys)()) as client:
        assert client.post("/v1/audio/speech", json=body).status_code == 401
        answer = client.post("/v1/audio/speech", json=body, headers={"Authorization": "Bearer sk-one"})
    assert answer.status_code == 200
    assert answer.content[:4] == b"RIFF"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_replicas_of_a_cluster_give_the_same_bytes(monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    import httpx
    from ray import serve

    monkeypatch.setenv("SONANT_API_KEYS", "sk-one")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"port": 18_765})
        serve.run(application({"model": "builtin", "replicas": "2", "cpus": "0.5"}), name="speech")
        headers = {"Authorization": "Bearer sk-one"}
        body = {"model": "builtin", "input": "Good morning.", "response_format": "wav", "seed": 1}
        with httpx.Client(base_url="http://127.0.0.1:18765", headers=headers, timeout=120) as client:
            assert client.get("/health").status_code == 200
            heard = {client.post("/v1/audio/speech", json=body).content for _ in range(8)}
            with client.stream("POST", "/v1/audio/speech", json=body | {"response_format": "pcm"}) as answer:
                assert answer.status_code == 200
                assert sum(map(len, answer.iter_bytes())) > 10_000
        assert len(heard) == 1
        assert heard.pop()[:4] == b"RIFF"
    finally:
        serve.shutdown()
        ray.shutdown()
