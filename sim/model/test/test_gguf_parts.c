// SPDX-License-Identifier: Apache-2.0
// Judges the joining of split GGUF files: a model cut into parts as gguf-split cuts one, opened by
// each of them, and parts that are missing, mixed up or lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/model/test/model_files.h"
#include "sim/model/gguf.h"

enum { N_PARTS = 3 };

static const struct kv_shape tiny = {2, 4, 2, 8, 32, 64, N_TINY_PIECES, 16};

struct fixture {
    char dir[64];
    char path[N_PARTS][96], whole[96];
    struct kv_model *model;
};

// What the header of a part says; count 0: leaves the pairs out.
struct part {
    uint32_t no, count, tensors;
};

static void put_tensors(struct kv_text *t, const struct kv_gguf *g, size_t no, size_t count) {
    uint64_t offset = 0;
    for (size_t i = no; i < g->n_entries; i += count) {
        const struct kv_gguf_tensor *one = &g->entries[i];
        put_string(t, one->name);
        put_number(t, one->rows > 1 ? 2 : 1, 4);
        put_number(t, one->cols, 8);
        if (one->rows > 1) put_number(t, one->rows, 8);
        put_number(t, 0, 4);
        put_number(t, offset, 8);
        offset += (one->rows * one->cols * 4 + 31) / 32 * 32;
    }
    for (size_t i = no; i < g->n_entries; i += count) {
        while (t->n % 32) kv_text_add(t, "", 1);
        kv_text_add(t, (const char *)g->entries[i].data,
                    g->entries[i].rows * g->entries[i].cols * 4);
    }
}

// Part `no` of the file of F32 tensors: every third of them in order of names, the first part with
// all metadata.
static void write_part(const struct fixture *f, size_t no, struct part says) {
    struct kv_gguf g = {.path = f->whole};
    struct kv_error e;
    struct kv_text t = {0};
    assert_int_equal(kv_gguf_open(&g, &e), 0);
    kv_text_add(&t, "GGUF", 4);
    put_number(&t, 3, 4);
    put_number(&t, (g.n_entries + N_PARTS - 1 - no) / N_PARTS, 8);
    put_number(&t, (no == 0 ? g.n_pairs : 0) + (says.count ? 3 : 0), 8);
    if (says.count) {
        // 16 bits wide, as gguf-split writes them.
        put_string(&t, "split.no");
        put_number(&t, KV_GGUF_U16, 4);
        put_number(&t, says.no, 2);
        put_string(&t, "split.count");
        put_number(&t, KV_GGUF_U16, 4);
        put_number(&t, says.count, 2);
        put_u32_pair(&t, "split.tensors.count", says.tensors);
    }
    if (no == 0) {
        // The pairs end where the first entry begins, with the length of its name.
        const char *entry = memmem(g.map.data, g.map.n, "token_embd.weight", 17);
        assert_non_null(entry);
        kv_text_add(&t, (const char *)g.map.data + 24,
                    (size_t)(entry - 8 - (const char *)g.map.data) - 24);
    }
    put_tensors(&t, &g, no, N_PARTS);
    assert_int_equal(kv_write_file(f->path[no], t.s, t.n, &e), 0);
    kv_gguf_close(&g);
    free(t.s);
}

static uint32_t n_tensors(const struct fixture *f) {
    return (uint32_t)count_file_tensors(f->model);
}

static void write_parts(const struct fixture *f) {
    for (uint32_t i = 0; i < N_PARTS; i++)
        write_part(f, i, (struct part){i, N_PARTS, n_tensors(f)});
}

static int set_up(void **state) {
    struct fixture *f = kv_alloc(1, sizeof *f);
    struct kv_text t = {0};
    struct kv_error e;
    char dir[] = "/tmp/kvsim-parts-XXXXXX"; // apart from f, of which it becomes a part
    if (!mkdtemp(dir)) return -1;
    snprintf(f->dir, sizeof f->dir, "%s", dir);
    snprintf(f->whole, sizeof f->whole, "%s/m.gguf", dir);
    for (int i = 0; i < N_PARTS; i++)
        snprintf(f->path[i], sizeof f->path[i], "%s/m-%05d-of-%05d.gguf", dir, i + 1, N_PARTS);
    f->model = kv_model_random(&tiny, KV_ORDER_GGML, false, 7);
    build_gguf(&t, f->model, &gguf_f32);
    int rc = kv_write_file(f->whole, t.s, t.n, &e);
    free(t.s);
    *state = f;
    return rc;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < N_PARTS; i++) unlink(f->path[i]);
    unlink(f->whole);
    int rc = rmdir(f->dir);
    kv_model_close(f->model);
    free(f);
    return rc;
}

