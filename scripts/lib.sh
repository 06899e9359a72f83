# Functions that the scripts share. Source this file; do not run it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root, with sudo if necessary.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*. Run it as root, or install sudo."
    fi
}

# Succeeds if PostgreSQL's server programs are installed, wherever the package put them.
have_postgresql() {
    local folder
    for folder in ${PG_BIN:+"$PG_BIN"} /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
        /usr/local/opt/postgresql*/bin; do
        [ -x "$folder/initdb" ] && return 0
    done
    command -v initdb >/dev/null
}

# Installs PostgreSQL's programs with the system's package manager, if they are missing. It starts no server and
# touches no existing one.
ensure_postgresql() {
    have_postgresql && return 0
    say "PostgreSQL's server programs are missing; installing them with the package manager"
    if command -v apt-get >/dev/null; then
        as_root apt-get update -qq
        # Otherwise the package would create a cluster and start it.
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql-common
        as_root sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
            echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.d/pointsman.conf'
        local installed=0
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql || installed=$?
        as_root rm -f /etc/postgresql-common/createcluster.d/pointsman.conf
        [ "$installed" = 0 ] || die "apt-get could not install postgresql"
    elif command -v dnf >/dev/null; then
        as_root dnf install -y postgresql-server postgresql-contrib
    elif command -v brew >/dev/null; then
        brew install postgresql@15
    else
        die "install PostgreSQL 15 or later, or set PG_BIN to the folder of its server programs"
    fi
    have_postgresql || die "the package is installed, but initdb is not found: set PG_BIN to its folder"
}

# Takes a list of "command:package" (Debian's names), and installs the package of each missing command.
ensure_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] && return 0
    command -v apt-get >/dev/null || die "install these first: ${missing[*]}"
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
}

# Takes a list of "command:package" as ensure_commands does, and a service for each after `--`. Installs the missing ones
# without starting their services, now or with the machine: the tests start their own.
ensure_without_services() {
    local pairs=() pair service missing=false policy=/usr/sbin/policy-rc.d ours=false installed=0
    while [ $# -gt 0 ] && [ "$1" != -- ]; do pairs+=("$1"); shift; done
    shift
    for pair in "${pairs[@]}"; do
        PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing=true
    done
    $missing || return 0
    if command -v apt-get >/dev/null && [ ! -e "$policy" ]; then
        ours=true
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"
    fi
    (PATH=$PATH:/usr/sbin ensure_commands "${pairs[@]}") || installed=$?
    if $ours; then as_root rm -f "$policy"; fi
    [ "$installed" = 0 ] || return "$installed"
    if command -v systemctl >/dev/null; then
        for service in "$@"; do as_root systemctl disable "$service" >/dev/null 2>&1 || true; done
    fi
}

# Installs PgBouncer, if it is missing.
ensure_pgbouncer() {
    ensure_without_services pgbouncer:pgbouncer -- pgbouncer || die "pgbouncer could not be installed"
}

# Installs Patroni and etcd, if they are missing. Run ensure_postgresql before: Patroni's package would not hold back the
# cluster that PostgreSQL's package creates and starts.
ensure_patroni() {
    try_patroni || die "patroni and etcd-server could not be installed, and the tests with Patroni need them"
}

try_patroni() {
    [ "$(uname)" = Linux ] && ensure_without_services patroni:patroni etcd:etcd-server -- patroni etcd
}

ensure_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust 1.88 or later, see https://rustup.rs"
}
