"""Keys have rights, and what belongs to one key is not another's."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from sonant.cli.app import tree
from sonant.errors import ConfigError
from sonant.server.auth import keys_of, read_key_file
from sonant.server.settings import RIGHTS, ServerSettings
from tests.server.conftest import toy_source
from tests.server.test_uploads import clip

cli = tree()

KEYS = (
    *keys_of(["sk-ann", "sk-bob"]),
    *keys_of(["sk-boss"], rights=frozenset(RIGHTS)),
    *keys_of(["sk-speaker"], rights=frozenset({"speak"})),
)


@pytest.fixture
def server(start):
    return start(toy_source(), settings=ServerSettings(keys=KEYS))


def ask(server, who, method, path, **more):
    headers = {"Authorization": f"Bearer sk-{who}"}
    return httpx.request(method, server.url + path, headers=headers, timeout=60, **more)


def add(server, who, name, **fields):
    form = {"name": name, "consent": "my own voice", **fields}
    return ask(server, who, "POST", "/v1/audio/voices", data=form, files={"audio_sample": ("a.wav", clip())})


def stored(server, who):
    listed = ask(server, who, "GET", "/v1/audio/voices").json()["uploaded_voices"]
    return [voice["id"] for voice in listed]


def test_a_voice_of_one_key_is_not_anothers(server):
    assert add(server, "ann", "zoe").status_code == 201
    assert stored(server, "ann") == ["zoe"]
    assert stored(server, "bob") == stored(server, "boss") == []
    for path in ("/v1/audio/voices/zoe", "/v1/audio/voices/zoe/clip"):
        assert ask(server, "ann", "GET", path).status_code == 200
        assert ask(server, "bob", "GET", path).status_code == 404
    assert ask(server, "bob", "DELETE", "/v1/audio/voices/zoe").status_code == 404
    assert add(server, "bob", "zoe").status_code == 201, "a name is taken for its own key alone"
    assert ask(server, "bob", "DELETE", "/v1/audio/voices/zoe").status_code == 200
    assert stored(server, "ann") == ["zoe"]


def test_a_shared_voice_is_everybodys_to_speak_with_and_its_owners_to_remove(server, library):
    assert add(server, "ann", "zoe", shared="true").status_code == 201
    assert stored(server, "bob") == ["zoe"]
    assert library.names() == ["zoe"]
    assert "owner" not in ask(server, "bob", "GET", "/v1/audio/voices/zoe").json()["origin"]
    assert add(server, "bob", "zoe").status_code == 400
    refused = ask(server, "bob", "DELETE", "/v1/audio/voices/zoe")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_your_voice")
    assert ask(server, "ann", "DELETE", "/v1/audio/voices/zoe").status_code == 200
    assert add(server, "ann", "zoe", shared="true").status_code == 201
    assert ask(server, "boss", "DELETE", "/v1/audio/voices/zoe").status_code == 200


def test_requests_are_seen_by_their_own_key_and_by_administrators(server):
    spoken = ask(server, "ann", "POST", "/v1/audio/speech", json={"input": "hi"})
    path = f"/v1/requests/{spoken.headers['x-request-id']}"
    assert ask(server, "ann", "GET", path).status_code == 200
    assert ask(server, "boss", "GET", path).status_code == 200
    assert ask(server, "bob", "GET", path).status_code == 404
    assert len(ask(server, "ann", "GET", "/v1/status").json()["recent"]) == 1
    assert ask(server, "bob", "GET", "/v1/status").json()["recent"] == []
    assert "owner" not in json.dumps(ask(server, "boss", "GET", "/v1/status").json())


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("speaker", "POST", "/v1/audio/speech", 200),
        ("speaker", "GET", "/v1/models", 200),
        ("speaker", "POST", "/v1/audio/voices", 403),
        ("speaker", "DELETE", "/v1/audio/voices/zoe", 403),
        ("speaker", "POST", "/v1/audio/voices/design", 403),
        ("ann", "POST", "/v1/models/toy/unload", 403),
        ("ann", "POST", "/v1/models/toy/load", 403),
        ("boss", "POST", "/v1/models/toy/load", 200),
    ],
)
def test_a_key_does_what_its_rights_allow(server, who, method, path, status):
    more = {"json": {"input": "hi"}} if path.endswith("speech") else {}
    answer = ask(server, who, method, path, **more)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "missing_right"


def test_the_only_key_of_a_server_is_its_owners(start, library):
    server = start(toy_source(), settings=ServerSettings(keys=keys_of(["sk-ann"])))
    assert add(server, "ann", "zoe").status_code == 201
    assert library.names() == ["zoe"], "in the library itself, where the command line finds it"
    assert ask(server, "ann", "POST", "/v1/models/toy/unload").status_code == 200


def test_the_key_command_writes_rights_and_priority(tmp_path):
    path = tmp_path / "keys.txt"
    options = ["--name", "a=b #c", "--rights", "speak,admin", "--priority", "3"]
    assert CliRunner().invoke(cli, ["key", str(path), *options]).exit_code == 0
    assert CliRunner().invoke(cli, ["key", str(path)]).exit_code == 0
    first, second = read_key_file(path)
    assert (first.rights, first.priority) == ({"speak", "admin"}, 3)
    assert (second.rights, second.priority) == (None, 0)
    wrong = CliRunner().invoke(cli, ["key", str(path), "--rights", "sing"])
    assert isinstance(wrong.exception, ConfigError)
    path.write_text(f"{first.hash} rights=sing\n")
    with pytest.raises(ConfigError, match="line 1"):
        read_key_file(path)
