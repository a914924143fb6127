// SPDX-License-Identifier: Apache-2.0
// Draws how a controller learned.
#include "reports/draw/train.h"

#include <stdlib.h>

#include "reports/draw/gnuplot.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"

// A file's name without folders and ending, fit for gnuplot. Caller frees.
static char *name_of(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    char *name = kv_format_text("%.*s", (int)(dot ? dot - base : (long)strlen(base)), base);
    char *clean = kv_gnuplot_text(name);
    free(name);
    return clean;
}

static char *data_of(const struct kv_train_result *r) {
    struct kv_text t = {0};
    kv_text_addf(&t, "epoch\ttrain_loss\tvalid_loss\tvalid_accuracy\n");
    for (size_t i = 0; i < r->n_epochs; i++)
        kv_text_addf(&t, "%zu\t%.6f\t%.6f\t%.4f\n", i + 1, r->epochs[i].train_loss,
                     r->epochs[i].valid_loss, 100 * r->epochs[i].valid_accuracy);
    return kv_text_take(&t);
}

int kv_train_draw(const struct kv_controller *c, const char *dir, struct kv_error *e) {
    const struct kv_train_result *r = &c->result;
    char *name = name_of(c->path), *tsv = data_of(r);
    char *settings = kv_format_text(
        "best = %zu\n"
        "title_text = 'Learning curve of %s'\n"
        "subtitle_text = '%zu tokens to learn from, %zu to validate; taken at epoch %zu, %.2f bits "
        "in the mean'\n",
        r->best_epoch + 1, name, r->n[KV_TRAIN_LEARNS], r->n[KV_TRAIN_VALIDATES], r->best_epoch + 1,
        c->mean_bits);
    struct kv_gnuplot g = {.name = "train",
                           .file = name,
                           .dir = dir,
                           .canvas_x = 760,
                           .canvas_y = 540,
                           .settings = settings,
                           .data = tsv};
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = kv_gnuplot_draw(&g, e);
    if (rc == 0) kv_say("drawn: %s/%s.svg", dir, name);
    free(tsv);
    free(settings);
    free(name);
    return rc;
}