static void refuses(const char *path, const char *where, const char *message) {
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(kv_model_open(&m, path, KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_null(m);
    assert_string_equal(e.msg, message);
    assert_string_equal(e.where, where);
}

// ---- tests ----------------------------------------------------------------------------

static void a_split_model_opens_by_any_of_its_parts(void **state) {
    struct fixture *f = *state;
    char digest[17] = "";
    write_parts(f);
    for (int i = 0; i < N_PARTS; i++) {
        struct kv_model *m;
        struct kv_error e;
        if (kv_model_open(&m, f->path[i], KV_WEIGHTS_F32, &e)) fail_msg("%s: %s", e.where, e.msg);
        assert_string_equal(m->name, "tiny");
        assert_memory_equal(m->embed.f32, f->model->embed.f32, 32 * N_TINY_PIECES * 4);
        assert_memory_equal(m->head.f32, f->model->head.f32, 32 * N_TINY_PIECES * 4);
        assert_memory_equal(m->final_norm, f->model->final_norm, 32 * 4);
        for (int l = 0; l < 2; l++) {
            const struct kv_layer_weights *a = &m->layers[l], *b = &f->model->layers[l];
            assert_memory_equal(a->qkv.f32, b->qkv.f32, (32 + 2 * 16) * 32 * 4);
            assert_memory_equal(a->out.f32, b->out.f32, 32 * 32 * 4);
            assert_memory_equal(a->gateup.f32, b->gateup.f32, 2 * 64 * 32 * 4);
            assert_memory_equal(a->down.f32, b->down.f32, 64 * 32 * 4);
            assert_memory_equal(a->attn_norm, b->attn_norm, 32 * 4);
        }
        if (i > 0) assert_string_equal(m->digest, digest); // one model, one name
        strcpy(digest, m->digest);
        kv_model_close(m);
    }
}

static void the_part_that_is_missing_is_named(void **state) {
    struct fixture *f = *state;
    for (int gone = 0; gone < N_PARTS; gone++) {
        char message[96];
        write_parts(f);
        unlink(f->path[gone]);
        snprintf(message, sizeof message,
                 "part %d of 3 of the model is missing or cannot be opened", gone + 1);
        refuses(f->path[(gone + 1) % N_PARTS], f->path[gone], message);
    }
}

static void a_part_of_another_name_cannot_find_the_others(void **state) {
    struct fixture *f = *state;
    char other[96];
    write_parts(f);
    snprintf(other, sizeof other, "%s/other.gguf", f->dir);
    assert_int_equal(rename(f->path[1], other), 0);
    refuses(other, other,
            "this is part 2 of 3 of a split model, but is not named NAME-00002-of-00003.gguf, so "
            "that the others cannot be found");
    unlink(other);
}

static void parts_that_are_mixed_up_or_lie_are_refused(void **state) {
    struct fixture *f = *state;
    write_parts(f);
    write_part(f, 2, (struct part){1, N_PARTS, n_tensors(f)});
    refuses(f->path[0], f->path[2], "this says that it is part 2 of 3, not 3 of 3");
    write_part(f, 2, (struct part){2, 4, n_tensors(f)});
    refuses(f->path[1], f->path[2], "this says that it is part 3 of 4, not 3 of 3");
    write_part(f, 2, (struct part){0}); // a model of its own
    refuses(f->path[0], f->path[2], "this says that it is part 1 of 1, not 3 of 3");
    write_part(f, 2, (struct part){3, N_PARTS, n_tensors(f)});
    refuses(f->path[2], f->path[2], "split.no is 3 of 3 parts; the first is 0");
    write_parts(f);
    write_part(f, 0, (struct part){1, N_PARTS, n_tensors(f)});
    refuses(f->path[1], f->path[0], "this says that it is part 2 of 3, not 1 of 3");
    write_part(f, 0, (struct part){0, N_PARTS, 22});
    refuses(f->path[2], f->path[0], "the parts hold 21 tensors, but 22 are announced");
    // Part 3 with the tensors of part 2.
    write_part(f, 0, (struct part){0, N_PARTS, n_tensors(f)});
    memcpy(f->path[1], f->path[2], sizeof f->path[1]);
    write_part(f, 1, (struct part){2, N_PARTS, n_tensors(f)});
    snprintf(f->path[1], sizeof f->path[1], "%s/m-00002-of-00003.gguf", f->dir);
    struct kv_model *m;
    struct kv_error e;
    assert_int_equal(kv_model_open(&m, f->path[0], KV_WEIGHTS_F32, &e), KV_EFAIL);
    assert_string_equal(e.msg, "tensor blk.0.attn_norm.weight is named twice"); // in either part
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_model_opens_by_any_of_its_parts),
        cmocka_unit_test(the_part_that_is_missing_is_named),
        cmocka_unit_test(a_part_of_another_name_cannot_find_the_others),
        cmocka_unit_test(parts_that_are_mixed_up_or_lie_are_refused),
    };
    return cmocka_run_group_tests_name("gguf_parts", tests, set_up, tear_down);
}
