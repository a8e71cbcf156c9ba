#!/bin/sh
# Prepares a checkout: system packages that are missing, then .venv from the lock files.
# Safe to run again; takes a fraction of a second when nothing changed.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

is_new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

# Debian names the parts of a Python after its version; other Pythons bring them along.
python_package() {
    "$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'
}

has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

missing_packages() {
    command -v fusermount3 >/dev/null 2>&1 || echo fuse3
    command -v pkg-config >/dev/null 2>&1 || echo pkg-config
    pkg-config --exists fuse3 2>/dev/null || echo libfuse3-dev
    # gcc alone has no C library headers.
    echo '#include <stdio.h>' | gcc -E -x c - >/dev/null 2>&1 || echo gcc libc6-dev
    command -v setfattr >/dev/null 2>&1 || echo attr
    python=$1
    if [ -z "$python" ]; then
        echo python3 python3-venv python3-dev
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$(python_package "$python")-venv"
    has_headers "$python" || echo "$(python_package "$python")-dev"
}

install_packages() {
    say "installing $*"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            say "run as root: apt-get install $*"
            exit 1
        fi
        as_root=sudo
    fi
    $as_root apt-get update -q >&2
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

python=$(find_python)
packages=$(missing_packages "$python" | tr '\n' ' ')
if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "this system lacks what Debian calls $packages; install it, then try again"
        exit 1
    fi
    # shellcheck disable=SC2086 # a list of words
    install_packages $packages
    python=$(find_python)
fi
if [ -z "$python" ]; then
    say 'Python 3.11 or later is needed; name one with PYTHON=/path/to/python3'
    exit 1
fi

wanted=$(cat requirements-build.lock requirements.lock pyproject.toml scripts/setup.sh | sha256sum)
stamp=.venv/realize-setup
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c 'import pyfuse3' 2>/dev/null; then
    exit 0
fi

# A virtual environment whose Python has gone, or that stopped half-way, is made anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
say 'installing the locked dependencies'
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# What builds from source is built with the locked tools, not with whatever is newest today.
.venv/bin/python -m pip install -q --require-hashes -r requirements-build.lock
.venv/bin/python -m pip install -q --require-hashes --no-build-isolation -r requirements.lock
.venv/bin/python -m pip install -q --no-build-isolation --no-deps --no-index --editable .
printf '%s\n' "$wanted" >"$stamp"
say 'ready: .venv/bin/realize'
