"""A small hub on this machine: model information, files with ETag and byte ranges, and faults on request.

It speaks the protocols of Hugging Face and of ModelScope; the latter sends large files from another address.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 2_000
"""Bytes from which a file is kept as a large one, known by its SHA-256."""


class Hub:
    """Repositories as {repository: {path: bytes}}; `requests` is what was asked.

    `modelscope` are those that the other protocol knows.
    """

    def __init__(self, repositories, modelscope=None):
        self.repositories = repositories
        self.modelscope = modelscope or {}
        self.requests = []
        self.cut_after = {}
        """path -> how many bytes each coming answer carries before the connection breaks."""
        self.damaged = set()
        """Paths whose content is wrong though its size is right."""

    def identity(self, data):
        if len(data) >= LARGE:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@contextmanager
def serve(hub):
    """The address of a running hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self._answer(is_head=True)

        def do_GET(self):
            self._answer(is_head=False)

        def _answer(self, *, is_head):
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Range")))
            if path.startswith("/api/v1/models/"):
                self._answer_modelscope(path.removeprefix("/api/v1/models/"), is_head=is_head)
                return
            if path.startswith("/store/"):
                repository, _, name = path.removeprefix("/store/").partition("//")
                self._send_file(name, hub.modelscope[repository][name], is_head=is_head)
                return
            if path.startswith("/api/models/"):
                self._describe(path.removeprefix("/api/models/"))
                return
            for repository, files in hub.repositories.items():
                prefix = f"/{repository}/resolve/"
                if path.startswith(prefix):
                    revision, _, name = path.removeprefix(prefix).partition("/")
                    if name in files and revision in {COMMIT, "main"}:
                        self._send_file(name, files[name], is_head=is_head)
                        return
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def _describe(self, rest):
            repository, is_tree, revision = rest.partition("/tree/")
            if not is_tree:
                repository, _, revision = rest.partition("/revision/")
            files = hub.repositories.get(repository)
            if files is None:
                self._send(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
                return
            if revision not in {"", "main", COMMIT}:
                self._send(404, b'{"error":"Invalid rev"}', {"X-Error-Code": "RevisionNotFound"})
                return
            if is_tree:
                entries = [self._entry(name, data) for name, data in files.items()]
                self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
                return
            siblings = []
            for name, data in files.items():
                entry = {"rfilename": name, "size": len(data), "blobId": hub.identity(data)}
                if len(data) >= LARGE:
                    entry["lfs"] = {"sha256": hub.identity(data), "size": len(data), "pointerSize": 130}
                siblings.append(entry)
            body = {"id": repository, "sha": COMMIT, "private": False, "downloads": 0, "tags": []}
            body |= {"siblings": siblings}
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        def _entry(self, name, data):
            """A file as the list of a whole tree has it."""
            entry = {"type": "file", "oid": hub.identity(data), "size": len(data), "path": name}
            if len(data) >= LARGE:
                entry["lfs"] = {"oid": hub.identity(data), "size": len(data), "pointerSize": 130}
            return entry

        def _answer_modelscope(self, rest, *, is_head):
            repository, _, listing = rest.partition("/repo")
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            files = hub.modelscope.get(repository)
            if files is None or query.get("Revision") not in {"master", "v1"}:
                body = {"Code": 10010205001, "Message": "no such model or revision", "Success": False}
                self._send(404, json.dumps(body).encode(), {"Content-Type": "application/json"})
                return
            if listing == "/files":
                folders = sorted({name.rpartition("/")[0] for name in files} - {""})
                entries = [{"Path": name, "Name": name.split("/")[-1], "Type": "tree"} for name in folders]
                entries += [
                    {
                        "Path": name,
                        "Name": name.split("/")[-1],
                        "Type": "blob",
                        "Size": len(data),
                        "Sha256": hashlib.sha256(data).hexdigest(),
                        "Revision": COMMIT,
                    }
                    for name, data in files.items()
                ]
                body = {"Code": 200, "Data": {"Files": entries}, "Message": "success", "Success": True}
                self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
                return
            name = query.get("FilePath", "")
            if name not in files:
                self._send(404, b"{}", {})
            elif len(files[name]) >= LARGE:
                self._send(302, b"", {"Location": f"/store/{quote(repository)}//{quote(name)}"})
            else:
                self._send_file(name, files[name], is_head=is_head)

        def _send_file(self, name, data, *, is_head):
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hub.identity(data)}"', "Accept-Ranges": "bytes"}
            if len(data) >= LARGE:
                headers |= {"X-Linked-ETag": f'"{hub.identity(data)}"', "X-Linked-Size": str(len(data))}
            status, begin, end = 200, 0, len(data)
            if (asked := self.headers.get("Range")) and not is_head:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                begin = int(first)
                end = int(last) + 1 if last else end
                status = 206
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            body = bytes(len(data)) if name in hub.damaged else data
            cuts = hub.cut_after.get(name)
            cut = cuts.pop(0) if cuts and not is_head else None
            self._send(status, body[begin:end], headers, is_head=is_head, cut=cut)

        def _send(self, status, body, headers, *, is_head=False, cut=None):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not (is_head or self.command == "HEAD"):
                self.wfile.write(body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
