# gradd. `make demo` and `make test` work on a Debian 12 with nothing but git and make: they install what
# they lack through apt, and say so. The rest: all, lint, format, docs, bench, soak, test-fleet,
# test-torch, test-proxies, test-container, build-hash, deps, clean.
#
#   BUILD=dir      builds elsewhere
#   SAN=list       builds with sanitizers: address,undefined or thread
#   SUITES=list    of `make test`: some of unit api server e2e fuzz docs python javascript
#   FUZZ_SECONDS=n that each fuzzer of `make fuzz` runs: 30; FUZZ_SEED=n: from this seed
#   SOAK_SECONDS=n that `make soak` runs: 1800; SOAK_SEED=n: from this seed
#   V=1            shows whole commands

BUILD ?= build
SAN ?=
MAKEFLAGS += --no-builtin-rules
CC = gcc

# Under a sanitizer, clang does not vectorise each loop that core/ops/elementwise.h tells it to.
WARN = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror $(if $(SAN),-Wno-pass-failed)
HARDEN = -fstack-protector-strong -fstack-clash-protection -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=3)
SANITIZED = $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
SANITIZE = $(SANITIZED)
OPT = $(if $(SAN),-O1 -g1 -fno-omit-frame-pointer $(SANITIZE),-O3 -g) -ffp-contract=off -fno-math-errno -fno-trapping-math
CPPFLAGS = -D_GNU_SOURCE -MMD -MP
CFLAGS = -std=c11 $(OPT) $(HARDEN) $(WARN)
# Of what is compiled more than once: see core/real.h.
DOUBLE = -DNN_REAL_IS_DOUBLE
AVX2 = -DNN_AVX2 -mavx2
# So that objects have the same bytes wherever the checkout lies.
HERE = -ffile-prefix-map=$(CURDIR)=.
LDFLAGS = $(SANITIZE) -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code -pthread
CORE_LIBS = -lopenblas -lm
API_LIBS = -ljansson -lxxhash -lnettle $(CORE_LIBS)
# Not where a sanitizer brings an allocator of its own: see server/allocator.c.
ALLOCATOR = $(if $(SAN),,-ljemalloc)
SERVER_LIBS = -lmicrohttpd -lgnutls $(API_LIBS) $(ALLOCATOR)

# Debian's packages. `make NEED=true` leaves installing to you.
NEED = .ci/need
BUILD_NEEDS = gcc libc6-dev libmicrohttpd-dev libgnutls28-dev libjansson-dev libxxhash-dev nettle-dev libopenblas-dev libjemalloc-dev
CURL_NEEDS = libcurl4-openssl-dev
TEST_NEEDS = $(CURL_NEEDS) libcmocka-dev curl openssl $(if $(filter e2e docs,$(SUITES)),python3) $(if $(PYTHON_TESTS),python3-venv) \
    $(if $(filter javascript,$(SUITES)),$(if $(shell command -v node),,nodejs))
FUZZ_NEEDS = clang libclang-rt-14-dev
LINT_NEEDS = clang clang-tidy clang-format cppcheck shellcheck

# --- what is built of what -------------------------------------------------------------------------

