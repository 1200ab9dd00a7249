#!/bin/sh
# Build the one environment, .venv, from the two locks. Run by make. `scripts/setup.sh lock` instead resolves
# pyproject.toml anew into the locks, with any further options of `uv pip compile`; `scripts/setup.sh peers` builds
# .venv-peers, what benchmarks compare dlassets with, which sees the packages of .venv as well; `scripts/setup.sh
# labelstudio` builds .venv-labelstudio, a labelling server of its own; and `scripts/setup.sh shared` builds the programs of
# `dlassets up` that are no Python, with Go, into .venv-shared.
#
# Everything fetched is checked against a hash: uv and what it builds source packages with (requirements-tools.lock), and
# all the rest (requirements.lock, requirements-peers.lock, requirements-labelstudio.lock). PYTHON names the Python to use; package indexes are whatever
# pip and uv are set to. TORCH=cpu takes torch and torchvision from PyTorch's own index of CPU builds, which are other
# files than the lock has hashes of: these two alone are then taken as that index gives them.
set -eu
cd "$(dirname "$0")/.."

ENVIRONMENT=.venv
STAMP=$ENVIRONMENT/.ready
PEERS=.venv-peers
STUDIO=.venv-labelstudio
PROGRAMS=.venv-shared
# What the peers ask for in other releases than requirements.lock has: they get their own.
PEERS_OWN='huggingface-hub|tqdm'

fail() {
    printf '\nset-up failed: %s\n' "$1" >&2
    exit 1
}

has_version() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

has_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Set PYTHON to a Python that can make the environment.
find_python() {
    lacks_venv=
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    for candidate; do
        if has_version "$candidate"; then
            if has_venv "$candidate"; then
                PYTHON=$candidate
                return
            fi
            lacks_venv=${lacks_venv:-$candidate}
        fi
    done
    if [ -n "$lacks_venv" ]; then
        fail "$lacks_venv lacks the module venv or ensurepip (Debian and Ubuntu keep them in python3-venv).
Install them, or name another Python: make setup PYTHON=/path/to/python3.12"
    fi
    fail "Python 3.11, 3.12 or 3.13 is needed. Tried: $*; $1 is $("$1" --version 2>&1 || echo "not there").
Install one, or name it: make setup PYTHON=/path/to/python3.12"
}

pip_setting() {
    "$ENVIRONMENT/bin/python" -m pip config list 2>/dev/null | sed -n "s/^global\.$1='\(.*\)'\$/\1/p"
}

# uv does not read pip's settings, and a machine behind a mirror or a proxy often has those alone.
share_pip_settings() {
    index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$(pip_setting index-url)}}}
    certificates=${SSL_CERT_FILE:-${PIP_CERT:-$(pip_setting cert)}}
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
    if [ -n "$certificates" ]; then export SSL_CERT_FILE="$certificates"; fi
}

uv_pip() {
    command=$1
    into=$2
    shift 2
    "$ENVIRONMENT/bin/uv" pip "$command" --python "$into/bin/python" \
        --build-constraint requirements-tools.lock "$@"
}

resolve() {
    "$ENVIRONMENT/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --custom-compile-command "make lock" "$@"
}

# Resolve what the peers need and .venv lacks, in releases that go with those of .venv.
resolve_peers() {
    shared=$(mktemp)
    sed -nE "/^($PEERS_OWN)==/d; s/^([a-z0-9._-]+==.*) \\\\\$/\1/p" requirements.lock >"$shared"
    # shellcheck disable=SC2046 # an option a package
    resolve "$@" --group pyproject.toml:peers --constraint "$shared" \
        $(sed 's/==.*//; s/^/--no-emit-package /' "$shared" | sort -u) --output-file requirements-peers.lock
    status=$?
    rm -f "$shared"
    return $status
}

