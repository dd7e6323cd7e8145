# One profile and one feature set everywhere, so that nothing is built twice.
CARGO = cargo
FEATURES = --features crash-points
SHELL = bash

.DEFAULT_GOAL := help
.PHONY: help build check test aws-test demo demo-minio kill-test limit-test many-test bench bench-quick bench-profile bench-filter bench-chunks clean cargo

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing; install Rust from https://rustup.rs and run make again" >&2; exit 1; }

# With a test beside the binaries, cargo builds the dependencies with the features that tests want of them, as `make test` does:
# without, all of them would be built twice.
build: cargo ## build the binaries, for development
	$(CARGO) build $(FEATURES) --bins --test benchmark

check: cargo ## format, lints, and the tests of pure logic: under a minute when warm
	$(CARGO) fmt --check
	$(CARGO) clippy $(FEATURES) --all-targets -- -D warnings
	$(CARGO) test $(FEATURES) --lib --test protocol --test benchmark

# MinIO and moto take the longest to install, so that begins first and goes on beside cargo's build.
test: cargo ## all tests, on real servers, which are installed when they are missing
	@set -euo pipefail; \
	infra/local/install.sh minio >/dev/null & minio=$$!; \
	infra/local/install.sh moto >/dev/null & moto=$$!; \
	{ infra/local/install.sh linters && infra/local/install.sh asl-validator; } >/dev/null & linters=$$!; \
	trap 'kill $$minio $$moto $$linters 2>/dev/null || true' EXIT; \
	infra/local/install.sh mongod >/dev/null; \
	$(CARGO) test $(FEATURES) --no-run; \
	wait $$minio; \
	wait $$moto; \
	wait $$linters; \
	trap - EXIT; \
	$(CARGO) test $(FEATURES)

aws-test: cargo ## build the function, deploy it to an AWS on this machine, copy two shards through it: a quarter of an hour
	@infra/aws/aws-test.sh

demo: cargo ## copy real data between two real servers, be killed on the way, go on, show the result
	@infra/local/demo.sh folder

demo-minio: cargo ## the same with the state in a real MinIO
	@infra/local/demo.sh minio

kill-test: cargo ## copy 1,000,000 documents, killed at 15 random moments, and check everything
	@infra/local/kill-test.sh

limit-test: cargo ## measure for 30 seconds that a rate limit holds, with one worker and with three
	MONGOFERRY_LONG_TESTS=1 $(CARGO) test $(FEATURES) --test integration a_rate_holds -- --nocapture --test-threads 1

many-test: cargo ## 10,000 collections with 3 indexes each: time, memory, and the size of what is stored: a quarter of an hour
	@infra/local/install.sh mongod >/dev/null
	$(CARGO) test $(FEATURES) --test integration ten_thousand_collections -- --ignored --nocapture

bench: cargo ## measure full copies beside what the target can insert at most and beside other tools: up to an hour
	@infra/local/install.sh mongod >/dev/null
	$(CARGO) bench --bench full_copy

bench-quick: cargo ## the same with a tenth of the documents, once: a few minutes
	@infra/local/install.sh mongod >/dev/null
	BENCH_SCALE=0.1 BENCH_ROUNDS=1 $(CARGO) bench --bench full_copy

bench-profile: cargo ## where mongoferry's CPU time goes on one set (SET=B): needs perf
	@infra/local/bench-profile.sh "$(SET)"

bench-filter: cargo ## what the orphan filter costs a document, with up to a million chunks: a few minutes
	$(CARGO) bench --bench orphan_filter

bench-chunks: cargo ## what a million chunks cost each step: a few minutes
	@infra/local/install.sh mongod >/dev/null
	$(CARGO) bench --bench chunk_map

clean: ## remove what was built; installed servers stay in ~/.cache/mongoferry
	rm -rf target
