#!/usr/bin/env bash
# Where mongoferry's CPU time goes while it copies one of the benchmark's sets.
#
#   bench-profile.sh SET          A, B, C, D or E; docs/benchmarks.md says what they are
#
# BENCH_SCALE is 0.25 unless said otherwise. What it finds is kept as text in target/bench/profile-SET.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

set="${1:-}"
case "$set" in
  A | B | C | D | E) ;;
  *)
    printf 'which set? say for example: make bench-profile SET=B (A, B, C, D or E)\n' >&2
    exit 2
    ;;
esac
command -v perf >/dev/null || {
  printf 'perf is missing; install it (Debian: apt install linux-perf) and run this again\n' >&2
  exit 1
}
scratch="$(mktemp -d "${TMPDIR:-/tmp}/mongoferry-profile.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
perf record --quiet --output "$scratch/try" true >/dev/null 2>&1 || {
  printf 'perf may not record here; see /proc/sys/kernel/perf_event_paranoid, or run this as root\n' >&2
  exit 1
}

infra/local/install.sh mongod >/dev/null
BENCH_SETS="$set" BENCH_CONTESTANTS=mongoferry BENCH_ROUNDS=1 BENCH_SCALE="${BENCH_SCALE:-0.25}" \
  BENCH_RESULTS="$scratch" BENCH_PROFILE="$scratch/data" cargo bench --bench full_copy >"$scratch/figures"

mkdir -p target/bench
profile="target/bench/profile-$set.txt"
report() { perf report --input "$scratch/data" --stdio --no-children --no-inline "$@" 2>/dev/null | grep -v '^#' | grep -v '^ *$' | sed 's/ *-  *- *$//'; }
{
  grep -A 3 "^$set:" "$scratch/figures"
  printf '\nBy place\n'
  report --sort dso --call-graph none --percent-limit 0.5
  printf '\nBy function\n'
  report --sort symbol --call-graph none --percent-limit 0.5
  printf '\nBy function, with its callers\n'
  report --sort symbol --call-graph folded,0.5,callee --percent-limit 1 | cut -c 1-400
} >"$profile" || true
sed -n '1,/^By function, with its callers/p' "$profile" | head -n 60
printf 'all of it: %s\n' "$profile"
