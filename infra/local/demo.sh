#!/usr/bin/env bash
# Copies real data between two real servers on this machine, is killed in the middle, goes on, and shows the result.
#
#   demo.sh [folder|minio]    where the job keeps its state; a folder unless said otherwise
#
# MONGOFERRY_MONGOD and MONGOFERRY_MINIO name one's own servers. MONGOFERRY_KEEP=1 keeps the temporary folder.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

store="${1:-folder}"
case "$store" in
  folder | minio) ;;
  *)
    printf 'usage: %s [folder|minio]\n' "${0##*/}" >&2
    exit 2
    ;;
esac

printf '%sBuilding mongoferry.%s Everything after this takes less than three minutes.\n' "$bold" "$plain"
build
begin demo
began="$(now)"

heading 'Servers'
mongod="$("$here/install.sh" mongod)"
cities="$("$here/install.sh" cities)"
say "mongod: $mongod ($("$mongod" --version | sed -n 's/^db version //p'))"
if [ "$store" = minio ]; then
  minio="$("$here/install.sh" minio)"
  say "MinIO: $minio"
fi
forget_settings
start_mongod source
source_uri="$uri"
start_mongod target
target_uri="$uri"
export MONGOFERRY_SOURCE="$source_uri" MONGOFERRY_TARGET="$target_uri" MONGOFERRY_JOB=demo
if [ "$store" = minio ]; then
  start_minio demo
  export MONGOFERRY_STATE=s3://demo/jobs
else
  export MONGOFERRY_STATE="$work/state"
fi
# No mongoferry.toml of the working directory shall take part.
mkdir "$work/empty"
cd "$work/empty"

heading 'Data in the source'
{
  "$fixture" load-cities --uri "$source_uri" --db world --file "$cities"
  "$fixture" load-generated --uri "$source_uri" --db generated --collection events --count 200000 --bytes 300 --indexes 2
  "$fixture" load-small --uri "$source_uri" --db small
} 2>&1 | indent

heading 'The settings, all from the environment'
env | grep -E '^(MONGOFERRY_|AWS_(REGION|ACCESS_KEY_ID))' | sort | indent

heading 'mongoferry step all, killed with SIGKILL in the middle'
"$mongoferry" step all >"$work/first.out" 2>"$work/first.log" </dev/null &
runner=$!
killed_at=''
while kill -0 "$runner" 2>/dev/null; do
  mapfile -t seen < <(status_of .documents.written .documents.estimated_total)
  if [ "${seen[1]:-0}" -gt 0 ] && [ "${seen[0]}" -ge $((seen[1] / 3)) ]; then
    kill -9 "$runner" 2>/dev/null && killed_at="${seen[0]} of about ${seen[1]}"
    break
  fi
  sleep 0.02
done
code=0
wait "$runner" 2>/dev/null || code=$?
runner=''
tail -n 5 "$work/first.log" | indent
if [ "$code" -ne 137 ]; then
  fail "the first run should have been killed in the middle of the copy, but ended with exit code $code before that"
fi
say "killed when the state said: $killed_at documents written"

heading 'mongoferry status, with nobody at work'
"$mongoferry" status 2>&1 | indent
mapfile -t before < <(status_of .documents.read .documents.written .documents.replayed)

heading 'mongoferry step all once more: it goes on where the state says'
resumed="$(now)"
# On a terminal with the progress bar, elsewhere with plain lines.
"$mongoferry" step all || fail "the second run ended with exit code $?"
say "it took $(seconds_since "$resumed") s"

heading 'mongoferry status, at the end'
"$mongoferry" status 2>&1 | indent
mapfile -t after < <(status_of .documents.read .documents.written .documents.replayed .documents.estimated_total .status)
[ "${after[4]}" = done ] || fail "the job's status should be done, it is ${after[4]}"

heading 'The checkpoint in the target, from which MongoShake goes on'
checkpoint="$("$fixture" get-checkpoint --uri "$target_uri")"
[ -n "$checkpoint" ] || fail 'there is no checkpoint in mongoshake.ckpt_default of the target'
printf '%s\n' "$checkpoint" | indent

heading 'Source and target compared, byte by byte'
"$fixture" compare --source "$source_uri" --target "$target_uri" >"$work/compared" || {
  indent <"$work/compared"
  fail 'source and target differ'
}
indent <"$work/compared"

heading 'What was shown'
say "A job was killed with SIGKILL after ${before[1]} documents were known to be written, and run again:"
say "  written before the kill     ${before[1]}"
say "  written by the second run   $((after[1] - before[1]))"
say "  read once more after it     $((after[2] - before[2]))  (what was on its way when it was killed)"
say "Content, options and indexes of source and target are the same: $(sed 's/^equal: //' "$work/compared")."
say "The state lay in $([ "$store" = minio ] && printf 'MinIO' || printf 'a folder'). All of it took $(seconds_since "$began") s; servers and data are removed now."
