"""How the repository is handed out: the configuration of a plain web server (nginx >= 1.18) that reads files, no more.

The server is not trusted: a box believes signatures alone. What it must do is answer always, give each box its share,
and show nothing but what is meant to be served.
"""

from __future__ import annotations

from pathlib import Path

from sekisho.appliance.core.errors import RejectedInput

_SERVER = """\
# The signed signatures of sekisho's boxes; goes into the http block (/etc/nginx/conf.d/sekisho-updates.conf).
limit_conn_zone {who} zone=sekisho_updates_conn:10m;
limit_req_zone {who} zone=sekisho_updates_req:10m rate=10r/s;

server {{
  listen {listen} ssl;
  server_name {name};
  root {root};

  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:sekisho_updates:4m;
  ssl_session_timeout 1d;
{clients}
  # A box asks for a few small files at a time, and for one large one in pieces.
  limit_conn sekisho_updates_conn 8;
  limit_conn_status 429;
  limit_req zone=sekisho_updates_req burst=60 nodelay;
  limit_req_status 429;
  client_max_body_size 1k;
  client_body_timeout 10s;
  client_header_timeout 10s;
  send_timeout 60s;
  keepalive_timeout 60s;
  large_client_header_buffers 4 4k;
  server_tokens off;
  autoindex off;
  disable_symlinks on from=$document_root;
  gzip off;
  etag on;
  max_ranges 1;
  types {{ }}

  if ($request_method !~ ^(GET|HEAD)$) {{
    return 405;
  }}

  location = /metadata/timestamp.json {{
    default_type application/json;
    add_header Cache-Control "no-cache";
    add_header X-Content-Type-Options nosniff;
  }}
  # What has a version or a hash in its name never changes. That a later root is not there yet is no lasting answer.
  location ~ "^/metadata/[0-9]{{1,15}}\\.(root|targets|snapshot|sig|fw|operators)\\.json$" {{
    default_type application/json;
    add_header Cache-Control "public, max-age=604800, immutable";
    add_header X-Content-Type-Options nosniff;
  }}
  location ~ "^/targets/(sig|operators|fw/[0-9a-z-]{{1,32}})/[0-9a-f]{{64}}\\.[0-9a-z.-]{{1,64}}$" {{
    default_type application/octet-stream;
    add_header Cache-Control "public, max-age=604800, immutable";
    add_header X-Content-Type-Options nosniff;
  }}
  # Every look for news asks for a root that is not there: that answer is as short as can be.
  error_page 403 404 =404 @none;
  location @none {{
    return 404 "\\n";
  }}
  location / {{
    return 404 "\\n";
  }}
}}
"""

_CLIENTS = """\
  ssl_client_certificate {ca};
  ssl_verify_client on;
  ssl_verify_depth 2;
"""

_ALONE = """\
daemon off;
user {user};
worker_processes 1;
pid {run}/nginx.pid;
error_log {run}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {run}/body;
  proxy_temp_path {run}/proxy;
  fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi;
  scgi_temp_path {run}/scgi;
{server}}}
"""


def config(
    root: Path,
    certificate: Path,
    key: Path,
    *,
    client_ca: Path | None = None,
    crl: Path | None = None,
    listen: str = "443",
    name: str = "_",
) -> str:
    """The part of nginx's `http` block that serves the repository in `root` over TLS 1.2 or later.

    With `client_ca` only boxes with a certificate of that authority are answered, unless `crl` (PEM) names it as
    revoked; the limits then hold per certificate, else per address. `listen` is [ADDRESS:]PORT.

    Raises:
        RejectedInput: a value that would not stay one value in the file.

    """
    for value in (root, certificate, key, client_ca, crl, listen, name):
        if any(character in str(value) for character in " \t\n\"'\\;{}$#"):
            raise RejectedInput(f"{str(value)!r} cannot be put into the server's configuration.")
    clients = _CLIENTS.format(ca=client_ca) if client_ca else ""
    if client_ca and crl:
        clients += f"  ssl_crl {crl};\n"
    who = "$ssl_client_fingerprint" if client_ca else "$binary_remote_addr"
    places = {"root": root, "certificate": certificate, "key": key, "listen": listen, "name": name}
    return _SERVER.format(**places, clients=clients, who=who)


def alone(server: str, run: Path, user: str = "www-data") -> str:
    """A whole configuration for an nginx that does nothing else and stays in the foreground.

    It writes below `run` only, which must be there; its workers are `user` when it is started by root.
    """
    return _ALONE.format(run=run, server=server, user=user)
