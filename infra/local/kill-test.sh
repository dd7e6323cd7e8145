#!/usr/bin/env bash
# Kills a copy with SIGKILL at random moments, again and again, lets it finish, and checks the result in every respect.
#
#   kill-test.sh [DOCUMENTS [KILLS]]    1000000 documents and 15 kills unless said otherwise
#
# SEED=N repeats the draws of an earlier run (the moments follow the pace of the copy as well).
# MONGOFERRY_MONGOD names one's own server. MONGOFERRY_KEEP=1 keeps the temporary folder with logs and state.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

documents="${1:-1000000}"
kills="${2:-15}"
case "$documents:$kills" in
  *[!0-9:]* | :* | *: | 0:*)
    printf 'usage: %s [DOCUMENTS [KILLS]]\n' "${0##*/}" >&2
    exit 2
    ;;
esac

build
begin kill-test
mongod="$("$here/install.sh" mongod)"
forget_settings
seed="${SEED:-$((RANDOM * 32768 + RANDOM))}"
start_mongod source
source_uri="$uri"
start_mongod target
target_uri="$uri"
# Only now: looking for ports draws numbers too.
RANDOM="$seed"
export MONGOFERRY_SOURCE="$source_uri" MONGOFERRY_TARGET="$target_uri" MONGOFERRY_STATE="$work/state"
mkdir "$work/empty"
cd "$work/empty"

heading "$documents documents of 300 bytes, two secondary indexes"
"$fixture" load-generated --uri "$source_uri" --db gen --collection events --count "$documents" --indexes 2 2>&1 | indent

heading 'An undisturbed copy into other names, to know how long one takes'
began="$(now)"
"$mongoferry" step all --job undisturbed --rename gen:pace --checkpoint-uri none >"$work/pace.log" 2>&1 || {
  tail -n 5 "$work/pace.log" | indent
  fail "the undisturbed run ended with exit code $?"
}
duration_ms=$((($(now) - began) / 1000000))
say "it took $duration_ms ms"

heading "step all, killed $kills times (SEED=$seed)"
export MONGOFERRY_JOB=killed
# The default first, then shorter and longer ones.
intervals=('' 50ms 200ms 1s)
printf '   %4s  %9s  %9s  %12s  %12s  %11s\n' run 'after ms' interval written 'read again' status
done_before=0
replayed_before=0
worst=0
hits=0
for ((run = 1; run <= kills; run++)); do
  interval="${intervals[$((run % ${#intervals[@]}))]}"
  # Spread over what is left to copy, so that the job is not done before the last kill; the constant part is for a run's
  # own beginning, so that kills fall before, into and after it.
  left_ms=$((done_before < documents ? duration_ms * (documents - done_before) / documents : 0))
  pause=$((50 + (RANDOM * 32768 + RANDOM) % (2 * left_ms / (kills - run + 2) + 300)))
  "$mongoferry" step all ${interval:+--save-interval "$interval"} >"$work/run$run.log" 2>&1 </dev/null &
  runner=$!
  sleep "$((pause / 1000)).$(printf '%03d' $((pause % 1000)))"
  kill -9 "$runner" 2>/dev/null || true
  code=0
  wait "$runner" 2>/dev/null || code=$?
  runner=''
  case "$code" in
    137) hits=$((hits + 1)) ;;
    0) ;;
    *)
      tail -n 5 "$work/run$run.log" | indent
      fail "run $run ended by itself with exit code $code"
      ;;
  esac
  mapfile -t seen < <(status_of .documents.written .documents.replayed .status)
  [ "${seen[0]}" -ge "$done_before" ] || fail "documents.written went back from $done_before to ${seen[0]}"
  again=$((seen[1] - replayed_before))
  [ "$again" -ge 0 ] || fail "documents.replayed went back from $replayed_before to ${seen[1]}"
  if [ "$again" -gt "$worst" ]; then worst="$again"; fi
  printf '   %4d  %9d  %9s  %12d  %12d  %11s\n' "$run" "$pause" "${interval:-default}" "${seen[0]}" "$again" "${seen[2]}"
  done_before="${seen[0]}"
  replayed_before="${seen[1]}"
  if [ "$code" -eq 0 ]; then
    say "it was done before the other kills"
    break
  fi
