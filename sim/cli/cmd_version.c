// SPDX-License-Identifier: Apache-2.0
// kvsim version: which program this is, and on what it stands.
#include "sim/cli/options.h"
#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/files.h"
#include "sim/base/version.h"

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

static int version(struct kv_cli *c, struct kv_error *e) {
    (void)c;
    printf("kvsim %s (%s)\nCPU     %s, level %s\nOpenBLAS %s\n", KV_VERSION, KV_COMMIT,
           kv_cpu_model(), kv_cpu_level_name(kv_cpu_level()), kv_blas_config());
    return kv_flush_stdout(e);
}

const struct kv_command kv_cmd_version = {.name = "version",
                                          .summary = "prints version, commit, CPU level and BLAS",
                                          .usage = "",
                                          .example = "kvsim version",
                                          .run = version};
