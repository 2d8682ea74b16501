# pg_custody. The two commands for a newcomer are `make demo` and `make test`; `make && make install` for who only installs.

VERSION   := 0.2.0
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)
PROFILE   := extension
TARGET    := $(CURDIR)/target
LIBRARY   := $(TARGET)/$(PROFILE)/libpg_custody.so
SCRIPT    := $(TARGET)/pg_custody--$(VERSION).sql
# A private copy of the PostgreSQL installation, with pg_custody in it: demo and tests touch nothing of the system's.
STAGE     := $(shell tools/where $(TARGET))
STAGED    := $(STAGE)/.staged
SABOTAGED := $(TARGET)/sabotage/release/libpg_custody.so
# Older versions can still be installed, and upgraded from.
RELEASED  := $(filter-out %--$(VERSION).sql,$(wildcard sql/released/*.sql))
UPGRADES  := $(patsubst sql/upgrade/%,$(TARGET)/%,$(wildcard sql/upgrade/*.sql))
SOURCES   := $(shell find src crates/core/src -name '*.rs') Cargo.toml Cargo.lock crates/core/Cargo.toml

.DELETE_ON_ERROR:
.PHONY: all install put uninstall demo psql stop test test-core test-checker test-fuzz test-db test-drivers fuzz torture probe-django bench mutants lint fmt stage clean help

all: $(LIBRARY) $(SCRIPT) $(UPGRADES) ## build the library and the install script

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# What building needs; says what it installs, and does nothing if all is there.
.deps:
	@tools/prerequisites "$(PG_CONFIG)"

.PHONY: .deps

$(LIBRARY): $(SOURCES) | .deps
	@echo "==> building the library for $$($(PG_CONFIG) --version) (the first time takes a few minutes)"
	PGRX_PG_CONFIG_PATH=$(PG_CONFIG) cargo build --profile $(PROFILE) --package pg_custody
	@touch $@

$(SABOTAGED): $(SOURCES) | .deps
	@echo "==> building the sabotaged library, which the tests must see through"
	PGRX_PG_CONFIG_PATH=$(PG_CONFIG) cargo build --release --package pg_custody --features sabotage --target-dir $(TARGET)/sabotage
	@touch $@

$(SCRIPT): $(wildcard sql/install/*.sql) Makefile
	@mkdir -p $(TARGET)
	@{ printf '%s\n' '\echo Use "CREATE EXTENSION pg_custody" to load this file. \quit'; cat $(sort $(filter %.sql,$^)); } > $@

# From the release before to this version; a line `--@ FILE` in it stands for sql/install/FILE.
$(UPGRADES): $(TARGET)/%: sql/upgrade/% $(wildcard sql/install/*.sql) Makefile
	@mkdir -p $(TARGET)
	@awk 'BEGIN { print "\\echo Use \"ALTER EXTENSION pg_custody UPDATE\" to load this file. \\quit" } \
	  /^--@ / { file = "sql/install/" $$2; found = 0; while ((getline line < file) > 0) { print line; found = 1 } \
	            if (!found) { print "no " file > "/dev/stderr"; exit 1 }; close(file); next } { print }' $< > $@

# Not a rule that builds: it may run as root, who often has no cargo.
install: put ## install what `make` built into the PostgreSQL that PG_CONFIG names

put:
	@test -f $(LIBRARY) -a -f $(SCRIPT) || { echo "nothing is built yet: run make first" >&2; exit 1; }
	install -d "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"
	install -m 755 $(LIBRARY) "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/pg_custody.so"
	install -m 644 pg_custody.control $(SCRIPT) $(UPGRADES) $(RELEASED) "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"

uninstall: ## take it out again
	rm -f "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/pg_custody.so" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"pg_custody{.control,--*.sql}

stage: $(STAGED) ## a private PostgreSQL under target/stage with pg_custody in it
$(STAGED): $(LIBRARY) $(SCRIPT) $(UPGRADES) $(RELEASED) pg_custody.control tools/stage
	@tools/stage "$(PG_CONFIG)" "$(STAGE)"
	@$(MAKE) --no-print-directory -s put PG_CONFIG="$$(cat $(STAGE)/pg_config)"
	@touch $@

tool: | .deps ## the tool `custody`, as target/release/custody
	cargo build --release --package custody-cli

.PHONY: tool

demo: $(STAGED) ## the whole story, on a private cluster
	@cargo build --release --quiet --package custody-demo
	@$(TARGET)/release/custody-demo run --stage $(STAGE) $(if $(DATA),--data $(DATA))

psql: ## open psql on the demo's database
	@$(TARGET)/release/custody-demo psql --stage $(STAGE)

stop: ## stop the demo's cluster
	@$(TARGET)/release/custody-demo stop --stage $(STAGE)

test: test-core test-checker test-fuzz test-db ## everything: pure core, independent checker, in the database and over the wire

test-core: | .deps ## the pure core, in seconds
	cargo test --package custody-core --package custody-cli

test-checker: | .deps ## the independent checker, in Python
	tools/python -m unittest discover --start-directory tests/checker

test-fuzz: | .deps ## every fuzz target for a few seconds
	@tools/fuzz 4

SECONDS := 60
fuzz: | .deps ## every fuzz target for SECONDS=60 each; TARGETS="export token" for some
	@tools/fuzz $(SECONDS) $(TARGETS)

test-db: $(STAGED) $(SABOTAGED) ## in the database and over the wire, on private clusters
	@tools/cron "$(PG_CONFIG)" "$(STAGE)"
	cargo build --release --package custody-demo --package custody-cli
	CUSTODY_STAGE=$(STAGE) CUSTODY_SABOTAGED=$(SABOTAGED) CUSTODY_PYTHON=$(CURDIR)/tools/python \
	  cargo test --release --package custody-tests -- --test-threads=2

test-drivers: $(STAGED) ## PgBouncer and the drivers of docs/connecting.md by themselves, the hammer for SECONDS (60)
	CUSTODY_STAGE=$(STAGE) CUSTODY_POOL_SECONDS=$(SECONDS) \
	  cargo test --release --package custody-tests --test pooler --test drivers -- --test-threads=2 --nocapture

# ONLY=tpcb,bulk picks sections, ROUNDS and DURATION (seconds of a pgbench step) overrule what each asks for.
bench: $(STAGED) ## speed, side by side with unaudited tables and other audits: a quarter of an hour (docs/performance.md)
	@tools/rivals "$(PG_CONFIG)" "$(STAGE)"
	@cargo build --release --quiet --package custody-bench
	@$(TARGET)/release/custody-bench --stage $(STAGE) --out $(TARGET)/bench $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(DURATION),--duration $(DURATION))

mutants: $(STAGED) ## injected leaks: what coverage(), pgrls and splinter find of them, into docs/mutants.md; ONLY=own for one directory
	@cargo build --release --quiet --package custody-tests --bin custody-mutants
	@CUSTODY_STAGE=$(STAGE) $(TARGET)/release/custody-mutants $(ONLY)

probe-django: $(STAGED) ## custody.probe on the schema of a Django application (django-oscar), which is installed for it
	CUSTODY_STAGE=$(STAGE) CUSTODY_DJANGO=$(CURDIR)/tools/django cargo test --release --package custody-tests --test probe -- --exact few_attempts_are_undecided_on_a_django_applications_schema --nocapture

MINUTES ?= 5
torture: $(STAGED) ## the storm for MINUTES (5): everything at once, crashes included; CUSTODY_SEED=n repeats its choices
	CUSTODY_STAGE=$(STAGE) CUSTODY_TORTURE_SECONDS=$$(( $(MINUTES) * 60 )) \
	  cargo test --release --package custody-tests --test storm -- --exact whatever_happens_the_tables_are_what_the_log_says --nocapture

lint: $(SCRIPT) | .deps ## format and clippy, warnings denied; released scripts as they were
	@tools/frozen $(SCRIPT) $(VERSION)
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	PGRX_PG_CONFIG_PATH=$(PG_CONFIG) cargo clippy --workspace --all-targets --release -- -D warnings

fmt:
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

clean: ## remove what was built
	cargo clean
