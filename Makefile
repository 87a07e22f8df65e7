# gradd: `make demo`, `make test`; also all, lint, format, bench, docs, test-container, clean.
# BUILD=dir builds elsewhere; SAN=address,undefined (or thread) builds with sanitizers.

BUILD ?= build
SAN ?=
CC = gcc

WARN = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
HARDEN = -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
OPT = $(if $(SAN),-O1 -fno-omit-frame-pointer -fsanitize=$(SAN),-O3) -g -ffp-contract=off
CPPFLAGS = -D_GNU_SOURCE -MMD -MP
CFLAGS = -std=c11 $(OPT) $(HARDEN) $(WARN)
LDFLAGS = $(if $(SAN),-fsanitize=$(SAN)) -pie -Wl,-z,relro,-z,now -pthread
CORE_LIBS = -lopenblas -lm
API_LIBS = -ljansson $(CORE_LIBS)
SERVER_LIBS = -lmicrohttpd $(API_LIBS)

# --- what is built of what -------------------------------------------------------------------------

# Compiled once for float and once for double: see core/real.h.
TYPED = core/blas.c core/kernels.c $(wildcard core/ops/*.c core/optimizers/*.c)
PLAIN = $(filter-out $(TYPED),$(wildcard core/*.c))
CORE_OBJ = $(PLAIN:%.c=$(BUILD)/%.o) $(TYPED:%.c=$(BUILD)/%.f32.o) $(TYPED:%.c=$(BUILD)/%.f64.o)
API_OBJ = $(patsubst %.c,$(BUILD)/%.o,$(wildcard api/*.c api/handlers/*.c))
SERVER_OBJ = $(patsubst %.c,$(BUILD)/%.o,$(wildcard server/*.c))
SUPPORT_OBJ = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
UNIT = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*.c))
API_TESTS = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/api/*.c))
E2E = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/e2e/*.c))

all: $(BUILD)/gradd

$(BUILD)/libcore.a: $(CORE_OBJ)
$(BUILD)/libapi.a: $(API_OBJ)
%.a:
	rm -f $@ && ar rcs $@ $^

$(BUILD)/%.f32.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(BUILD)/%.f64.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -DNN_REAL_IS_DOUBLE $(CFLAGS) -c -o $@ $<
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/gradd: $(SERVER_OBJ) $(BUILD)/libapi.a $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS)

# A test is one file; support code is linked into all.
$(UNIT) $(API_TESTS): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT_OBJ) $(BUILD)/libapi.a $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) $(TEST_LDFLAGS) -o $@ $^ -lcmocka $(API_LIBS)
$(E2E): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT_OBJ) $(BUILD)/libapi.a $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka -lcurl $(API_LIBS)

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all clean
.SECONDARY:
