// SPDX-License-Identifier: Apache-2.0
// Mixes and run files: ours both ways, llama-bench's three kinds, plain CSV, and bad ones.
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/cost/runs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const char *const path = "build/test_runs_file";

static struct kv_runs *opened(const char *text) {
    struct kv_runs *r;
    struct kv_error e;
    assert_int_equal(kv_make_dir("build", &e), 0);
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    if (kv_runs_open(&r, path, &e)) fail_msg("%s: %s", e.where, e.msg);
    remove(path);
    return r;
}

static void assert_near(double x, double want) {
    if (!(fabs(x - want) <= 1e-9 * fabs(want) + 1e-12)) fail_msg("%.12g, expected %.12g", x, want);
}

static void a_mix_reads_back_as_it_is_spelt(void **state) {
    (void)state;
    static const struct {
        const char *text, *spelt;
        double bits;
    } cases[] = {{"8", "8", 8},
                 {"k8v4", "k8v4", 6},
                 {"k4v4", "4", 4},
                 {"32", "32", 32},
                 {"2/16", "2=0.5/16=0.5", 9},
                 {"k4v2=0.5/8", "k4v2=0.5/8=0.5", 5.5},
                 {"2=0.25/4=0.25/8=0.25/16=0.25", "2=0.25/4=0.25/8=0.25/16=0.25", 7.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_mix m, back;
        struct kv_error e;
        char text[160];
        assert_int_equal(kv_mix_parse(&m, cases[i].text, &e), 0);
        kv_mix_text(&m, text, sizeof text);
        assert_string_equal(text, cases[i].spelt);
        assert_int_equal(kv_mix_parse(&back, text, &e), 0);
        assert_near(kv_mix_bits(&back), cases[i].bits);
    }
    // 3 of 4 tokens: K at 4, V at 2 with a scale each a vector of 64; the rest fp16
    struct kv_mix m;
    struct kv_error e;
    double share[2][KV_WIDTH_BINS];
    assert_int_equal(kv_mix_parse(&m, "k4v2=0.75/16", &e), 0);
    kv_mix_shares(&m, share);
    assert_near(share[KV_KEY][4], 0.75);
    assert_near(share[KV_VALUE][2], 0.75);
    assert_near(share[KV_VALUE][16], 0.25);
    assert_near(kv_mix_allocated_bits(&m, 64), 0.75 * (3 + 0.25) + 0.25 * 16);
}

static void nonsense_is_no_mix(void **state) {
    (void)state;
    static const char *const bad[] = {"",    "0",   "17",    "k8",        "k8v",
                                      "8=",  "8=2", "4=0.5", "4=0.5/8=1", "4=-1/8",
                                      "8,4", "8/",  "v4k8",  "+8",        "8=0.5/4=0.4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kv_mix m;
        struct kv_error e;
        if (kv_mix_parse(&m, bad[i], &e) != KV_EUSAGE) fail_msg("'%s' was read", bad[i]);
    }
}

static void our_files_read_back_as_they_were_written(void **state) {
    (void)state;
    struct kv_error e;
    struct kv_runs *r = kv_runs_new();
    free(r->machine);
    r->machine = kv_strdup("a \"machine\", with commas");
    r->clock_mhz = 4200;
    r->bandwidth_bytes_per_ns = 41.5;
    for (uint32_t i = 0; i < 3; i++) {
        struct kv_device_run *x = kv_runs_add(r);
        assert_int_equal(kv_mix_parse(&x->mix, i ? "k8v4=0.5/2=0.5" : "16", &e), 0);
        x->context = 64u << i;
        x->threads = 2;
        x->shape = (struct kv_shape){30, 9, 3, 64, 576, 1536, 49152, 0};
        snprintf(x->shape_name, sizeof x->shape_name, "135m");
        snprintf(x->weights, sizeof x->weights, "q4");
        x->synthetic = true;
        x->step_ns = 3e6 + i;
        x->low_ns = 2.9e6;
        x->part_ns[KV_PART_ATTEND] = i == 2 ? NAN : 2e5;
        x->cache_bytes = 1e6;
        x->samples = 15;
    }
    for (int csv = 0; csv < 2; csv++) {
        char *text = csv ? kv_runs_csv(r) : kv_runs_json(r);
        struct kv_runs *back = opened(text);
        char *again = csv ? kv_runs_csv(back) : kv_runs_json(back);
        assert_string_equal(text, again);
        assert_string_equal(back->machine, r->machine);
        assert_near(back->bandwidth_bytes_per_ns, 41.5);
        assert_int_equal(back->n, 3);
        assert_int_equal(back->row[1].mix.n, 2);
        assert_int_equal(back->row[1].context, 128);
        assert_true(back->row[1].synthetic);
        assert_true(isnan(back->row[2].part_ns[KV_PART_ATTEND]));
        free(text);
        free(again);
        kv_runs_free(back);
    }
    kv_runs_free(r);
}

// Shaped like llama-bench's output: one prompt row, which says nothing of a step, and two others.
#define LLAMA_ROW(prompt, gen, depth, type, samples)                                               \
    "{\"build_commit\": \"abc\", \"cpu_info\": \"Some CPU\", \"backends\": \"CPU\", "              \
    "\"model_type\": \"llama 256M F16\", \"model_n_params\": 134515008, \"n_threads\": 2, "        \
    "\"type_k\": \"" type "\", \"type_v\": \"" type "\", \"flash_attn\": 1, \"n_prompt\": " prompt \
    ", \"n_gen\": " gen ", \"n_depth\": " depth ", \"avg_ns\": 300, \"avg_ts\": 80, "              \
    "\"stddev_ts\": 4, \"test_time\": \"2026-01-01T00:00:00Z\"" samples "}"

static void assert_llama(const struct kv_runs *r) {
    assert_int_equal(r->n, 2);
    assert_string_equal(r->machine, "Some CPU");
    assert_int_equal(r->row[0].mix.part[0].bits[0], 8);
    assert_int_equal(r->row[1].mix.part[0].bits[1], 16);
    assert_int_equal(r->row[0].context, 12); // 24 tokens from an empty cache see 12.5 on average
    assert_int_equal(r->row[1].context, 512 + 12);
    assert_string_equal(r->row[0].weights, "F16");
    assert_string_equal(r->row[0].shape_name, "135m");
    assert_int_equal(r->row[0].shape.n_layers, 30);
}

static void llama_bench_files_of_each_kind_are_read(void **state) {
    (void)state;
    struct kv_runs *r = opened("[" LLAMA_ROW("512", "0", "0", "f16", "") ",\n" LLAMA_ROW(
        "0", "24", "0", "q8_0",
        ", \"samples_ns\": [240, 264, 2400]") ",\n" LLAMA_ROW("0", "24", "512", "f16",
                                                              ", \"samples_ns\": [48, 24]") "]");
    assert_llama(r);
    assert_near(r->row[0].step_ns, 11); // the median of 10, 11 and 100
    assert_near(r->row[1].step_ns, 1.5);
    kv_runs_free(r);
    r = opened(
        LLAMA_ROW("0", "24", "0", "q8_0", "") "\n\n" LLAMA_ROW("0", "24", "512", "f16", "") "\n");
    assert_llama(r);
    assert_near(r->row[0].step_ns, 12.5); // 300 ns for 24 tokens
    kv_runs_free(r);
    r = opened("build_commit,cpu_info,backends,model_type,model_n_params,n_threads,type_k,type_v,"
               "flash_attn,n_prompt,n_gen,n_depth,avg_ts,stddev_ts,test_time\n"
               "\"abc\",\"Some CPU\",\"CPU\",\"llama 256M F16\",\"134515008\",\"2\",\"q8_0\","
               "\"q8_0\",\"1\",\"0\",\"24\",\"0\",\"80\",\"4\",\"2026-01-01\"\n"
               "\"abc\",\"Some CPU\",\"CPU\",\"llama 256M F16\",\"134515008\",\"2\",\"f16\","
               "\"f16\",\"1\",\"0\",\"24\",\"512\",\"50\",\"4\",\"2026-01-01\"\n");
    assert_llama(r);
    assert_near(r->row[1].step_ns, 2e7); // 50 tokens a second
    kv_runs_free(r);
}

static void a_plain_csv_needs_a_context_a_mix_and_a_time(void **state) {
    (void)state;
    struct kv_runs *r = opened("context,mix,step_ms,note\n64,8,1.5,\"a, b\"\n128,k8v4,2,\n");
    assert_int_equal(r->n, 2);
    assert_near(r->row[0].step_ns, 1.5e6);
    assert_int_equal(r->row[1].mix.part[0].bits[1], 4);
    kv_runs_free(r);
    r = opened("mix,tokens_per_s,context\n4,250,7\n");
    assert_near(r->row[0].step_ns, 4e6);
    kv_runs_free(r);
}

static void bad_files_are_refused_with_file_row_and_column(void **state) {
    (void)state;
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"", "holds no decode runs"},
        {"[]", "holds no decode runs"},
        {"[1]", "expected an object"},
        {"[{", "line 1"},
        {"{\"a\": 1,\n\"b\": 2}", "expected an array of runs"},
        {"context,mix,step_ms\n64,8\n", "row 1 holds 2 cells; the header names 3"},
        {"context,mix,step_ms\n64,x9,1\n", "is no mix of widths"},
        {"context,mix,step_ms\n64,8,fast\n", "expected a positive step_ns"},
        {"context,mix,step_ms\n64,8,-1\n", "expected a positive step_ns"},
        {"context,mix,step_ms,threads\n64,8,1,many\n", "column 'threads': 'many' is no number"},
        {"mix,step_ms\n8,1\n", "expected a context"},
        {"[" LLAMA_ROW("0", "24", "0", "q9_9", "") "]", "cache types 'q9_9' and 'q9_9'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_runs *r;
        struct kv_error e = {0};
        assert_int_equal(kv_write_file(path, cases[i].text, strlen(cases[i].text), &e), 0);
        assert_int_equal(kv_runs_open(&r, path, &e), KV_EFAIL);
        if (!strstr(e.msg, cases[i].said)) fail_msg("'%s' lacks '%s'", e.msg, cases[i].said);
        assert_true(strncmp(e.where, path, strlen(path)) == 0);
    }
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mix_reads_back_as_it_is_spelt),
        cmocka_unit_test(nonsense_is_no_mix),
        cmocka_unit_test(our_files_read_back_as_they_were_written),
        cmocka_unit_test(llama_bench_files_of_each_kind_are_read),
        cmocka_unit_test(a_plain_csv_needs_a_context_a_mix_and_a_time),
        cmocka_unit_test(bad_files_are_refused_with_file_row_and_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
