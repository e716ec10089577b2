"""RabbitMQ's configuration (3.10 and later) with its MQTT plugin, for who runs RabbitMQ already.

The certificate's CN is the user; each has topic permissions of its own, read from the definitions at every start.
The plugin does not tie the client id to the certificate: ids of ours cannot be guessed (`telemetry.identity`), and
a box may only make a queue that carries its own name. Retained messages reach no wildcard subscription: the centre
hears births when they happen, and its queue outlives its absence.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sekisho.appliance.core import sdnotify
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.center.brokers.model import (
    CENTER_READS,
    CENTER_WRITES,
    PACKET_CAP,
    QUEUED_BYTES,
    QUEUED_MESSAGES,
    WEBSOCKET_PATH,
    WINDOW,
    Broker,
    Launch,
)
from sekisho.center.settings import Erlang

PROGRAMS: Final = Path("/usr/lib/rabbitmq/lib")
CTL_S: Final = 20.0
"""For one order; shorter than the keeper's watchdog, which is fed between them."""
SESSION_S: Final = 7 * 86400
"""How long the centre's queue waits for it."""
_VHOST: Final = "/"
_EXCHANGE: Final = "amq.topic"

_START: Final = """\
# The port mapper must be there first: nobody else starts one (ERL_ZFLAGS), as it would outlive us.
epmd &
epmd=$!
until epmd -names >/dev/null 2>&1; do sleep 0.1; done
trap 'kill "$server"' TERM INT
{program} &
server=$!
wait "$server"
code=$?
while kill -0 "$server" 2>/dev/null; do wait "$server"; code=$?; done
kill "$epmd"
exit "$code"
"""

_Entry = dict[str, object]
_T = TypeVar("_T")


def write_config(broker: Broker, erlang: Erlang | None = None) -> Launch:
    """Write `rabbitmq.conf`, `definitions.json` and what else a start needs; the caller's user runs it.

    Raises:
        RejectedInput: the members are not listed, or a name is none.
        OSError: the directory cannot be written.

    """
    directory = broker.directory
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config, start = directory / "rabbitmq.conf", directory / "start"
    plugins = ["rabbitmq_mqtt", "rabbitmq_auth_mechanism_ssl", *(["rabbitmq_web_mqtt"] * bool(broker.websocket_port))]
    write_atomic(directory / "definitions.json", msgspec.json.encode(_definitions(broker)))
    write_atomic(directory / "enabled_plugins", f"[{','.join(plugins)}].\n".encode())
    write_atomic(directory / "advanced.config", _websocket(broker).encode())
    write_atomic(config, _conf(broker).encode())
    environment = _environment(directory, erlang or Erlang())
    write_atomic(start, f"{environment}{_START.format(program=_program('rabbitmq-server'))}".encode(), 0o700)
    write_atomic(directory / "ctl", f'{environment}exec {_program("rabbitmqctl")} "$@"\n'.encode(), 0o700)
    return Launch((str(start),), config)


def _conf(broker: Broker) -> str:
    files, address = broker.credentials, broker.address or "::"
    return f"""\
listeners.tcp = none
mqtt.listeners.tcp = none
mqtt.listeners.ssl.default = {address}:{broker.port}
mqtt.ssl_cert_login = true
mqtt.allow_anonymous = false
mqtt.vhost = {_VHOST}
mqtt.exchange = {_EXCHANGE}
mqtt.prefetch = {WINDOW}
mqtt.subscription_ttl = {SESSION_S * 1000}
ssl_cert_login_from = common_name
ssl_options.cacertfile = {files.ca}
ssl_options.certfile = {files.cert}
ssl_options.keyfile = {files.key}
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
max_message_size = {PACKET_CAP}
load_definitions = {broker.directory}/definitions.json
log.console = true
log.console.level = info
log.file = false
"""


def _websocket(broker: Broker) -> str:
    """The WebSocket listener in Erlang's terms: the plugin's plain configuration cannot ask for certificates."""
    if not broker.websocket_port:
        return "[].\n"
    files, address = broker.credentials, broker.address or "::"
    return f"""\
[{{rabbitmq_web_mqtt, [
  {{tcp_config, []}}, {{ws_path, "{WEBSOCKET_PATH}"}},
  {{ssl_config, [{{ip, "{address}"}}, {{port, {broker.websocket_port}}},
    {{cacertfile, "{files.ca}"}}, {{certfile, "{files.cert}"}}, {{keyfile, "{files.key}"}},
    {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}, {{versions, ['tlsv1.3', 'tlsv1.2']}}]}}]}}].
"""


