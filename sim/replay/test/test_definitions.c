// SPDX-License-Identifier: Apache-2.0
// Definitions that have changed are told apart from what they were: features of an older recording,
// tables of an older arithmetic; and formats of whole tensors replayed in every mode.
#include <setjmp.h>

#include "sim/replay/answers.h"
#include "sim/replay/fisher.h"
#include "sim/replay/test/tiny_trace.h"
#include "sim/base/files.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

enum { ITEMS = 3 };

static struct tiny_trace tiny;
static struct kv_model *model;

static int set_up(void **state) {
    (void)state;
    return tiny_trace_open(&tiny, KV_KEEP_ALL, ITEMS, &model);
}

static int tear_down(void **state) {
    (void)state;
    kv_model_close(model);
    tiny_trace_close(&tiny);
    return 0;
}

// Opens what a spec needs of a trace; the sentence of the refusal, "" where there is none.
static const char *asked_of(const struct kv_trace *t, const char *text, struct kv_error *e) {
    struct kv_replay_spec spec = tiny_spec(&tiny, text);
    struct kv_replay r = {.trace = t, .specs = &spec, .n_specs = 1, .n_items = ITEMS};
    *e = (struct kv_error){0};
    int rc = kv_replay_open_tables(&r, KV_TABLE_ISO, 1, e);
    kv_replay_close_tables(&r);
    kv_replay_spec_close(&spec);
    return rc ? e->msg : "";
}

// The manifest of a recording made when V was the vocabulary: its rule of rarity was put otherwise.
static void policies_that_read_rarity_are_refused_on_an_older_recording(void **state) {
    static const char now[] = "-log((c + 1) / (N + V + 1)), running counts over the file's "
                              "contexts, V the distinct tokens seen",
                      then[] = "running counts over the file's contexts";
    char *path = kv_format_text("%s/manifest.json", tiny.dir), *text, *at;
    struct kv_text older = {0};
    struct kv_error e = {0};
    struct kv_trace *t;
    size_t n;
    (void)state;
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    at = strstr(text, now);
    assert_non_null(at);
    kv_text_addf(&older, "%.*s%s%s", (int)(at - text), text, then, at + strlen(now));
    char *seal = strstr(older.s, ",\n \"manifest_xxh64\""); // which older recordings do not have
    assert_non_null(seal);
    strcpy(seal, "\n}\n");
    older.n = strlen(older.s);
    assert_int_equal(kv_write_file(path, older.s, older.n, &e), 0);
    assert_int_equal(kv_trace_open(&t, tiny.dir, &e), 0);
    assert_non_null(
        strstr(asked_of(t, "threshold:feature=rarity@sym", &e), "rarity by another rule"));
    assert_non_null(
        strstr(asked_of(t, "shuffle(threshold:feature=mean)@sym", &e), "rarity by another rule"));
    assert_string_equal(asked_of(t, "threshold:feature=entropy@sym", &e), "");
    assert_string_equal(asked_of(tiny.trace, "threshold:feature=rarity@sym", &e), "");
    assert_true(strcmp(kv_trace_info(t)->digest, kv_trace_info(tiny.trace)->digest) != 0);
    kv_trace_close(t);
    assert_int_equal(kv_write_file(path, text, n, &e), 0);
    free(older.s);
    free(text);
    free(path);
}

// What the name of a kept table spells out.
static bool table_says(const char *what) {
    char *folder = kv_format_text("%s/tables", tiny.dir);
    bool found = false;
    DIR *d = opendir(folder);
    for (struct dirent *f; d && (f = readdir(d));) {
        struct kv_error e;
        char *path = kv_format_text("%s/%s", folder, f->d_name), *text;
        size_t n;
        if (strstr(f->d_name, ".safetensors") && kv_read_file(path, &text, &n, &e) == 0) {
            found |= memmem(text, n < 2000 ? n : 2000, what, strlen(what)) != NULL;
            free(text);
        }
        free(path);
    }
    if (d) closedir(d);
    free(folder);
    return found;
}

static void kept_tables_name_the_revision_of_the_arithmetic(void **state) {
    static const char *const specs[] = {"static:bits=4@hqq", "static:bits=4@hadamard(hqq)",
                                        "static:bits=4@sym"};
    struct kv_error e = {0};
    struct kv_cell_table *t;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct kv_replay_spec spec = tiny_spec(&tiny, specs[i]);
        assert_int_equal(kv_cell_table_open(&t, tiny.trace, spec.format, KV_TABLE_ISO, 1, &e), 0);
        kv_cell_table_close(t);
        kv_replay_spec_close(&spec);
    }
    assert_true(table_says("hqq:group=head,order=hf,sinks=0,steps=20,window=0 hqq#1"));
    assert_true(table_says("order=hf,sides=both,sinks=0,window=0 hqq#1"));
    assert_true(table_says("sym:"));
    assert_false(table_says("sym#"));
}

