#!/bin/sh
# Installs the system programs sekisho needs, where they are missing. No service of the machine is started
# or enabled by it: what a package would start stays off, and the machine's own policy comes back afterwards.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

packages="mosquitto nginx iptables nftables iproute2 ethtool tcpdump swaks vsftpd samba smbclient dnsmasq-base bind9-dnsutils curl lftp
  gcc libc6-dev libnetfilter-queue-dev libmnl-dev libseccomp2 python3 python3-venv python3-dev make kmod
  iputils-ping openssl systemd procps ca-certificates chromium apache2-bin nodejs libarchive-tools yara zstd
  dovecot-core dovecot-pop3d dovecot-imapd nats-server rabbitmq-server postgresql tinyproxy
  systemd-container mmdebstrap
  libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-noto-cjk"
services="suricata mosquitto nginx vsftpd squid c-icap clamav-daemon clamav-freshclam dovecot nats-server rabbitmq-server postgresql tinyproxy"
[ $# = 0 ] || packages="$packages $*" # what one of the make targets needs besides
suricata_min=7.0.10
policy=/usr/sbin/policy-rc.d
backports=/etc/apt/sources.list.d/sekisho-backports.sources

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
suricata_fits() {
  have=$(dpkg-query -W -f '${Version}' suricata 2>/dev/null) && installed suricata &&
    dpkg --compare-versions "${have#*:}" ge "$suricata_min"
}
candidate_fits() {
  best=$(apt-cache madison suricata | awk -F'|' '{gsub(/ /, "", $2); sub(/^[0-9]+:/, "", $2); print $2}' | sort -rV | head -n1)
  [ -n "$best" ] && dpkg --compare-versions "$best" ge "$suricata_min"
}

missing=
for package in $packages; do installed "$package" || missing="$missing $package"; done
suricata_fits && need_suricata= || need_suricata=yes
[ -n "$missing$need_suricata" ] || exit 0

[ "$(id -u)" = 0 ] || { echo "Missing programs:$missing${need_suricata:+ suricata}. Run make as root once." >&2; exit 3; }
. /etc/os-release
case "${ID:-}:${VERSION_ID:-}" in
  debian:12 | debian:13) ;;
  *) echo "sekisho is set up on Debian 12 or 13; this is ${PRETTY_NAME:-unknown}." >&2; exit 3 ;;
esac

echo "Installing system packages:$missing${need_suricata:+ suricata}"
new_services=
for service in $services; do installed "$service" || new_services="$new_services $service"; done
installed samba || new_services="$new_services smbd nmbd samba-ad-dc"
kept=
restore() {
  rm -f "$policy"
  [ -z "$kept" ] || mv "$kept" "$policy"
}
if [ -e "$policy" ]; then
  kept="$policy.sekisho-kept"
  mv "$policy" "$kept"
fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
get() { apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >/dev/null; }
apt-get -qq update
# shellcheck disable=SC2086 # a list of words on purpose
[ -z "$missing" ] || get install $missing
if [ -n "$need_suricata" ]; then
  if candidate_fits; then
    from=
  else
    python3 "$here/backports.py" "$VERSION_CODENAME" >"$backports.new"
    mv "$backports.new" "$backports"
    apt-get -qq update
    from=yes
  fi
  if [ -n "$from" ] || ! dpkg --compare-versions "$(apt-cache policy suricata | awk '/Candidate:/ {sub(/^[0-9]+:/, "", $2); print $2}')" ge "$suricata_min"; then
    get -t "$VERSION_CODENAME-backports" install suricata
  else
    get install suricata
  fi
fi
for service in $new_services; do
  for kind in service socket; do systemctl disable -q "$service.$kind" >/dev/null 2>&1 || true; done # nothing is as good
done
suricata_fits || { echo "Suricata $suricata_min or newer could not be installed." >&2; exit 3; }