def _definitions(broker: Broker) -> dict[str, list[_Entry]]:
    """Users without a password (so that none can log in by one), each with a queue and topics of its own."""
    users: list[_Entry] = []
    permissions: list[_Entry] = []
    topics: list[_Entry] = []
    for member in broker.listed():
        users.append(_user(member.box))
        permissions.append(_permission(member.box, rf"mqtt-subscription-{re.escape(member.box)}-[0-9a-f]+qos[01]"))
        topics.append(_topics(member.box, member.writes, member.reads))
    for center in broker.centers:
        users.append(_user(center))
        permissions.append(_permission(center, rf"mqtt-subscription-{re.escape(center)}-[0-9a-f]+qos[01]"))
        topics.append(_topics(center, map(_anywhere, CENTER_WRITES), map(_anywhere, CENTER_READS)))
    for publisher, (writes, reads) in broker.publishers.items():
        users.append(_user(publisher))
        permissions.append(_permission(publisher, rf"mqtt-subscription-{re.escape(publisher)}-[0-9a-f]+qos[01]"))
        topics.append(_topics(publisher, writes, reads))
    # What is dropped here the boxes repeat.
    bound = {"max-length": QUEUED_MESSAGES, "max-length-bytes": QUEUED_BYTES, "overflow": "drop-head"}
    policy: _Entry = {"vhost": _VHOST, "name": "bound", "pattern": "^mqtt-", "apply-to": "queues", "definition": bound}
    return {
        "vhosts": [{"name": _VHOST}],
        "users": users,
        "permissions": permissions,
        "topic_permissions": topics,
        "policies": [policy],
    }


def _anywhere(level: str) -> str:
    return f"sk/1/+/+/{level}"


def _user(name: str) -> _Entry:
    return {"name": name, "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}


def _permission(user: str, queue: str) -> _Entry:
    both = rf"^({re.escape(_EXCHANGE)}|{queue})$"
    return {"user": user, "vhost": _VHOST, "configure": f"^{queue}$", "write": both, "read": both}


def _topics(user: str, writes: Iterable[str], reads: Iterable[str]) -> _Entry:
    """A message's level may be anything where `+` stands; a subscription must be exactly as written."""
    write = "|".join(re.escape(topic).replace("/", r"\.").replace(r"\+", r"[^.]+") for topic in writes)
    read = "|".join(re.escape(topic).replace("/", r"\.").replace(r"\+", r"\*") for topic in reads)
    return {"user": user, "vhost": _VHOST, "exchange": _EXCHANGE, "write": f"^({write})$", "read": f"^({read})$"}


def reload(directory: Path, gone: Iterable[str]) -> None:
    """Have a running broker read its definitions again, and forget every other user: their connections are closed.

    Of users that are there and not defined, those with a tag stay: an operator made them. `gone` have their connections
    closed also if they were forgotten before.

    Raises:
        DeviceFault: the broker does not take it; to be done again as a whole.

    """
    definitions = directory / "definitions.json"
    _order(directory, "import_definitions", str(definitions))
    wanted = {user.name for user in _decode(definitions.read_bytes(), _Definitions).users}
    listed = _decode(_order(directory, "list_users", "--silent", "--formatter", "json"), list[_Listed])
    there = {user.user for user in listed if not user.tags}
    for user in sorted((there - wanted) | set(gone)):
        if user in there:
            _order(directory, "delete_user", user)
        _order(directory, "close_all_user_connections", user, "revoked")


class _Named(msgspec.Struct):
    name: str


class _Definitions(msgspec.Struct):
    users: list[_Named]


class _Listed(msgspec.Struct):
    user: str
    tags: list[str]


def _decode(content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as err:
        raise DeviceFault(f"RabbitMQ's list of users is not understood: {err}.") from err


def _order(directory: Path, *words: str) -> bytes:
    sdnotify.notify("WATCHDOG=1")
    try:
        done = subprocess.run([str(directory / "ctl"), *words], capture_output=True, timeout=CTL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"RabbitMQ could not be told to {words[0]}: {err}.") from err
    if done.returncode:
        raise DeviceFault(f"RabbitMQ refused to {words[0]}: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout


def _environment(directory: Path, erlang: Erlang) -> str:
    return f"""\
#!/bin/sh
export HOME={directory} RABBITMQ_NODENAME={erlang.node} RABBITMQ_CONF_ENV_FILE={directory}/none
export RABBITMQ_CONFIG_FILE={directory}/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE={directory}/advanced.config
export RABBITMQ_ENABLED_PLUGINS_FILE={directory}/enabled_plugins
export RABBITMQ_MNESIA_BASE={directory}/data RABBITMQ_LOG_BASE={directory}
export RABBITMQ_DIST_PORT={erlang.dist_port} ERL_EPMD_PORT={erlang.epmd_port} ERL_EPMD_ADDRESS=127.0.0.1
export ERL_ZFLAGS="-start_epmd false"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {{127,0,0,1}}"
"""


def _program(name: str) -> Path:
    """The real program: Debian's wrapper of it insists on the machine's own instance."""
    found = sorted(PROGRAMS.glob(f"rabbitmq_server-*/sbin/{name}"))
    return found[-1] if found else PROGRAMS / name
