# make run and make test do all the set-up on a Debian machine (root or sudo).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Where the Postgres servers of tests live: in memory, where 8 GiB of it are free, because ext4 takes its
# time to make files soon after others were deleted, as databases are by the hundred.
MEMORY := $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -ge 8388608 ] 2>/dev/null \
	&& awk '/^MemAvailable/ && $$2 >= 8388608 {print "/dev/shm"}' /proc/meminfo)
TEST_TMP := $(or $(MEMORY),$(TMPDIR),/tmp)
export FASTPUBSUB_TEST_DATA_DIR ?= $(TEST_TMP)/fastpubsub-test-$(shell id -u)
TEST_DATA := $(FASTPUBSUB_TEST_DATA_DIR)
# Root's Postgres runs as user postgres, who may not enter root's home.
RUN_DATA = $(or $(FASTPUBSUB_DATA_DIR),$(shell [ "$$(id -u)" = 0 ] && id postgres >/dev/null 2>&1 \
	&& ! su postgres -s /bin/sh -c 'cd "$(CURDIR)"' 2>/dev/null && echo /var/lib/fastpubsub || echo ./data))

# More tests at once than cores: many wait for a clock.
NEXTEST = TMPDIR=$(TEST_TMP) cargo nextest run --test-threads $$((3 * $$(nproc)))

# How long make torture goes on.
SECONDS ?= 600

.PHONY: help setup setup-tests setup-clients run build test test-full test-matrix test-clients test-doors mutations lint fmt bless psql bench torture

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 13

setup: ## Install what is missing: a C compiler, PostgreSQL, curl (through apt)
	@missing=(); \
	command -v cc >/dev/null || missing+=(build-essential); \
	command -v curl >/dev/null || missing+=(curl); \
	[ -n "$${FASTPUBSUB_PG_BIN:-}" ] || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
		|| command -v initdb >/dev/null || missing+=(postgresql); \
	command -v cargo >/dev/null || { apt-cache show rustup >/dev/null 2>&1 && missing+=(rustup); } || true; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$${missing[@]}"; \
	fi; \
	if ! command -v cargo >/dev/null; then \
		command -v rustup >/dev/null && rustup default stable \
			|| { echo "error: Rust 1.94 or newer is needed; see https://rustup.rs" >&2; exit 1; }; \
	fi

run: setup ## Build and serve on http://localhost:8000 over a private Postgres
	cargo build --release
	FASTPUBSUB_DATA_DIR=$(RUN_DATA) exec $${CARGO_TARGET_DIR:-target}/release/fastpubsub server

build: setup ## Build the release binary
	cargo build --release

# apart from setup: who only serves needs neither
setup-tests: setup
	@missing=(); \
	command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer); \
	ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing+=(faketime); \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$${missing[@]}"; \
	fi

# the suites of messages and of SQL once more on databases whose every default is against us, the first
# behind a pooler
test: setup-tests ## Run every test
	@trap '[ ! -f "$(TEST_DATA)/pg/postmaster.pid" ] || kill -INT "$$(head -1 "$(TEST_DATA)/pg/postmaster.pid")"' EXIT; \
	if cargo nextest --version >/dev/null 2>&1; then \
		$(NEXTEST); \
		FASTPUBSUB_TEST_HOSTILE=1 FASTPUBSUB_TEST_POOLER=transaction $(NEXTEST) --test it \
			-E 'test(/^(http::messages|sql)::/)'; \
	else \
		cargo test; \
		FASTPUBSUB_TEST_HOSTILE=1 FASTPUBSUB_TEST_POOLER=transaction cargo test --test it -- \
			http::messages:: sql::; \
	fi; \
	deploy/check.sh

test-full: setup-tests ## Run the models at length and what takes minutes: before a release
	@trap '[ ! -f "$(TEST_DATA)/pg/postmaster.pid" ] || kill -INT "$$(head -1 "$(TEST_DATA)/pg/postmaster.pid")"' EXIT; \
	export FASTPUBSUB_TEST_OPERATIONS=100000; \
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --run-ignored only; \
		cargo nextest run -E 'test(/model/)'; \
	else \
		cargo test -- --include-ignored model; \
		cargo test -- --ignored --skip model; \
	fi

mutations: setup-tests ## Break SQL functions one by one: some test must notice each: WORDS="lease"
	@trap '[ ! -f "$(TEST_DATA)/pg/postmaster.pid" ] || kill -INT "$$(head -1 "$(TEST_DATA)/pg/postmaster.pid")"' EXIT; \
	python3 -u tests/mutations/run.py $(WORDS)

test-matrix: setup-tests ## Run the tests on Postgres 14 to 18, or on some: make test-matrix MAJORS="14 18"
	tests/matrix.sh $(MAJORS)

# apart from setup: npm alone brings some hundred packages, which nobody needs who only serves
setup-clients: setup
	@missing=(); \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv); \
	command -v node >/dev/null || missing+=(nodejs); \
	command -v npm >/dev/null || missing+=(npm); \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$${missing[@]}"; \
	fi

test-clients: setup-clients ## Validate /openapi.json, use the clients made of it and ours, run the worker of the docs
	cargo build
	tests/clients/run.sh
	tests/clients/python.sh
	tests/clients/typescript.sh

# apart from setup, like setup-clients
setup-doors: setup-clients
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		echo "installing chromium"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium \
			|| echo "there is no chromium: the pages of docs/streaming.md and docs/pulsar.md will not be tested" >&2; \
	}

test-doors: setup-doors ## Use the published clients of the systems that doors stand in for, and those of the docs for streams
	cargo build
	tests/clients/doors.sh
	tests/clients/pulsar.sh

lint: setup ## Check format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt

bless: ## Rewrite the golden files from the code
	BLESS=1 cargo test golden

psql: ## Open a prompt on the private Postgres of make run
	psql -h "$$(realpath $(RUN_DATA))" -U postgres fastpubsub

bench: setup ## Measure against a plain INSERT and pgmq: 40 minutes, with FLAGS=--quick 8 (docs/benchmarks.md)
	@# both ends of 2,000 connections, each in its own process
	ulimit -S -n 8192 || true; cargo bench --bench throughput -- $(FLAGS)
	@# both ends of 5,000 WebSockets
	ulimit -S -n 16384 || true; cargo bench --bench fanout

torture: setup ## Prove under faults that nothing is lost: SECONDS=600 SEED=; see docs/reliability.md
	cargo bench $(if $(PROFILE),--profile $(PROFILE)) --bench torture -- --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