static void replay(const char *text, enum kv_mode mode, struct tiny_result out[ITEMS]) {
    struct kv_error e = {0};
    struct kv_replay_spec spec = tiny_spec(&tiny, text);
    struct kv_replay r = {.trace = tiny.trace,
                          .model = model,
                          .specs = &spec,
                          .n_specs = 1,
                          .mode = mode,
                          .seed = 1,
                          .n_items = ITEMS,
                          .quiet = true,
                          .take = tiny_keep,
                          .self = out};
    if (kv_replay_exact(&r, 1, &e)) fail_msg("%s: %s: %s", text, e.where, e.msg);
    kv_replay_spec_close(&spec);
}

// A tensor's 16-bit cells are what 16 bits are everywhere; at 2 bits something is lost in each
// mode.
static void formats_of_whole_tensors_replay_in_every_mode(void **state) {
    static const char *const formats[] = {"hqq", "zipcache", "hadamard(hqq)"};
    (void)state;
    for (size_t f = 0; f < 3; f++)
        for (int mode = 0; mode < KV_N_MODES; mode++) {
            struct tiny_result half[ITEMS], two[ITEMS], plain[ITEMS];
            char text[64];
            snprintf(text, sizeof text, "static:bits=16@%s", formats[f]);
            replay(text, (enum kv_mode)mode, half);
            replay("static:bits=16@sym", (enum kv_mode)mode, plain);
            snprintf(text, sizeof text, "static:bits=2@%s", formats[f]);
            replay(text, (enum kv_mode)mode, two);
            for (size_t i = 0; i < ITEMS; i++) {
                // Requantized, passes are cut at the format's window: equal but for rounding.
                double slack = mode == KV_REQUANT ? 1e-6 : 0;
                assert_true(fabs(half[i].kl_nats - plain[i].kl_nats) <= slack);
                assert_true(half[i].ledger.allocated_bits == 16);
                assert_true(isfinite(two[i].kl_nats) && two[i].kl_nats > half[i].kl_nats);
            }
        }
}

// zipcache's ledger by hand, of the tiny model's 2 layers, 2 KV heads and 32 channels: a prompt of
// n tokens, of which int(0.4 n) a head have 2 bits, and a choice of m tokens that stay exact.
static void zipcache_s_ledger_counts_its_sets_and_the_exact_choice(void **state) {
    struct tiny_result got[ITEMS];
    (void)state;
    replay("zipcache@zipcache", KV_PREFILL, got);
    for (size_t i = 0; i < ITEMS; i++) {
        const struct kv_trace_item *it = kv_trace_item(tiny.trace, i);
        double n = it->n_context, narrow = floor(0.4 * n), code = 0, meta = 0, d = 32, heads = 2;
        double wide = n - narrow;
        for (uint32_t c = 0; c < it->n_choices; c++) {
            double m = it->first[c + 1] - it->first[c],
                   values = (n + m) * 2 * 2 * heads * d * it->n_choices;
            code += 2 * 2 * heads * d * (2 * narrow + 4 * wide + 16 * m) / values;
            meta += 2 * (2 * heads * d * 32 + heads * d * 16 + 32 * n) / values;
        }
        assert_true(fabs(got[i].ledger.nominal_bits - code) < 1e-9);
        assert_true(fabs(got[i].ledger.effective_bits - code - meta) < 1e-9);
    }
}

static void fisher_replay_does_not_answer_for_tokens_that_gather(void **state) {
    struct kv_replay_spec zip = tiny_spec(&tiny, "static:bits=4@zipcache"),
                          hqq = tiny_spec(&tiny, "static:bits=4@hqq");
    struct kv_error e = {0};
    (void)state;
    const struct kv_trace_info *in = kv_trace_info(tiny.trace);
    assert_int_equal(kv_fisher_answers(in, &zip, KV_INLINE, false, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "open groups of tokens"));
    assert_int_equal(kv_fisher_answers(in, &hqq, KV_INLINE, false, &e), 0);
    kv_replay_spec_close(&zip);
    kv_replay_spec_close(&hqq);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_that_read_rarity_are_refused_on_an_older_recording),
        cmocka_unit_test(kept_tables_name_the_revision_of_the_arithmetic),
        cmocka_unit_test(formats_of_whole_tensors_replay_in_every_mode),
        cmocka_unit_test(zipcache_s_ledger_counts_its_sets_and_the_exact_choice),
        cmocka_unit_test(fisher_replay_does_not_answer_for_tokens_that_gather),
    };
    return cmocka_run_group_tests_name("definitions", tests, set_up, tear_down);
}
