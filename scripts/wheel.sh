#!/bin/sh
# Build dist/*.whl and the source archive from what git tracks, and try the wheel where nothing of the checkout is: in an
# empty environment of each Python, without extras, from an empty folder. `scripts/wheel.sh 3.11 3.12 3.13` fails where
# one of these Pythons is missing; without arguments those that are there are tried, and the others named.
#
# What is installed beside the wheel is held by requirements.lock, with its hashes.
set -eu
cd "$(dirname "$0")/.."

CHECKOUT=$PWD
UV=$CHECKOUT/.venv/bin/uv
PYTHONS='3.11 3.12 3.13'
# Enough for every split, and for people to be asked about some.
DEMO='--classes 3 --per-class 16'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Settings of the user's own would be tried, and not the package's defaults; nor is the checkout to be importable.
unset DAGSTER_HOME DLASSETS_ROOT DLASSETS_ENGINE DLASSETS_PROFILE SPARK_REMOTE PYTHONPATH VIRTUAL_ENV

fail() {
    printf '\nthe wheel is not well: %s\n' "$1" >&2
    exit 1
}

build() {
    mkdir "$work/source"
    git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$work/source"
    rm -rf dist
    "$UV" build --quiet --build-constraint requirements-tools.lock --out-dir dist "$work/source"
}

# The package as git tracks it, whole, and nothing else.
check_contents() {
    git ls-files dlassets | sort >"$work/tracked"
    .venv/bin/python -m zipfile --list dist/*.whl | sed -n 's/^\([^ ]*\) .*/\1/p' |
        grep -v -e '^File$' -e '\.dist-info/' | sort >"$work/packed"
    diff "$work/tracked" "$work/packed" || fail "it has other files (>) than the package (<)."
    tar --list --file dist/*.tar.gz | sed 's|^[^/]*/||' | sort >"$work/archived"
    comm -23 "$work/tracked" "$work/archived" | grep . && fail "the source archive lacks these files."
    return 0
}

# Print the path of a Python of this version: the one on the PATH, or one that pyenv has and does not give out.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        "$candidate" -c 'import sys; print(sys.executable)' 2>/dev/null && return
    done
    return 1
}

try() {
    version=$1
    python=$2
    environment=$work/$version
    began=$(date +%s)
    "$UV" venv --quiet --python "$python" "$environment"
    "$UV" pip install --quiet --python "$environment/bin/python" --constraint requirements.lock \
        --build-constraint requirements-tools.lock dist/*.whl
    installed=$(date +%s)
    mkdir "$work/empty-$version"
    cd "$work/empty-$version"
    "$environment/bin/python" -c '
import importlib, pkgutil, dlassets
for module in pkgutil.walk_packages(dlassets.__path__, "dlassets."):
    importlib.import_module(module.name)' || fail "on Python $version a module of it cannot be imported."
    "$environment/bin/dlassets" --version
    refuses spark env DLASSETS_ENGINE=spark "$environment/bin/dlassets" demo
    refuses tuning "$environment/bin/dlassets" automl --minutes 1
    # shellcheck disable=SC2086 # options
    "$environment/bin/dlassets" demo $DEMO >demo.log 2>&1 || {
        cat demo.log
        fail "its demo fails on Python $version."
    }
    grep -q "pip install 'dlassets\[label-errors\]'" demo.log || fail "the demo does not say that labels were not judged."
    cd "$CHECKOUT"
    rm -rf "$environment"
    echo "Python $version: installed in $((installed - began)) s, tried in $(($(date +%s) - installed)) s"
}

# A command that needs an extra must name it, and leave nothing behind.
refuses() {
    extra=$1
    shift
    if "$@" >refusal.log 2>&1; then fail "without the extra $extra this ran: $*"; fi
    grep -q "pip install 'dlassets\[$extra\]'" refusal.log || { cat refusal.log && fail "it does not name the extra $extra."; }
    if grep -q Traceback refusal.log || [ -e lake ]; then cat refusal.log && fail "it does not refuse cleanly: $*"; fi
}

there=
for version in ${*:-$PYTHONS}; do
    if find_python "$version" >/dev/null; then
        there="$there $version"
    elif [ $# = 0 ]; then
        echo "Python $version is not on this machine: the wheel is not tried on it." >&2
    else
        fail "it is to be tried on Python $version, which is not on this machine."
    fi
done
[ -n "$there" ] || fail "none of Python $PYTHONS is on this machine."
build
check_contents
for version in $there; do
    try "$version" "$(find_python "$version")"
done
echo "The wheel works on Python$there: $(ls dist/*.whl)"
