"""Keys, hosts, origins, and what is public."""

import queue
import webbrowser

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from sonant.cli.app import tree
from sonant.errors import ConfigError
from sonant.server.auth import find_key, hash_key, keys_of, read_key_file
from sonant.server.settings import ServerSettings

cli = tree()

LOCAL = ("localhost", "127.0.0.1", "::1")


@pytest.fixture
def guarded(start):
    return start(
        settings=ServerSettings(
            keys=keys_of(["sk-one", "sk-two"]),
            allowed_hosts=LOCAL,
            cors_origins=("https://friend.example",),
        )
    )


def test_keys_are_compared_by_hash_only():
    keys = keys_of(["sk-one", hash_key("sk-two")])
    assert all(key.hash.startswith("sha256:") for key in keys)
    assert find_key("sk-one", keys) == keys[0]
    assert find_key("sk-two", keys) == keys[1]
    assert find_key(hash_key("sk-two"), keys) is None
    assert find_key(None, keys) is None
    assert find_key("", keys) is None


def test_the_key_command_keeps_only_a_hash(tmp_path):
    path = tmp_path / "keys.txt"
    made = CliRunner().invoke(cli, ["key", str(path), "--name", "ann's phone"])
    assert made.exit_code == 0
    key = made.stdout.split()[0]
    again = CliRunner().invoke(cli, ["key", str(path)])
    assert again.exit_code == 0
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    keys = read_key_file(path)
    assert len(keys) == 2
    assert find_key(key, keys) == keys[0]


def test_a_key_in_the_clear_in_a_key_file_is_refused(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("# mine\nsk-plain\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_key_file(path)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/audio/voices", "/v1/status", "/metrics", "/audio/voices"]
)
def test_routes_that_tell_or_do_something_need_the_key(guarded, path):
    assert httpx.get(guarded.url + path).status_code == 401
    assert httpx.get(guarded.url + path, headers={"Authorization": "Bearer nope"}).status_code == 401
    assert httpx.get(guarded.url + path, headers={"Authorization": "Bearer sk-one"}).status_code == 200
    assert httpx.get(guarded.url + path, headers={"X-Api-Key": "sk-two"}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/openapi.json"])
def test_health_and_pages_are_public(guarded, path):
    assert httpx.get(guarded.url + path).status_code == 200


def test_other_host_names_are_refused_against_dns_rebinding(guarded):
    answer = httpx.get(f"{guarded.url}/health", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


def test_foreign_web_pages_may_not_write(guarded):
    headers = {"Authorization": "Bearer sk-one", "Origin": "https://evil.example"}
    body = {"input": "hi", "model": "toy"}
    answer = httpx.post(f"{guarded.url}/v1/audio/speech", json=body, headers=headers)
    assert answer.status_code == 403
    headers["Origin"] = f"http://127.0.0.1:{guarded.port}"
    assert httpx.post(f"{guarded.url}/v1/audio/speech", json=body, headers=headers).status_code == 200


def test_cors_answers_only_those_it_was_told(guarded):
    ask = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{guarded.url}/v1/audio/speech", headers=ask)
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    ask["Origin"] = "https://evil.example"
    answer = httpx.options(f"{guarded.url}/v1/audio/speech", headers=ask)
    assert "access-control-allow-origin" not in answer.headers


def test_cors_is_off_by_default(start):
    server = start()
    answer = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_other_machines_are_not_let_in_without_a_key(monkeypatch):
    monkeypatch.delenv("SONANT_API_KEYS", raising=False)
    result = CliRunner().invoke(cli, ["serve", "--host", "0.0.0.0", "--port", "0"])
    assert isinstance(result.exception, ConfigError)
    assert "--insecure" in str(result.exception)


def test_a_log_level_that_is_none_is_told():
    result = CliRunner().invoke(cli, ["serve", "--log-level", "loud", "--port", "0"])
    assert isinstance(result.exception, ConfigError)
    assert "debug, info, warning, error" in str(result.exception)


def test_a_taken_port_is_told(start):
    server = start()
    result = CliRunner().invoke(cli, ["serve", "--port", str(server.port)])
    assert isinstance(result.exception, ConfigError)
    assert "--port" in str(result.exception)


@pytest.mark.parametrize("options", [[], ["--no-browser"]])
def test_studio_listens_on_this_machine_alone_and_opens_the_browser(monkeypatch, options):
    opened, served = queue.Queue(), []

    def run(server, sockets):
        served.append((sockets[0].getsockname(), server.config.app.state.service.settings))
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr(webbrowser, "open", opened.put)
    result = CliRunner().invoke(cli, ["studio", "--model", "builtin", *options])
    assert result.exit_code == 0, result.output
    [((host, port), settings)] = served
    assert host == "127.0.0.1"
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "::1")
    assert f"http://127.0.0.1:{port}" in result.output
    if options:
        assert opened.empty()
    else:
        assert opened.get(timeout=60) == f"http://127.0.0.1:{port}"
