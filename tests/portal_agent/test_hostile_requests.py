"""Requests as no browser sends them: each is answered in words or not at all, none with a fault of ours."""

from __future__ import annotations

import logging
import socket
import ssl

import pytest
from pagebox import Browser

OWN = "127.0.0.1:{port}"
FORM = b"Host: {host}\r\nOrigin: https://{host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
REQUESTS = [
    b"GET /%00 HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /quarantine/%ff%fe HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /quarantine/..%2f..%2fkey/file HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /quarantine/%0d%0aX:%20y HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET //evil.example/ HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /static/../page.pem HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /static/..%2fpassword.json HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET /?said=released&x=<script> HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: \xff\xfe=\x80; __Host-sekisho=\xff\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: __Host-language=xx; __Host-language=en\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nAccept-Language: " + b",".join([b"en"] * 2000) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nAccept-Language: \xff;q=\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\n{form}Content-Length: 12\r\n\r\npassword=%ff",
    b"POST /sign-in HTTP/1.1\r\n{form}Content-Length: 21\r\n\r\npassword=a&password=b",
    b"POST /sign-in HTTP/1.1\r\n{form}Content-Length: 60\r\n\r\n" + b"a&" * 30,
    b"POST /language HTTP/1.1\r\n{form}Content-Length: 27\r\n\r\nto=en&page=%0d%0aSet-Cookie:",
    b"POST /sign-in HTTP/1.1\r\n{form}Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
]


def say(owner: Browser, request: bytes) -> bytes:
    host = OWN.format(port=owner.box.settings.page.port).encode()
    cookie = f"Cookie: __Host-sekisho={owner.client.cookies['__Host-sekisho']}\r\n".encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", owner.box.settings.page.port), 5) as raw,
        context.wrap_socket(raw) as sock,
    ):
        asked = request.replace(b"{form}", FORM).replace(b"Host: ", b"Connection: close\r\nHost: ")
        sock.sendall(asked.replace(b"{host}", host).replace(b"{cookie}", cookie))
        sock.settimeout(1.0)
        try:
            while chunk := sock.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionError, ssl.SSLError):
            pass
    return answer


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_a_strange_request_is_no_fault(owner: Browser, request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = say(owner, request_)
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    assert status < 500, answer[:300]
    assert caplog.records == []
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x: y" not in head.lower() and b"<script>" not in body and b"PRIVATE KEY" not in body
    assert b"argon2" not in body
    assert owner.get("/").status_code == 200