build_peers() {
    rm -f "$PEERS/.ready"
    "$ENVIRONMENT/bin/python" -m venv --without-pip "$PEERS" || fail "$PEERS could not be made; the lines above say why."
    packages=$("$PEERS/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$ENVIRONMENT/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$packages/shared.pth"
    echo "Installing requirements-peers.lock into $PEERS (about 1 GB)"
    uv_pip sync "$PEERS" --require-hashes --compile-bytecode requirements-peers.lock ||
        fail "the packages of requirements-peers.lock could not be installed; the lines above say why."
    touch "$PEERS/.ready"
}

build_labelstudio() {
    rm -f "$STUDIO/.ready"
    "$ENVIRONMENT/bin/python" -m venv --without-pip "$STUDIO" || fail "$STUDIO could not be made; the lines above say why."
    echo "Installing requirements-labelstudio.lock into $STUDIO (about 800 MB)"
    uv_pip sync "$STUDIO" --require-hashes --compile-bytecode requirements-labelstudio.lock ||
        fail "the packages of requirements-labelstudio.lock could not be installed; the lines above say why."
    # Its first start makes a database, step by step, for most of a minute: made here once, it is copied for each lake.
    rm -rf "$STUDIO/prepared"
    LABEL_STUDIO_BASE_DATA_DIR="$PWD/$STUDIO/prepared" COLLECT_ANALYTICS=false LATEST_VERSION_CHECK=false \
        "$STUDIO/bin/label-studio" version </dev/null >"$STUDIO/prepared.log" 2>&1 ||
        fail "Label Studio could not make its database; $STUDIO/prepared.log says why."
    rm -f "$STUDIO/prepared/.env"
    touch "$STUDIO/.ready"
}

# A supervisor, an S3 server and a proxy, of the versions and hashes of deploy/programs.
build_programs() {
    command -v go >/dev/null 2>&1 ||
        fail "Go 1.26 or newer builds the programs of dlassets up, and there is no go on the PATH. Install it, or put
process-compose, versitygw and caddy on the PATH yourself: then nothing needs to be built."
    echo "Building process-compose, versitygw and caddy into $PROGRAMS (minutes the first time)"
    mkdir -p "$PROGRAMS/bin"
    (cd deploy/programs && go build -ldflags '-s -w' -o "../../$PROGRAMS/bin/" tool) ||
        fail "the programs of deploy/programs could not be built; the lines above say why."
    if ! command -v postgres >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
        echo "PostgreSQL is not there, which dlassets up needs as well: install it, as by apt-get install postgresql."
    fi
    touch "$PROGRAMS/.ready"
}

# The lock without torch, torchvision and what comes with a CUDA build of them.
lock_without_torch() {
    awk '/^[a-z0-9]/ { wanted = !/^(torch|torchvision|triton|nvidia-|cuda-)/ } wanted' requirements.lock
}

install_lock() {
    if [ "${TORCH:-}" != cpu ]; then
        uv_pip sync "$ENVIRONMENT" --require-hashes --compile-bytecode requirements.lock
        return
    fi
    rest=$ENVIRONMENT/without-torch.lock
    lock_without_torch >"$rest"
    # shellcheck disable=SC2046 # two requirements
    uv_pip sync "$ENVIRONMENT" --require-hashes --compile-bytecode "$rest" &&
        uv_pip install "$ENVIRONMENT" --torch-backend cpu --no-deps --compile-bytecode \
            $(sed -nE 's/^(torch|torchvision)(==[^ ;]+).*/\1\2/p' requirements.lock)
}

if [ "${1:-}" = peers ]; then
    share_pip_settings
    build_peers
    exit
fi

if [ "${1:-}" = shared ]; then
    build_programs
    exit
fi

if [ "${1:-}" = labelstudio ]; then
    share_pip_settings
    build_labelstudio
    exit
fi

case "${TORCH:-}" in
'' | cpu) ;;
*) fail "TORCH=$TORCH: it is cpu, or nothing, for the build that the lock has." ;;
esac
rm -f "$STAMP"
if ! has_version "$ENVIRONMENT/bin/python"; then
    find_python
    echo "Making $ENVIRONMENT with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$ENVIRONMENT" || fail "$PYTHON could not make $ENVIRONMENT; the lines above say why."
fi
if ! "$ENVIRONMENT/bin/uv" --version >/dev/null 2>&1; then
    "$ENVIRONMENT/bin/python" -m pip install --quiet --require-hashes --only-binary :all: \
        -r requirements-tools.lock ||
        fail "uv could not be had from the package index; the lines above say why.
If the index cannot be reached from here, name one that can be: PIP_INDEX_URL=... make setup"
fi
share_pip_settings

if [ "${1:-}" = lock ]; then
    shift
    resolve "$@" --extra all --extra dev pyproject.toml --output-file requirements.lock &&
        resolve_peers "$@" &&
        resolve "$@" --group pyproject.toml:labelstudio --output-file requirements-labelstudio.lock &&
        printf 'setuptools\nuv\n' | resolve "$@" --no-annotate - --output-file requirements-tools.lock ||
        fail "pyproject.toml could not be resolved; the lines above say why."
    exit
fi

echo "Installing requirements.lock into $ENVIRONMENT (about 7 GB; seconds where it is there already)"
install_lock ||
    fail "the packages of requirements.lock could not be installed; the lines above say why.
If the index cannot be reached from here, name one that can be (UV_DEFAULT_INDEX=... make setup).
Otherwise try again: what was fetched is kept. The packages take about 7 GB."
uv_pip install "$ENVIRONMENT" --quiet --no-deps --editable . || fail "dlassets itself could not be installed; the lines above say why."
touch "$STAMP"
