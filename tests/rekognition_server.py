"""A server that speaks Rekognition's JSON protocol on the loopback interface: boto3's peer in tests and the benchmark.

It checks what Amazon's would (target, signature, base64, size, a picture that decodes, 80 pixels a side), and
misbehaves when told to. What it answers depends on the picture alone. `python -m tests.rekognition_server SECONDS` runs
it on its own: it prints its port, and at the end of its input what it counted.
"""

import base64
import binascii
import hashlib
import hmac
import io
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

KEY, SECRET = "AKIDPLANTED0000000", "planted/Secret+Key0000000000000000000000"
ACCOUNT = "arn:aws:iam::123456789012:user/me"
EMOTIONS = "HAPPY SAD DISGUSTED ANGRY FEAR CALM SURPRISED CONFUSED UNKNOWN".split()
ERRORS = {  # behaviour: status and code, as Amazon answers them
    "throttle": (400, "ThrottlingException"),
    "provisioned": (400, "ProvisionedThroughputExceededException"),
    "500": (500, "InternalServerError"),
    "refuse": (400, "UnrecognizedClientException"),
    "expired": (400, "ExpiredTokenException"),
    "denied": (400, "AccessDeniedException"),
}


class Server(ThreadingHTTPServer):
    """`script` is what to do with the next requests, then `always` with all others; None is to answer them.

    `calls` lists (SHA-256 of the picture, what was done); `busy` adds up the seconds spent on requests;
    `most_at_once` is how many were under way together.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, seconds=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds, self.script, self.always, self.calls = seconds, [], None, []
        self.busy, self.at_once, self.most_at_once = 0.0, 0, 0
        self.counting, self.closing = threading.Lock(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def log_message(self, *arguments):
        pass

    def do_POST(self):  # noqa: N802
        if "X-Amz-Target" not in self.headers:  # AWS's token service, that is: it gives nobody a role
            self.rfile.read(int(self.headers["Content-Length"]))
            problem = f"<Code>AccessDenied</Code><Message>{ACCOUNT} may not sts:AssumeRole</Message>"
            return self.reply(403, f"<ErrorResponse><Error>{problem}</Error></ErrorResponse>")
        start, server = time.perf_counter(), self.server
        with server.counting:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            behaviour = server.script.pop(0) if server.script else server.always
        body = self.rfile.read(int(self.headers["Content-Length"]))
        picture, answer = self.checked(body)
        if answer is None and behaviour in ERRORS:  # errors that hold what must never be shown
            answer = error(
                *ERRORS[behaviour], f"{self.headers['Authorization']} {SECRET} arn:aws:iam::123456789012:user/me"
            )
        if answer is None:
            answer = 200, json.dumps({"FaceDetails": faces(picture, behaviour)})
        server.closing.wait(60 if behaviour == "hang" else max(0, server.seconds - (time.perf_counter() - start)))
        with server.counting:
            server.at_once -= 1
            server.busy += time.perf_counter() - start
            server.calls.append((picture, behaviour or answer[0]))
        return self.reply(*answer, behaviour)

    def reply(self, status, text, behaviour=None):
        if behaviour == "log-in page":
            status, text = 200, "<html>Please log in</html>"
        self.close_connection = behaviour in ("cut", "cut short", "hang")
        if behaviour in ("cut", "hang"):
            return
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if behaviour == "cut short" else data)

    def checked(self, body):
        """(digest, error or None) of a request."""
        if self.headers["X-Amz-Target"] != "RekognitionService.DetectFaces":
            return None, error(400, "UnknownOperationException")
        if self.headers["Content-Type"] != "application/x-amz-json-1.1":
            return None, error(400, "SerializationException")
        if not signed(self.headers, body):
            return None, error(400, "InvalidSignatureException")
        try:
            request = json.loads(body)
            picture = base64.b64decode(request["Image"]["Bytes"], validate=True)
        except (ValueError, KeyError, binascii.Error):
            return None, error(400, "SerializationException")
        digest = hashlib.sha256(picture).hexdigest()
        if request.get("Attributes") != ["EMOTIONS"]:
            return digest, error(400, "InvalidParameterException", "not what this project asks for")
        if len(picture) > 5_242_880:
            return digest, error(400, "ImageTooLargeException")
        try:
            with Image.open(io.BytesIO(picture), formats=["JPEG", "PNG"]) as image:
                image.load()
                return digest, error(400, "InvalidParameterException", "80 pixels") if min(image.size) < 80 else None
        except OSError:
            return digest, error(400, "InvalidImageFormatException")


def error(status, code, message="no"):
    return status, json.dumps({"__type": code, "message": message})


def signed(headers, body):
    """Whether the request is signed (AWS Signature Version 4) with KEY and SECRET."""
    kind, _, rest = headers.get("Authorization", "").partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(",")) if "=" in rest else {}
    key, _, scope = parts.get("Credential", "").partition("/")
    names = parts.get("SignedHeaders", "").split(";")
    if kind != "AWS4-HMAC-SHA256" or key != KEY or not {"host", "x-amz-date", "x-amz-target"} <= set(names):
        return False
    digest = lambda data: hashlib.sha256(data).hexdigest()  # noqa: E731
    lines = [f"{name}:{headers[name].strip()}" for name in names]
    canonical = "\n".join(["POST", "/", "", *lines, "", ";".join(names), digest(body)])
    text = "\n".join([kind, headers["X-Amz-Date"], scope, digest(canonical.encode())])
    signing = b"AWS4" + SECRET.encode()
    for part in [*scope.split("/"), text]:
        signing = hmac.digest(signing, part.encode(), "sha256")
    return hmac.compare_digest(signing.hex(), parts.get("Signature", ""))


def faces(picture, behaviour=None):
    """The faces it finds: none, one or three; the picture's digest says which emotions they have."""
    numbers = bytes.fromhex(picture)[: len(EMOTIONS)]
    count = {"no face": 0, "three faces": 3}.get(behaviour, 1)
    found = []
    for k in range(count):  # of three, the second is the largest, and has the emotions that one alone would have
        shares = numbers if k == count // 2 else numbers[::-1]
        side = 0.4 if k == count // 2 else 0.2
        emotions = zip(EMOTIONS, shares, strict=True)
        found.append({
            "BoundingBox": {"Width": side, "Height": side, "Left": 0.3 * k, "Top": 0.1}, "Confidence": 99.9,
            "Emotions": [{"Type": e, "Confidence": 100 * n / sum(shares)} for e, n in emotions],
        })  # fmt: skip
    return found


if __name__ == "__main__":
    with Server(float(sys.argv[1])) as running:
        print(running.server_port, flush=True)
        sys.stdin.read()
        print(json.dumps({"calls": len(running.calls), "busy": running.busy, "most_at_once": running.most_at_once}))
