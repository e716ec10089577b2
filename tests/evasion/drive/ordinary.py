"""Real web servers as people run them: nginx, Apache, Node and Python, each with what it does by itself.

They are started on the internet side of a lab and serve the same files; nothing here is a trick.
"""

from __future__ import annotations

import base64
import gzip
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import clients

from sekisho.lab.lab import Lab
from sekisho.lab.ports import listening

NGINX, APACHE, NODE, PYTHON = 8001, 8002, 8003, 8004
PORTS: Final = {"nginx": NGINX, "apache": APACHE, "node": NODE, "python": PYTHON}
SIZES: Final = {"0": 0, "1": 1, "100": 100, "1k": 1000, "1460": 1460, "64k": 65_536, "1m": 1_000_000, "20m": 20_000_000}
KINDS: Final = ("txt", "html", "js", "json", "bin", "jpg", "gz")
READY_WITHIN_S = 20

# ruff: noqa: E501 - configuration files of other programs
NGINX_CONF = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  types {{ text/html html shtml; text/plain txt; application/javascript js; application/json json; image/jpeg jpg; application/gzip gz; }}
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  tcp_nopush on;
  gzip on;
  gzip_types text/plain application/javascript application/json;
  gzip_vary on;
  client_max_body_size 64m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {nginx};
    listen [::]:{nginx};
    root {www};
    location ~ \\.shtml$ {{ ssi on; }}
    location /list/ {{ alias {www}/; autoindex on; }}
    location /moved {{ return 302 /1k.txt; }}
    location /moved-far {{ return 301 http://10.77.0.1:{nginx}/1k.html; }}
    location /nothing {{ return 204; }}
    location /teapot {{ return 418 "short and stout\\n"; }}
    location /broken {{ return 500; }}
    location /gone {{ return 410; }}
    location /slow/ {{ alias {www}/; limit_rate 400k; }}
    location /node/ {{ proxy_pass http://127.0.0.1:{node}/; proxy_http_version 1.1; proxy_buffering off; }}
    location /node10/ {{ proxy_pass http://127.0.0.1:{node}/; }}
    location /away {{ proxy_pass http://127.0.0.1:9/; }}
    location /post {{ proxy_pass http://127.0.0.1:{node}/post; }}
  }}
}}
"""

APACHE_CONF = """\
ServerRoot {folder}
ServerName www.sekisho.test
PidFile {folder}/apache.pid
ErrorLog {folder}/apache-error.log
Listen {apache}
DocumentRoot {www}
User www-data
Group www-data
{modules}
TypesConfig {folder}/mime.types
AddType text/plain .txt
AddType text/html .html
AddOutputFilterByType DEFLATE text/plain text/html application/javascript application/json
AddOutputFilter INCLUDES .shtml
AddType text/html .shtml
Alias /brotli {www}
ScriptSock {folder}/cgisock
ScriptAlias /cgi/ {folder}/cgi/
Redirect 301 /moved /1k.txt
Redirect gone /gone
BrowserMatch "old" force-response-1.0 downgrade-1.0
<Directory {www}>
  Options +Indexes +Includes +FollowSymLinks
  Require all granted
</Directory>
<Directory {folder}/cgi>
  Options +ExecCGI
  Require all granted
</Directory>
<Location /brotli>
  SetOutputFilter BROTLI_COMPRESS
</Location>
"""
APACHE_MODULES: Final = (
    "mpm_event", "authz_core", "mime", "dir", "alias", "autoindex", "filter", "deflate", "brotli", "include", "cgid", "setenvif",
)  # fmt: skip

CGI = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
for number in 1 2 3 4 5; do printf 'line %s of a script\\n' "$number"; sleep 0.05; done
"""

NODE_JS = """\
const http = require('http'), zlib = require('zlib'), fs = require('fs'), path = require('path'), crypto = require('crypto');
const www = process.argv[2], port = +process.argv[3];
const pack = {gzip: zlib.createGzip, deflate: zlib.createDeflate, br: () => zlib.createBrotliCompress({params: {[zlib.constants.BROTLI_PARAM_QUALITY]: 4}}), raw: zlib.createDeflateRaw};
const server = http.createServer((ask, answer) => {
  const [, kind, ...rest] = decodeURIComponent(ask.url.split('?')[0]).split('/');
  const file = path.join(www, rest.join('/'));
  const read = () => fs.createReadStream(file);
  answer.setHeader('X-Cookies', 'yes');
  if (kind === 'post') { const sum = crypto.createHash('sha256'); let size = 0;
    ask.on('data', d => { sum.update(d); size += d.length; }).on('end', () => answer.end(`${size} ${sum.digest('hex')}\\n`)); return; }
  if (kind === 'chunked') { read().pipe(answer); return; }
  if (kind === 'tiny-chunks') { const s = fs.createReadStream(file, {highWaterMark: 97}); s.pipe(answer); return; }
  if (pack[kind]) { answer.setHeader('Content-Encoding', kind === 'raw' ? 'deflate' : kind); read().pipe(pack[kind]()).pipe(answer); return; }
  if (kind === 'flushed') { answer.setHeader('Content-Encoding', 'gzip'); const z = zlib.createGzip(); z.pipe(answer);
    let n = 0; const t = setInterval(() => { z.write(`piece ${n} `.repeat(50)); z.flush(); if (++n === 8) { clearInterval(t); z.end(); } }, 40); return; }
  if (kind === 'events') { answer.writeHead(200, {'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache'});
    let n = 0; const t = setInterval(() => { answer.write(`id: ${n}\\ndata: number ${n}\\n\\n`); if (++n === 8) { clearInterval(t); answer.end(); } }, +rest[0] || 60); return; }
  if (kind === 'trailers') { answer.writeHead(200, {Trailer: 'X-Sum'}); answer.write('body with a trailer\\n'); answer.addTrailers({'X-Sum': 'abc'}); answer.end(); return; }
  if (kind === 'hints') { answer.writeEarlyHints({link: '</style.css>; rel=preload; as=style'}); answer.writeProcessing(); answer.end('after the hints\\n'); return; }
  if (kind === 'fields') { answer.setHeader('Set-Cookie', Array.from({length: 40}, (_, n) => `cookie${n}=${'v'.repeat(90)}; Path=/; HttpOnly`)); answer.end('many cookies\\n'); return; }
  if (kind === 'status') { answer.statusCode = +rest[0]; if (rest[0] === '301') answer.setHeader('Location', '/status/200'); answer.end([204, 304].includes(+rest[0]) ? undefined : `status ${rest[0]}\\n`); return; }
  if (kind === 'close') { answer.shouldKeepAlive = false; answer.useChunkedEncodingByDefault = false; answer.removeHeader('Content-Length'); read().pipe(answer); return; }
  if (kind === 'sized') { answer.setHeader('Content-Length', fs.statSync(file).size); read().pipe(answer); return; }
  if (kind === 'utf16') { answer.setHeader('Content-Type', 'text/html; charset=utf-16le'); answer.end(Buffer.from('ふつうのページ plain page\\n'.repeat(20), 'utf16le')); return; }
  if (kind === 'multipart') { answer.setHeader('Content-Type', 'multipart/mixed; boundary=xyz'); answer.end('--xyz\\r\\nContent-Type: text/plain\\r\\n\\r\\none\\r\\n--xyz\\r\\nContent-Type: application/json\\r\\n\\r\\n{}\\r\\n--xyz--\\r\\n'); return; }
  answer.statusCode = 404; answer.end('no such thing\\n');
});
server.on('upgrade', (ask, link) => { const key = crypto.createHash('sha1').update(ask.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  link.write(`HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ${key}\\r\\n\\r\\n`);
  link.on('data', d => link.write(d)).on('error', () => {}); link.on('end', () => link.end()); });
server.on('connect', (ask, link) => link.end('HTTP/1.1 403 Forbidden\\r\\n\\r\\n'));
server.listen(port, '::');
"""


def contents(kind: str, size: int) -> bytes:
    """Something of that kind and size, the same on every machine; never anything a rule knows."""
    source = random.Random(f"{kind}{size}")
    if kind == "gz":
        return gzip.compress(contents("txt", size), 1, mtime=0)
    if kind in ("bin", "jpg"):
        return ((b"\xff\xd8\xff\xe0\0\x10JFIF" if kind == "jpg" else b"") + source.randbytes(size))[:size]
    words = base64.b64encode(source.randbytes(3000)).decode().replace("+", " ").replace("/", "\n")
    lead_text = {"html": "<!doctype html><p>", "json": '{"words": "', "js": "// "}.get(kind, "")
    return (lead_text + words * (size // len(words) + 1)).encode()[:size]


def write(folder: Path) -> Path:
    """The files; returns the documents' folder."""
    www = folder / "www"
    www.mkdir(parents=True)
    for name, size in SIZES.items():
        for kind in KINDS if size < 20_000_000 else ("txt", "bin"):
            (www / f"{name}.{kind}").write_bytes(contents(kind, size))
    (www / "page.shtml").write_text(
        '<p>before <!--#include virtual="/1k.txt" --> <!--#echo var="DOCUMENT_URI" --> after</p>\n'
    )
    cgi = folder / "cgi"
    cgi.mkdir()
    (cgi / "script").write_text(CGI)
    (cgi / "script").chmod(0o755)
    (folder / "mime.types").write_text("application/javascript js\napplication/json json\nimage/jpeg jpg\n")
    (folder / "node.js").write_text(NODE_JS)
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES)
    places = {"folder": folder, "www": www, "nginx": NGINX, "apache": APACHE, "node": NODE, "modules": modules}
    (folder / "nginx.conf").write_text(NGINX_CONF.format_map(places))
    (folder / "apache.conf").write_text(APACHE_CONF.format_map(places))
    for path in www.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    for path in (folder, folder.parent):
        path.chmod(0o755)
    return www


@contextmanager
def serving(lab: Lab) -> Iterator[Path]:
    """All four, ready, on the internet side of `lab`; gives the documents' folder."""
    folder = lab.lay.wan / "ordinary"
    www = write(folder)
    commands = [
        ["nginx", "-c", f"{folder}/nginx.conf"],
        ["apache2", "-D", "FOREGROUND", "-f", f"{folder}/apache.conf"],
        ["node", f"{folder}/node.js", str(www), str(NODE)],
        [sys.executable, "-I", "-m", "http.server", "--bind", "::", "--directory", str(www), str(PYTHON)],
    ]
    with ExitStack() as stack:
        started: list[subprocess.Popen[bytes]] = []
        for argv in commands:
            process = subprocess.Popen(
                lab.inside("wan", argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=(folder / "errors.log").open("ab"), env=lab.env(),
            )  # fmt: skip
            stack.callback(clients.ended, process)
            started.append(process)
        deadline = time.monotonic() + READY_WITHIN_S
        while not set(PORTS.values()) <= listening(started[0].pid):
            assert time.monotonic() < deadline, (folder / "errors.log").read_text()[-2000:]
            assert all(process.poll() is None for process in started), (folder / "errors.log").read_text()[-2000:]
            time.sleep(0.02)
        yield www
