#!/usr/bin/env bash
# Unpack Valkey's server below the directory $1. Debian 12 has it in its backports only, so nothing
# of the system is changed: neither its sources nor what is installed.
set -euo pipefail
[ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ]
into=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
	"http://deb.debian.org/debian bookworm-backports main" >sources.list
own=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=-
	-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=)
apt-get "${own[@]}" update
apt-get "${own[@]}" download valkey-tools
dpkg-deb -x valkey-tools_*.deb "$into"
# The server and its tools are one program, which goes by its name.
ln -sf valkey-check-rdb "$into/usr/bin/valkey-server"
"$into/usr/bin/valkey-server" --version
