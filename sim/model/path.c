// SPDX-License-Identifier: Apache-2.0
// Finds the model file.
#include "sim/model/path.h"
#include "sim/base/memory.h"

#include <glob.h>
#include <stdlib.h>

char *kv_model_path(const char *given) {
    glob_t found = {0};
    if (!given) given = getenv("KVSIM_MODEL");
    if (!given && glob("data/*.gguf", 0, NULL, &found) == 0 && found.gl_pathc == 1)
        given = found.gl_pathv[0];
    char *path = given ? kv_strdup(given) : NULL;
    globfree(&found);
    return path;
}
