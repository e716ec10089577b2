"""The internet side: configuration and start commands of the real servers the office talks to."""

from __future__ import annotations

import shutil
import sys

from sekisho.center.pki import Credentials, create_ca, issue
from sekisho.lab import layout, mailboxes, samples
from sekisho.lab.layout import Layout
from sekisho.lab.program import Program

NGINX = """\
daemon off;
user www-data;
worker_processes 1;
pid {wan}/nginx.pid;
error_log {logs}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
  types {{ text/html html; }}
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
  client_max_body_size 64m;
  client_body_temp_path {wan}/nginx/body;
  proxy_temp_path {wan}/nginx/proxy;
  fastcgi_temp_path {wan}/nginx/fastcgi;
  uwsgi_temp_path {wan}/nginx/uwsgi;
  scgi_temp_path {wan}/nginx/scgi;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_certificate {cert};
  ssl_certificate_key {key};
  server {{
    listen 80 default_server;
    listen [::]:80 default_server;
    listen 443 ssl default_server;
    listen [::]:443 ssl default_server;
    root {www};
    location /gzip/ {{
      alias {www}/;
      gzip on;
      gzip_types *;
      gzip_min_length 1;
      gzip_comp_level 1;
    }}
    location /post {{ return 200 "ok\\n"; }}
  }}
}}
"""

VSFTPD = """\
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
local_enable=NO
no_anon_password=YES
anon_root={www}
ftp_username=ftp
write_enable=YES
anon_upload_enable=YES
anon_umask=022
port_enable=YES
connect_from_port_20=YES
pasv_enable=YES
pasv_min_port=40000
pasv_max_port=40999
secure_chroot_dir={wan}/empty
seccomp_sandbox=NO
xferlog_enable=NO
"""

DNSMASQ = """\
no-resolv
no-hosts
no-dhcp-interface=*
bind-interfaces
listen-address={v4},{v6}
address=/sekisho.test/{v4}
address=/sekisho.test/{v6}
user=root
cache-size=0
pid-file=
"""


def prepare(lay: Layout) -> list[Program]:
    """Write the servers' files and return how to start them."""
    for folder in (lay.wan / "nginx", lay.wan / "empty", lay.mail, lay.uploads, lay.www):
        folder.mkdir(parents=True)
    samples.write(lay.www)
    lay.ftp_incoming.mkdir()
    shutil.chown(lay.ftp_incoming, "ftp")
    web = _certificate(lay)
    places: dict[str, object] = {"wan": lay.wan, "www": lay.www, "logs": lay.logs, "cert": web.cert, "key": web.key}
    places |= {"v4": layout.SERVER4, "v6": layout.SERVER6}
    for name, text in (("nginx.conf", NGINX), ("vsftpd.conf", VSFTPD), ("dnsmasq.conf", DNSMASQ)):
        (lay.wan / name).write_text(text.format_map(places))
    module = [sys.executable, "-I", "-m"]
    return [
        Program("nginx", "wan", ["nginx", "-c", f"{lay.wan}/nginx.conf"], [layout.HTTP, layout.HTTPS]),
        Program(
            "shapes",
            "wan",
            [*module, "sekisho.lab.shapes", "--www", str(lay.www), "--uploads", str(lay.uploads)],
            [layout.SHAPES],
        ),
        Program("mail", "wan", [*module, "sekisho.lab.mailsink", "--folder", str(lay.mail)], [layout.SMTP]),
        Program("ftp", "wan", ["vsftpd", f"{lay.wan}/vsftpd.conf"], [layout.FTP]),
        Program("dns", "wan", ["dnsmasq", "--keep-in-foreground", f"--conf-file={lay.wan}/dnsmasq.conf"], [layout.DNS]),
        mailboxes.prepare(lay, web),
    ]


def _certificate(lay: Layout) -> Credentials:
    create_ca(lay.web_ca.parent, "sekisho lab web CA")
    names = (layout.SERVER_NAME, layout.SERVER4, layout.SERVER6)
    return issue(lay.web_ca.parent, "www", "server", names)