done
"$mongoferry" step all >"$work/last.log" 2>&1 || {
  code=$?
  tail -n 5 "$work/last.log" | indent
  fail "the last run ended with exit code $code"
}
mapfile -t seen < <(status_of .documents.written .documents.replayed .status)
again=$((seen[1] - replayed_before))
if [ "$again" -gt "$worst" ]; then worst="$again"; fi
printf '   %4s  %9s  %9s  %12d  %12d  %11s\n' last - default "${seen[0]}" "$again" "${seen[2]}"
[ "${seen[2]}" = done ] || fail "the job's status should be done, it is ${seen[2]}"
[ "$kills" -eq 0 ] || [ "$hits" -gt 0 ] || fail "no kill hit a running copy; take more documents"
say "$hits of $kills kills hit a running copy; read again after a kill: ${seen[1]} documents in all, at most $worst in one run"
# What was in flight (20 MiB by default, of documents of 300 bytes and more), and what is sent in the longest save interval, 1 s. The copy alone is faster
# than the whole job, whose time includes the indexes: three times is allowed.
bound=$((70000 + 3 * documents * 1000 / duration_ms))
[ "$worst" -le "$bound" ] || fail "$worst documents were read again in one run, more than $bound: what was in flight and one save interval"
say "that is within what was in flight and one save interval: $bound documents"

# compare_as RENAMES…: source and target, in what the job copied.
compare_as() {
  "$fixture" compare --source "$source_uri" --target "$target_uri" --only-db gen "$@" >"$work/compared" || {
    indent <"$work/compared"
    fail 'source and target differ'
  }
  indent <"$work/compared"
}

heading 'Content, options and indexes'
compare_as

heading 'step all once more on the finished job'
read -r -a before <<<"$(operations "$target_uri")"
began="$(now)"
"$mongoferry" step all >"$work/again.log" 2>&1 || {
  code=$?
  tail -n 5 "$work/again.log" | indent
  fail "it ended with exit code $code"
}
took_ms=$((($(now) - began) / 1000000))
read -r -a after <<<"$(operations "$target_uri")"
writes=0
for index in 0 1 2; do writes=$((writes + after[index] - before[index])); done
say "target: insert +$((after[0] - before[0])), update +$((after[1] - before[1])), delete +$((after[2] - before[2])), command +$((after[3] - before[3])) (those of the count itself included); $took_ms ms"
[ "$writes" -eq 0 ] || fail "a finished job wrote $writes times to the target"
[ "$took_ms" -lt 2000 ] || fail "it took $took_ms ms, more than 2000"

heading 'The same through single steps, each run with --time-budget 5s'
export MONGOFERRY_JOB=second
printf '   %-9s %5s  %12s  %s\n' step runs 'longest, ms' 'exit codes'
for step in discover plan prepare copy index verify commit; do
  runs=0
  longest=0
  codes=''
  while :; do
    runs=$((runs + 1))
    [ "$runs" -le 500 ] || fail "step $step does not come to an end"
    began="$(now)"
    code=0
    "$mongoferry" step "$step" --time-budget 5s --rename gen:gen2 >"$work/$step.log" 2>&1 </dev/null || code=$?
    took_ms=$((($(now) - began) / 1000000))
    if [ "$took_ms" -gt "$longest" ]; then longest="$took_ms"; fi
    codes="$codes $code"
    [ "$took_ms" -le 7000 ] || fail "a run of step $step took $took_ms ms, more than 7000"
    [ "$code" -eq 75 ] || break
  done
  printf '   %-9s %5d  %12d %s\n' "$step" "$runs" "$longest" "$codes"
  [ "$code" -eq 0 ] || {
    tail -n 5 "$work/$step.log" | indent
    fail "step $step ended with exit code $code"
  }
done
compare_as --rename gen:gen2

printf '\n%sAll of it held.%s\n' "$bold" "$plain"
