// SPDX-License-Identifier: Apache-2.0
// Finds the model file.
#include "sim/model/path.h"
#include "sim/base/memory.h"

#include <glob.h>
#include <stdlib.h>

// The name of the file that `make model` fetches begins so: it stays the default when others of
// `make models` lie beside it.
#define USUAL "data/SmolLM2-135M-Instruct*.gguf"

char *kv_model_path(const char *given) {
    static const char *const patterns[] = {"data/*.gguf", USUAL};
    if (!given) given = getenv("KVSIM_MODEL");
    char *path = given ? kv_strdup(given) : NULL;
    for (size_t i = 0; i < 2 && !path; i++) {
        glob_t found = {0};
        if (glob(patterns[i], 0, NULL, &found) == 0 && found.gl_pathc == 1)
            path = kv_strdup(found.gl_pathv[0]);
        globfree(&found);
    }
    return path;
}
