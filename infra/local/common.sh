# What demo.sh and kill-test.sh share: a temporary folder, servers in it, and that nothing of it stays. Sourced, not run.
# shellcheck shell=bash

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
target_folder="${CARGO_TARGET_DIR:-$repository/target}"
mongoferry="$target_folder/debug/mongoferry"
fixture="$target_folder/debug/mongoferry-fixture"
work=''
children=()
runner=''

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
section=0
heading() {
  section=$((section + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$section" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
indent() { sed 's/^/   /'; }
fail() {
  printf '\n%sFAILED: %s%s\n' "$bold" "$*" "$plain" >&2
  exit 1
}
now() { date +%s%N; }
# seconds_since NANOSECONDS: with two digits.
seconds_since() {
  local elapsed=$((($(now) - $1) / 10000000))
  printf '%d.%02d' $((elapsed / 100)) $((elapsed % 100))
}

# Servers are in $children until the end, the one mongoferry at work is in $runner while it works.
# Everything that was started is ended and everything that was written is removed, however this ends.
cleanup() {
  local code=$? child
  trap - EXIT
  trap '' INT TERM HUP
  for child in "${children[@]}" $runner; do
    kill -9 "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  # Kept on request, for a look at what went wrong.
  if [ -n "$work" ] && [ -n "${MONGOFERRY_KEEP:-}" ]; then
    printf 'kept: %s\n' "$work" >&2
  elif [ -n "$work" ]; then
    rm -rf "$work"
  fi
  exit "$code"
}

begin() {
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work="$(mktemp -d "${TMPDIR:-/tmp}/mongoferry-$1.XXXXXX")"
}

build() {
  command -v cargo >/dev/null || fail 'cargo is missing; install Rust from https://rustup.rs and run this again'
  make --no-print-directory -C "$repository" build
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports below those that the system gives to outgoing connections.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if port_is_free "$port"; then
      printf '%s\n' "$port"
      return
    fi
  done
}

# started PID LOG PORT: waits until the server takes connections.
started() {
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    if ! port_is_free "$3"; then return; fi
    kill -0 "$1" 2>/dev/null || break
    sleep 0.05
  done
  tail -n 5 "$2" >&2
  fail "the server on port $3 did not start; the end of its log is above"
}

# start_mongod NAME: a replica set of one member; its connection string is in $uri afterwards.
start_mongod() {
  local name="$1" port
  port="$(free_port)"
  mkdir -p "$work/$name"
  "$mongod" --dbpath "$work/$name" --port "$port" --bind_ip 127.0.0.1 --replSet "$name" --nounixsocket \
    --wiredTigerCacheSizeGB 0.5 --oplogSize 512 --setParameter diagnosticDataCollectionEnabled=false \
    --setParameter disableLogicalSessionCacheRefresh=true >"$work/$name.log" 2>&1 </dev/null &
  children+=($!)
  started $! "$work/$name.log" "$port"
  "$fixture" init-replica-set --port "$port" --name "$name" 2>&1 | indent
  uri="mongodb://127.0.0.1:$port/?replicaSet=$name"
}

# start_minio BUCKET: sets what a client of it needs in the environment.
start_minio() {
  local port
  port="$(free_port)"
  # MinIO takes a folder in its data for a bucket.
  mkdir -p "$work/minio/$1"
  export AWS_ACCESS_KEY_ID=mongoferry-demo AWS_SECRET_ACCESS_KEY=mongoferry-demo-secret AWS_REGION=us-east-1
  unset AWS_SESSION_TOKEN AWS_PROFILE
  export MONGOFERRY_S3_ENDPOINT="http://127.0.0.1:$port"
  MINIO_ROOT_USER="$AWS_ACCESS_KEY_ID" MINIO_ROOT_PASSWORD="$AWS_SECRET_ACCESS_KEY" MINIO_BROWSER=off MINIO_UPDATE=off \
    "$minio" server "$work/minio" --address "127.0.0.1:$port" >"$work/minio.log" 2>&1 </dev/null &
  children+=($!)
  started $! "$work/minio.log" "$port"
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    if (
      exec 3<>"/dev/tcp/127.0.0.1/$port" &&
        printf 'GET /minio/health/ready HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3 &&
        IFS= read -r -t 2 line <&3 && [[ $line == *' 200 '* ]]
    ) 2>/dev/null; then return; fi
    sleep 0.05
  done
  fail "MinIO did not become ready; see its log with MONGOFERRY_KEEP=1"
}

# What a caller has in the environment for a copy of his own must not change this one.
forget_settings() {
  local name
  for name in $(compgen -e MONGOFERRY_); do
    case "$name" in
      MONGOFERRY_MONGOD | MONGOFERRY_MINIO | MONGOFERRY_KEEP | MONGOFERRY_LOG_*) ;;
      *) unset "$name" ;;
    esac
  done
}

# status_of FIELD…: of the job as the state has it now, one a line; 0 or - for what is not there yet.
status_of() {
  { "$mongoferry" status --json 2>/dev/null || true; } | "$fixture" json-field --default 0 "$@"
}

# operations URI: insert, update, delete and command, of all since the server started.
operations() {
  "$fixture" opcounters --uri "$1" |
    "$fixture" json-field .opcounters.insert .opcounters.update .opcounters.delete .opcounters.command | tr '\n' ' '
}
