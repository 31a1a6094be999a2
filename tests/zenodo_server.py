"""doi.org and zenodo.org on the loopback interface: a proxy that answers for both, over TLS, with any fault one likes.

With HTTPS_PROXY at `Zenodo.url` and REQUESTS_CA_BUNDLE at `Zenodo.certificate` it is reached under their real names.
"""

import hashlib
import http.server
import json
import ssl
import subprocess
import threading
import zipfile

RECORD = "1188976"


def archive(folder, actor, clips):
    """An archive as Zenodo has them: each clip as 01 and, the same pictures, as 02; returns its path."""
    path = folder / f"Video_Speech_Actor_{actor:02d}.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for clip in clips:
            for modality in ("01", "02"):
                zipped.writestr(f"Actor_{actor:02d}/{modality}{clip.name[2:]}", clip.read_bytes())
    return path


class Zenodo:
    """Serves archives; `faults` maps the end of an address to what goes wrong there: a status, "cut" or "lie"."""

    def __init__(self, folder, archives, faults=None):
        self.archives = {path.name: path.read_bytes() for path in archives}
        self.faults, self.asked = dict(faults or {}), []
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        subject = ["-subj", "/CN=stand-in", "-addext", "subjectAltName=DNS:doi.org,DNS:zenodo.org"]
        use = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", key]
        subprocess.run([*command, "-out", self.certificate, *subject, *use], check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, key)

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"zenodo": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def fault(self, address):
        for end, faults in self.faults.items():
            if address.endswith(end) and faults:
                return faults.pop(0)
        return None

    def files(self):
        for name, content in self.archives.items():
            link = f"https://zenodo.org/api/records/{RECORD}/files/{name}/content"
            checksum = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
            yield {"key": name, "checksum": checksum, "links": {"self": link}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.name = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.connection = self.zenodo.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self):
        address = self.name + self.path
        self.zenodo.asked.append(address)
        fault, parts = self.zenodo.fault(address), self.path.split("/")
        if isinstance(fault, int):
            self.answer(b'{"message": "no"}', fault, **{"Retry-After": "0"})
        elif self.name == "doi.org":
            self.answer(b"", 302, Location=f"https://zenodo.org/records/{RECORD}")
        elif self.path == f"/records/{RECORD}":
            self.answer(b"<html>")
        elif self.path == f"/api/records/{RECORD}":
            self.answer(json.dumps({"id": int(RECORD), "files": list(self.zenodo.files())}).encode())
        elif parts[-1] == "content" and parts[-2] in self.zenodo.archives:
            content = self.zenodo.archives[parts[-2]]
            self.answer(content[::-1] if fault == "lie" else content, cut=fault == "cut")
        else:
            self.answer(b"", 404)

    def answer(self, content, status=200, cut=False, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = True

    def log_message(self, *_):
        pass