# Compiled once for float and once for double, and what has loops of its own on x86 for AVX2 too: see
# core/real.h.
LOOPS = core/kernels.c $(wildcard core/ops/*.c core/optimizers/*.c)
TYPED = core/blas.c core/blas_check.c $(LOOPS)
PLAIN = $(filter-out $(TYPED),$(wildcard core/*.c))
X86 = $(findstring x86_64,$(shell $(CC) -dumpmachine))
CORE_OBJ = $(PLAIN:%.c=$(BUILD)/%.o) $(TYPED:%.c=$(BUILD)/%.f32.o) $(TYPED:%.c=$(BUILD)/%.f64.o) \
    $(if $(X86),$(LOOPS:%.c=$(BUILD)/%.avx2.f32.o) $(LOOPS:%.c=$(BUILD)/%.avx2.f64.o))
objects = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))
programs = $(patsubst %.c,$(BUILD)/%,$(wildcard $(1)))
API_OBJ = $(call objects,api/*.c api/*/*.c) $(BUILD)/api/build_hash.o
SERVER_OBJ = $(call objects,server/*.c server/*/*.c)
SUPPORT_OBJ = $(call objects,tests/support/*.c)
SUPPORT = $(BUILD)/libsupport.a

# A test program is one file of one of these folders; what it uses of the support code is linked to it.
# Those of tests/golden are no tests: they help to make the golden values.
UNIT = $(call programs,tests/unit/*.c tests/api/*.c tests/golden/*.c)
SERVER_TESTS = $(call programs,tests/server/*.c)
E2E = $(call programs,tests/e2e/*.c)
BENCH = $(call programs,bench/*.c)
BENCH_SUPPORT = $(call objects,bench/support/*.c)
EXAMPLES = $(call programs,examples/*.c)
# Under libFuzzer's instrumentation that is their main; otherwise they replay what it found: see `fuzz`.
FUZZERS = $(call programs,tests/fuzz/*.c)
FUZZING = $(findstring fuzzer,$(SAN))
FUZZED_OBJ = $(addprefix $(BUILD)/,server/http/head.o server/http/target.o $(addprefix server/store/,frame.o journal.o \
    journal_files.o journal_read.o) $(addprefix tests/fuzz/support/,grammar.o service.o store.o history.o \
    $(if $(FUZZING),,replay.o)))
OBJECTS = $(CORE_OBJ) $(API_OBJ) $(SERVER_OBJ) \
    $(call objects,tests/*/*.c tests/*/*/*.c bench/*.c bench/*/*.c examples/*.c docs/*.c docker/*.c)

all: $(BUILD)/gradd
objects: $(OBJECTS)

compile = @mkdir -p $(@D); $(if $(V),set -x,echo $(CC) $@); $(CC) $(CPPFLAGS) $(1) $(CFLAGS) $(HERE) -c -o $@ $<
link = @$(if $(V),set -x,echo $(CC) $@); $(CC) $(LDFLAGS) -o $@ $^ $(1)

$(BUILD)/%.f32.o: %.c
	$(call compile)
$(BUILD)/%.f64.o: %.c
	$(call compile,$(DOUBLE))
$(BUILD)/%.avx2.f32.o: %.c
	$(call compile,$(AVX2))
$(BUILD)/%.avx2.f64.o: %.c
	$(call compile,$(AVX2) $(DOUBLE))
$(BUILD)/%.o: %.c
	$(call compile)
# A start's trials of the BLAS have one thread, and watched they would take nearly all of a start.
$(BUILD)/core/blas_check.%.o: SANITIZE = $(if $(filter thread,$(SAN)),,$(SANITIZED))

# The build as the fingerprint of stored changes has it (api/fingerprint.c): the sources of core/ and api/, how they are
# compiled, and what the compiler makes of that on this machine (of -march=native, say). No folder is in it.
BUILT = $(sort $(wildcard $(foreach at,core core/* api api/*,$(at)/*.[ch] $(at)/*.def)))
BUILT_HOW = $(strip $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(DOUBLE) $(AVX2))
built_how = { printf '%s\n' '$(subst ','\'',$(BUILT_HOW))' && $(CC) $(CFLAGS) -dM -E -x c /dev/null; }
built_of = printf '%s\n' '$(strip $(CORE_OBJ:$(BUILD)/%=%))'
build_hash = { $(built_how) && $(built_of) && sha256sum $(BUILT); } | sha256sum | cut -c -16
# Written where it has changed: so it is looked at each time, and what depends on it is seldom compiled anew.
write_new = >$@.new && if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

build-hash:
	@$(build_hash)
$(BUILD)/api/build_hash.c: always
	@mkdir -p $(@D) && printf 'extern const char %s[];\nconst char %s[] = "%s";\n' api_build_hash api_build_hash \
	    "$$($(build_hash))" $(write_new)
$(BUILD)/api/build_hash.o: $(BUILD)/api/build_hash.c
	$(call compile)
# Nor are objects of other flags left among those that it is the hash of.
$(BUILD)/api/built_how: always
	@mkdir -p $(@D) && $(built_how) $(write_new)
$(CORE_OBJ) $(API_OBJ): $(BUILD)/api/built_how
# A file more or less makes the libraries anew, but not the other objects.
$(BUILD)/api/built_of: always
	@mkdir -p $(@D) && $(built_of) $(write_new)

LIBRARIES = $(BUILD)/libapi.a $(BUILD)/libcore.a
$(BUILD)/libcore.a: $(CORE_OBJ)
$(BUILD)/libapi.a: $(API_OBJ)
$(LIBRARIES): $(BUILD)/api/built_of
$(SUPPORT): $(SUPPORT_OBJ)
%.a:
	@rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(BUILD)/gradd: $(SERVER_OBJ) $(LIBRARIES)
	$(call link,$(SERVER_LIBS))
$(UNIT): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT) $(LIBRARIES)
	$(call link,$(TEST_LDFLAGS) -lcmocka $(API_LIBS))
$(SERVER_TESTS): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT) $(filter-out %/main.o,$(SERVER_OBJ)) $(LIBRARIES)
	$(call link,-lcmocka $(SERVER_LIBS))
$(E2E): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT) $(LIBRARIES)
	$(call link,-lcmocka -lcurl $(API_LIBS))
$(BENCH): $(BUILD)/%: $(BUILD)/%.o $(BENCH_SUPPORT) $(BUILD)/server/pool.o $(BUILD)/server/allocator.o $(LIBRARIES)
	$(call link,$(SERVER_LIBS))
$(FUZZERS): $(BUILD)/%: $(BUILD)/%.o $(FUZZED_OBJ) $(LIBRARIES)
	$(call link,$(if $(FUZZING),-fsanitize=fuzzer) $(API_LIBS))
$(BUILD)/tests/fuzz/support/dictionary: %: %.o $(LIBRARIES)
	$(call link,$(API_LIBS))
$(BUILD)/dictionary: $(BUILD)/tests/fuzz/support/dictionary
	$< >$@
$(EXAMPLES): $(BUILD)/%: $(BUILD)/%.o
	$(call link,-lcurl -ljansson)
$(BUILD)/docs/ops: $(BUILD)/docs/ops.o $(LIBRARIES)
	$(call link,$(API_LIBS))
$(BUILD)/docker/healthcheck: $(BUILD)/docker/healthcheck.o
	$(call link)

# --- running it ------------------------------------------------------------------------------------

# Targets that install first build in a second make, on all cores unless told otherwise.
MAKE_ALL = +@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
export BUILD
export GRADD = $(BUILD)/gradd

deps:
	@$(NEED) $(BUILD_NEEDS) $(TEST_NEEDS)

demo:
	@$(NEED) $(BUILD_NEEDS) $(CURL_NEEDS)
	$(MAKE_ALL) $(BUILD)/gradd $(BUILD)/examples/digits
	@$(BUILD)/examples/digits

SUITES ?= unit api server e2e fuzz docs python javascript
# These count allocations, with one thread, through a malloc of their own, which TSan has too; or they crash a store
# that has no threads, or damage its files, for minutes.
UNTHREADED = $(if $(filter thread,$(SAN)),%/tests/api/allocations %/tests/api/leaks %/tests/api/peak \
    %/tests/api/budget \
    %/tests/server/crash %/tests/server/crash_faults %/tests/server/crash_damage %/tests/server/crash_memory \
    %/tests/server/journal_damage)
PROGRAM_TESTS = $(filter-out $(UNTHREADED),$(filter $(foreach s,$(SUITES),$(BUILD)/tests/$(s)/%),$(UNIT) $(SERVER_TESTS) $(E2E) $(FUZZERS)))
SCRIPT_TESTS = $(foreach s,$(filter e2e docs javascript,$(SUITES)),$(shell find tests/$(s) -maxdepth 1 \
    -type f -executable 2>/dev/null))
ALL_TESTS = $(PYTHON_TESTS) $(SCRIPT_TESTS) $(PROGRAM_TESTS)
# These begin first, so that none of them is left for the end, alone.
LONGEST = %/server/crash_faults %/server/crash %/server/journal_damage %/e2e/data %/e2e/kill %/e2e/hostile \
    %/python/examples.py %/javascript/client
PYTHON_TESTS = $(if $(filter python,$(SUITES)),$(wildcard tests/python/*.py))

test:
	@$(NEED) $(BUILD_NEEDS) $(TEST_NEEDS)
	$(MAKE_ALL) $(BUILD)/gradd $(EXAMPLES) $(PROGRAM_TESTS) $(if $(PYTHON_TESTS),$(BUILD)/venv/ready)
	@tests/run $(filter $(LONGEST),$(ALL_TESTS)) $(filter-out $(LONGEST),$(ALL_TESTS))

# The packages that tests/python compares with.
$(BUILD)/venv/ready:
	python3 -m venv $(@D) && $(@D)/bin/pip install --quiet numpy safetensors && touch $@

# Looks for inputs that break what reads bytes, with libFuzzer and sanitizers.
fuzz:
	@$(NEED) $(BUILD_NEEDS) $(FUZZ_NEEDS)
	$(MAKE_ALL) CC=clang SAN=fuzzer-no-link,address,undefined BUILD=$(BUILD)/fuzz fuzzers
	@BUILD=$(BUILD)/fuzz tests/fuzz/run $(FUZZERS:$(BUILD)/%=$(BUILD)/fuzz/%)
fuzzers: $(FUZZERS) $(BUILD)/dictionary

# Everything at once, on a daemon that is killed and started again.
export SOAK_SECONDS ?= 1800
soak:
	@$(NEED) $(BUILD_NEEDS) python3
	$(MAKE_ALL) $(BUILD)/gradd
	@TEST_PYTHON=python3 TEST_TIMEOUT=$$(($(SOAK_SECONDS) + 900)) tests/run tests/soak/soak.py

# The examples in Python in full, on Fashion-MNIST.
test-fleet:
	@$(NEED) $(BUILD_NEEDS) python3-venv dataset-fashion-mnist
	$(MAKE_ALL) $(BUILD)/gradd $(BUILD)/venv/ready
	@tests/run tests/fleet/full.py

# The layer of PyTorch that is a remote model. Apart, for the size of what it installs.
test-torch:
	@$(NEED) $(BUILD_NEEDS) python3-venv
	$(MAKE_ALL) $(BUILD)/gradd $(BUILD)/venv-torch/ready
	@TEST_PYTHON=$(BUILD)/venv-torch/bin/python tests/run tests/torch/*.py

$(BUILD)/venv-torch/ready:
	python3 -m venv $(@D) && $(@D)/bin/pip install --quiet torch==2.13.0 numpy && touch $@

# Proxies in front, as examples/proxies sets them up. Apart, for packages that start servers.
test-proxies:
	@$(NEED) $(BUILD_NEEDS) python3-venv openssl nginx-light haproxy caddy
	$(MAKE_ALL) $(BUILD)/gradd $(BUILD)/venv/ready
	@tests/run tests/proxies/check.py

test-container:
	@$(NEED) $(BUILD_NEEDS) $(CURL_NEEDS) curl podman buildah runc debootstrap
	$(MAKE_ALL) $(filter %/digits,$(EXAMPLES))
	@tests/container/build gradd
	@tests/run tests/container/check

# QUICK=1 takes under two minutes, the whole about ten. OPTIONS=... are those of bench/run.
bench:
	@$(NEED) $(BUILD_NEEDS) python3-venv
	$(MAKE_ALL) $(BUILD)/gradd $(BENCH) $(BUILD)/venv-torch/peers
	@$(BUILD)/venv-torch/bin/python bench/run $(if $(QUICK),--quick) $(OPTIONS)

# What the benchmark measures against, and draws with.
$(BUILD)/venv-torch/peers: $(BUILD)/venv-torch/ready
	$(@D)/bin/pip install --quiet fastapi uvicorn uvloop httptools matplotlib safetensors && touch $@

# --- keeping it in shape ---------------------------------------------------------------------------

C_FILES = $(shell find core api server tests bench clients examples docs docker -name '*.[ch]' 2>/dev/null)
SCRIPTS = $(shell grep -rslIE '^\#! */(usr/)?bin/(env )?(ba)?sh' .ci tests bench docs docker)

docs: $(BUILD)/docs/ops
	$< > docs/ops.md
format:
	clang-format -i $(C_FILES)

lint:
	@$(NEED) $(BUILD_NEEDS) $(TEST_NEEDS) $(LINT_NEEDS)
	$(MAKE_ALL) --keep-going lint-arrows lint-operators lint-words lint-format lint-docs lint-cppcheck \
	    lint-shell lint-clang lint-tidy objects
	@echo lint: clean

lint-arrows: $(LIBRARIES) $(SERVER_OBJ)
	@tests/lint/arrows $(BUILD)
	@tests/lint/planted $(BUILD)
lint-operators:
	@tests/lint/operators
lint-words:
	@tests/lint/words $(C_FILES)
lint-format:
	@clang-format --dry-run -Werror $(C_FILES)
lint-docs: $(BUILD)/docs/ops
	@$< | diff docs/ops.md - || { echo 'docs/ops.md is not what the tables say: make docs'; false; }
# Suppressed: that a loop's body may never run, so that every sum may be log's 0; that a search key is not
# a whole object; that a test which ends at a failed realloc leaks; that NULL might be an int.
lint-cppcheck:
	@cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --suppress=invalidFunctionArg --suppress=ctuuninitvar --suppress='memleakOnRealloc:tests/*' \
	    --suppress=varFuncNullUB \
	    --library=tests/lint/jansson.cfg --inline-suppr -D_GNU_SOURCE $(filter %.c,$(C_FILES))
lint-shell:
	@shellcheck $(SCRIPTS)
# For its warnings alone, which do not depend on the optimizer.
lint-clang:
	$(MAKE_ALL) CC=clang BUILD=$(BUILD)/clang OPT=-O0 HARDEN=-fPIE objects

# One stamp an object: what includes a changed header is looked at again. Double adds nothing to float, nor
# does AVX2.
lint-tidy: $(patsubst %.o,%.tidy,$(filter-out %.f64.o %.avx2.f32.o %/build_hash.o,$(OBJECTS)))
tidied = $(patsubst %.f32,%,$*).c
$(BUILD)/%.tidy: $(BUILD)/%.o .clang-tidy tests/.clang-tidy tests/lint/analyzer.h
	@echo clang-tidy $(tidied)
	@clang-tidy --quiet $(tidied) -- -D_GNU_SOURCE -std=c11 \
	    $(if $(filter-out core/error.c,$(tidied)),-include tests/lint/analyzer.h) 2>$@.log || \
	    { cat $@.log >&2; false; }
	@touch $@

clean:
	rm -rf $(BUILD)

-include $(OBJECTS:.o=.d)
.PHONY: all objects always build-hash deps demo test fuzz fuzzers soak test-fleet test-torch test-proxies test-container bench \
    docs format clean lint lint-arrows lint-operators lint-words lint-format lint-docs lint-cppcheck lint-shell \
    lint-clang lint-tidy
.SECONDARY:
