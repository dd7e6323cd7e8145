#!/usr/bin/env bash
# Builds the function as a user does, deploys template.yaml to an AWS that runs on this machine (MiniStack, with policies
# enforced), copies a cluster of two shards through it (tests/integration/aws_deployed.rs), and deletes the stack.
#
# The release build of the function takes about ten minutes the first time. With MONGOFERRY_AWS_TEST_BINARY=FILE that
# binary is deployed instead, without a build: quick, for trying the rest (target/debug/mongoferry, for example).
set -euo pipefail
# shellcheck source=../local/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../local/common.sh"

stack=mongoferry-test
# What a cold start downloads.
most_bytes=$((8 * 1000 * 1000))
# Of an invocation, so that lanes yield; the template has 900.
seconds=12

begin aws-test
mongod="$("$here/install.sh" mongod)"
export MONGOFERRY_MONGOD="$mongod"
sam="$("$here/install.sh" sam)"
ministack="$("$here/install.sh" ministack)"
# cargo-lambda, and the Python in which it finds zig.
PATH="$(dirname "$sam"):$PATH"
export SAM_CLI_TELEMETRY=0

cd "$repository"
if [ -n "${MONGOFERRY_AWS_TEST_BINARY:-}" ]; then
  mkdir -p "$work/build/Function"
  cp -r statemachine "$work/build"
  sed 's/^\( *CodeUri:\) \.$/\1 Function/' template.yaml >"$work/build/template.yaml"
  cp "$MONGOFERRY_AWS_TEST_BINARY" "$work/build/Function/bootstrap"
  strip "$work/build/Function/bootstrap"
else
  heading 'sam build'
  "$sam" -m samcli build --build-dir "$work/build" 2>&1 | indent
  (cd "$work/build/Function" && "$sam" -m zipfile -c "$work/function.zip" bootstrap)
  size="$(stat -c %s "$work/function.zip")"
  say "the zip of the function has $size bytes"
  [ "$size" -le "$most_bytes" ] || fail "the zip of the function has $size bytes, more than $most_bytes"
fi

heading 'sam deploy'
port="$(free_port)"
mkdir -p "$work/ministack"
# What it runs as a function calls it by this URL.
export AWS_ENDPOINT_URL="http://127.0.0.1:$port"
BIND_HOST=127.0.0.1 GATEWAY_PORT="$port" AUTH=true SFN_WAIT_SCALE=0 TMPDIR="$work/ministack" \
  S3_DATA_DIR="$work/ministack/s3" "$ministack" -m ministack >"$work/ministack.log" 2>&1 </dev/null &
children+=($!)
started $! "$work/ministack.log" "$port"
# MiniStack's root account.
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
unset AWS_SESSION_TOKEN AWS_PROFILE
# A bucket of our own: the policy of one that is created refuses connections without TLS, which MiniStack has not, and is
# enforced.
"$ministack" infra/aws/account.py bucket "$stack-state"
sed -i "s/^\( *Timeout:\) 900\$/\1 $seconds/" "$work/build/template.yaml"
"$sam" -m samcli deploy --template-file "$work/build/template.yaml" --stack-name "$stack" --resolve-s3 \
  --capabilities CAPABILITY_IAM --no-confirm-changeset --no-progressbar \
  --parameter-overrides "StateBucketName=$stack-state" \
  'SecretArns=arn:aws:secretsmanager:us-east-1:000000000000:secret:mongoferry/*' \
  >"$work/deploy.log" 2>&1 || { tail -n 40 "$work/deploy.log" >&2; fail 'sam deploy failed'; }
"$ministack" infra/aws/account.py operator "$stack" infra/iam/operator.json >"$work/operator.json"
say 'deployed'

heading 'mongoferry start'
MONGOFERRY_AWS_TEST="$work/operator.json" cargo test --features crash-points --test integration aws_deployed:: -- \
  --ignored --nocapture --test-threads 1 ||
  { grep -v ' INFO ' "$work/ministack.log" | tail -n 40 >&2; fail 'the job did not go through'; }

heading 'sam delete'
"$sam" -m samcli delete --stack-name "$stack" --no-prompts 2>&1 | tail -n 3 | indent
say 'passed'
