// SPDX-License-Identifier: Apache-2.0
// Mixes and run files: ours both ways, llama-bench's three kinds, plain CSV, and bad ones.
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/cost/runs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/cost/test/own_file.h"

static struct kv_runs *opened(const char *text) {
    struct kv_runs *r;
    struct kv_error e;
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    if (kv_runs_open(&r, path, &e)) fail_msg("%s: %s", e.where, e.msg);
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
                 {"q4_0", "q4_0", 4},
                 {"kf16viq4_nl", "k16viq4_nl", 10},
                 {"kq8_0vq4_0=0.5/16", "kq8_0vq4_0=0.5/16=0.5", 11},
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
    struct kv_ledger l;
    assert_int_equal(kv_mix_parse(&m, "k4v2=0.75/16", &e), 0);
    kv_mix_shares(&m, &l);
    assert_near(l.share[KV_KEY][4], 0.75);
    assert_near(l.share[KV_VALUE][2], 0.75);
    assert_near(l.share[KV_VALUE][16], 0.25);
    assert_near(kv_mix_allocated_bits(&m, 64), 0.75 * (3 + 0.25) + 0.25 * 16);
}

static void nonsense_is_no_mix(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",       "0",   "17", "k8",          "k8v",   "8=",   "8=2", "4=0.5",      "4=0.5/8=1",
        "4=-1/8", "8,4", "8/", "q4_0/iq4_nl", "q4_02", "v4k8", "+8",  "8=0.5/4=0.4"};
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
}

// A generation row of llama-bench with further fields, as its JSON has them.
#define GENERATION(model, further)                                                                 \
    "{\"model_type\": \"llama 256M " model "\", \"model_n_params\": 134515008, \"n_gen\": 16, "    \
    "\"n_prompt\": 0, \"type_k\": \"f16\", \"type_v\": \"f16\", \"avg_ts\": 50, " further "}"

static void issue_13_A2_runs_of_several_ways_are_refused_by_field_and_chosen(void **state) {
    (void)state;
    static const struct {
        const char *one, *other, *said, *where;
    } cases[] = {
        {"\"gpu_info\": \"GPU A\"", "\"gpu_info\": \"GPU B, GPU C\"",
         "gpu_info is 'GPU A' (1 run) or 'GPU B, GPU C' (2 runs)", "gpu_info=GPU B, GPU C"},
        {"\"n_gpu_layers\": 0", "\"n_gpu_layers\": 99", "n_gpu_layers is '0' (1 run) or '99'",
         "n_gpu_layers=99"},
        {"\"flash_attn\": false", "\"flash_attn\": true", "flash_attn is '0' (1 run) or '1'",
         "flash_attn=true"},
        {"\"build_commit\": \"a\"", "\"build_commit\": \"b\"", "build_commit is", "build_commit=b"},
        {"\"no_kv_offload\": 0", "\"no_kv_offload\": 1", "no_kv_offload is", "no_kv_offload=1"},
        {"\"n_batch\": 512", "\"n_batch\": 64", "n_batch is", "n_batch=64"},
        {"\"tensor_split\": \"0.00\"", "\"tensor_split\": \"1/1\"", "tensor_split is",
         "tensor_split=1/1"},
        {"\"something_new\": 1", "\"something_new\": 2", "something_new is", "something_new=2"},
        {"\"devices\": \"CUDA0\"", "\"poll\": 50", "devices is 'CUDA0' (1 run) or '' (2 runs)",
         "poll=50"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = kv_format_text("[" GENERATION("Q8_0", "%s") ", " GENERATION(
                                        "Q8_0", "%s") ", " GENERATION("Q8_0", "%s") "]",
                                    cases[i].one, cases[i].other, cases[i].other);
        struct kv_runs *r = opened(text);
        struct kv_error e;
        assert_int_equal(kv_runs_check_one_way(r, &e), KV_EFAIL);
        if (!strstr(e.msg, cases[i].said)) fail_msg("'%s' lacks '%s'", e.msg, cases[i].said);
        assert_non_null(strstr(e.msg, "--where '"));
        const char *const wrong[] = {"gpu_info=none of these"}, *const right[] = {cases[i].where};
        struct kv_runs_choice choice = {.threads = -1, .where = wrong, .n_where = 1};
        assert_int_equal(kv_runs_choose(r, &choice, &e), KV_EFAIL);
        choice.where = right;
        assert_int_equal(kv_runs_choose(r, &choice, &e), 0);
        assert_int_equal(r->n, 2);
        assert_int_equal(kv_runs_check_one_way(r, &e), 0);
        kv_runs_free(r);
        free(text);
    }
    // Our own rows and plain CSV too; notes and dates are no ways.
    struct kv_runs *r =
        opened("context,mix,step_ms,machine,note,date\n64,8,1,A,x,1\n64,4,1,B,y,2\n");
    struct kv_error e;
    assert_int_equal(kv_runs_check_one_way(r, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "machine is 'A' (1 run) or 'B' (1 run)"));
    assert_null(strstr(e.msg, "note"));
    kv_runs_free(r);
}

static void issue_13_A3_every_file_type_of_llama_cpp_keeps_its_name(void **state) {
    (void)state;
    static const struct {
        const char *told, *weights;
    } cases[] = {{"llama 1B Q4_K - Medium", "Q4_K_M"},
                 {"llama 1B Q4_K - Small", "Q4_K_S"},
                 {"llama 1B Q5_K - Medium", "Q5_K_M"},
                 {"llama 1B Q3_K - Large", "Q3_K_L"},
                 {"qwen2moe 57B.A14B Q2_K - Medium", "Q2_K"},
                 {"llama 1B Q2_K - Small", "Q2_K_S"},
                 {"llama ?B Q6_K", "Q6_K"},
                 {"llama 1B IQ4_XS - 4.25 bpw", "IQ4_XS"},
                 {"llama 1B IQ4_NL - 4.5 bpw", "IQ4_NL"},
                 {"llama 1B IQ2_XXS - 2.0625 bpw", "IQ2_XXS"},
                 {"llama 1B IQ3_S mix - 3.66 bpw", "IQ3_M"},
                 {"llama 1B TQ1_0 - 1.69 bpw ternary", "TQ1_0"},
                 {"gpt-oss 20B MXFP4 MoE", "MXFP4_MOE"},
                 {"llama 7B mostly Q4_K - Medium", "Q4_K_M"},
                 {"llama 7B mostly Q4_0", "Q4_0"},
                 {"llama 7B all F32", "F32"},
                 {"llama 7B all F32 (guessed)", "F32"},
                 {"llama 7B Q4_K - Medium (guessed)", "Q4_K_M"},
                 {"llama 7B BF16", "BF16"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = kv_format_text("[{\"model_type\": \"%s\", \"n_gen\": 16, \"type_k\": \"f16\", "
                                    "\"type_v\": \"f16\", \"avg_ts\": 50}]",
                                    cases[i].told);
        struct kv_runs *r = opened(text);
        assert_string_equal(r->row[0].weights, cases[i].weights);
        kv_runs_free(r);
        free(text);
    }
}

static void issue_13_D3_markdown_talk_and_files_of_2023_are_read(void **state) {
    (void)state;
    struct kv_runs *r = opened(
        "ggml_cuda_init: found 1 CUDA devices:\n"
        "  Device 0: NVIDIA Some, compute capability 8.9, VMM: yes\n"
        "| model | size | params | backend | ngl | type_v | fa | test | t/s |\n"
        "| ----- | ---: | -----: | ------- | --: | -----: | -: | ---: | --: |\n"
        "| llama 256M Q5_K - Small | 98.87 MiB | 134.52 M | CUDA | 99 | q8_0 | 1 | pp512 | 9 |\n"
        "| llama 256M Q5_K - Small | 98.87 MiB | 134.52 M | CUDA | 99 | q8_0 | 1 | tg64 @ d1024 | "
        "250.00 \xc2\xb1 2.50 |\n\nbuild: abc123 (77)\n");
    const struct kv_device_run *x = &r->row[0];
    assert_int_equal(r->n, 1);
    assert_string_equal(x->weights, "Q5_K_S");
    assert_string_equal(x->shape_name, "135m");
    assert_int_equal(x->context, 1024 + 32);
    assert_int_equal(x->mix.part[0].bits[0], 16);
    assert_int_equal(x->mix.part[0].bits[1], 8);
    assert_near(x->step_ns, 4e6);
    assert_near(x->high_ns, 4e6 * (1 + 0.6745 * 0.01));
    assert_string_equal(r->machine, "NVIDIA Some");
    assert_non_null(strstr(r->engine, "abc123 (CUDA)"));
    kv_runs_free(r);
    r = opened("load: [a] b\nwarming up\n[\n" LLAMA_ROW(
        "0", "24", "0", "q8_0", "") "\n]\nbye\n[\n" LLAMA_ROW("0", "24", "512", "f16", "") "]\n");
    assert_llama(r); // appended output is not lost
    kv_runs_free(r);
    r = opened("talk\n" LLAMA_ROW("0", "24", "0", "q8_0",
                                  "") "\nmore talk\n" LLAMA_ROW("0", "24", "512", "f16", "") "\n");
    assert_llama(r);
    kv_runs_free(r);
    r = opened("\xef\xbb\xbf[{\"model_type\": \"llama 7B mostly Q4_0\", \"n_gen\": 32, "
               "\"f16_kv\": true, \"avg_ts\": 20}, {\"model_type\": \"llama 7B mostly Q4_0\", "
               "\"n_gen\": 32, \"f16_kv\": false, \"avg_ts\": 10}]");
    assert_int_equal(r->row[0].mix.part[0].bits[0], 16);
    assert_int_equal(r->row[1].mix.part[0].bits[0], 32);
    kv_runs_free(r);
}

// A quotation mark inside, doubled (ik_llama.cpp) or not (llama.cpp); an empty text.
static void issue_16_sql_of_llama_bench_is_read(void **state) {
    (void)state;
#define INSERT(table, cpu, prompt, gen, depth, type)                                               \
    "INSERT INTO " table " (build_commit, cpu_info, gpu_info, backends, model_type, "              \
    "model_n_params, n_threads, type_k, type_v, flash_attn, n_prompt, n_gen, n_depth, avg_ns, "    \
    "avg_ts, stddev_ts, test_time) VALUES ('abc', '" cpu "', '', 'CPU', 'llama 256M F16', "        \
    "'134515008', '2', '" type "', '" type "', '1', '" prompt "', '" gen "', '" depth              \
    "', '300', '80.000000', '4.000000', '2026-01-01T00:00:00Z');\n"
    struct kv_runs *r = opened(
        "warning: asserts enabled\nCREATE TABLE IF NOT EXISTS llama_bench (\n  "
        "build_commit TEXT\n);\n\n" INSERT("llama_bench", "Some CPU", "512", "0", "0", "q8_0")
            INSERT("llama_bench", "Some CPU", "0", "24", "0", "q8_0")
                INSERT("llama_bench", "Some CPU", "0", "24", "512", "f16"));
    assert_llama(r);
    kv_runs_free(r);
    r = opened(INSERT("llama_bench", "Ann's CPU", "0", "24", "0", "q8_0"));
    assert_string_equal(r->machine, "Ann's CPU");
    kv_runs_free(r);
    r = opened(INSERT("test", "Ann''s CPU", "0", "24", "0", "q8_0"));
    assert_string_equal(r->machine, "Ann's CPU");
    kv_runs_free(r);
}

static void issue_13_D3_what_cannot_be_read_is_called_what_it_is(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n; // 0 = its length
        const char *said;
    } cases[] = {
        {"\xff\xfe"
         "b\0u\0",
         6, "is UTF-16"},
        {"context,mix\0,x", 14, "byte 11 is zero"},
        {"CREATE TABLE IF NOT EXISTS test (\n  build_commit TEXT\n);\n", 0, "no decode runs"},
        {"\nINSERT INTO test (build_commit, n_gen) VALUES ('a');\n", 0, "1 values for 2 columns"},
        {"\nINSERT INTO test (build_commit) VALUES ('a", 0, "expected (columns) VALUES"},
        {"|    PP |  B | T_PP s | S_PP t/s | T_TG s | S_TG t/s |\n|--|--|\n", 0,
         "llama-batched-bench's table"},
        {"{\"n_kv_max\": 2048, \"pl\": 1, \"t_pp\": 0.1, \"t_tg\": 0.2}\n", 0,
         "llama-batched-bench times batches"},
        {"hello\nworld\n", 0, "is neither JSON"},
        {"hello, you\n[ ] talk\n", 0, "holds no decode runs"},
        {"one line\n{\"n_gen\": \n", 0, "line 2:"},
        {"[{\"n_gen\": 8, \"avg_ts\": 5}]", 0, "tells no cache types"},
        {"| a | b |\n| - | - |\n| 1 | 2 |\n", 0, "holds no table with the columns"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_runs *r;
        struct kv_error e;
        size_t n = cases[i].n ? cases[i].n : strlen(cases[i].text);
        assert_int_equal(kv_write_file(path, cases[i].text, n, &e), 0);
        assert_int_equal(kv_runs_open(&r, path, &e), KV_EFAIL);
        if (!strstr(e.msg, cases[i].said)) fail_msg("'%s' lacks '%s'", e.msg, cases[i].said);
    }
}

static void issue_13_A2_numbers_that_no_machine_has_are_refused_by_row_and_field(void **state) {
    (void)state;
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"[" GENERATION("F16", "\"n_depth\": -5") "]", "field 'n_depth': -5"},
        {"[" GENERATION("F16", "\"n_depth\": 1e300") "]", "field 'n_depth'"},
        {"[" GENERATION("F16", "\"avg_ns\": 0") "]", "field 'avg_ns'"},
        {"[" GENERATION("F16", "\"avg_ns\": \"nan\"") "]", "field 'avg_ns': \"nan\""},
        {"[" GENERATION("F16", "\"stddev_ts\": -1") "]", "field 'stddev_ts'"},
        {"[" GENERATION("F16", "\"n_threads\": \"many\"") "]", "field 'n_threads'"},
        {"[" GENERATION("F16", "\"samples_ns\": [5, -1]") "]", "sample 2 is no time"},
        {"[" GENERATION("F16", "\"samples_ns\": [5, \"x\"]") "]", "sample 2 is no time"},
        {"context,mix,step_ns,low_ns\n64,8,5,-1\n", "column 'low_ns': -1 is out of range"},
        {"context,mix,step_ns,cache_bytes\n64,8,5,inf\n", "column 'cache_bytes': inf"},
        {"context,mix,step_ns,high_ns\n64,8,5,nan\n", "column 'high_ns': 'nan' is no number"},
        {"context,mix,step_ns\n64,8,1e300\n", "column 'step_ns'"},
        {"context,mix,tokens_per_s\n64,8,0\n", "expected a positive step_ns"},
        {"context,mix,step_ns\n0,8,5\n", "column 'context': 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_runs *r;
        struct kv_error e;
        assert_int_equal(kv_write_file(path, cases[i].text, strlen(cases[i].text), &e), 0);
        assert_int_equal(kv_runs_open(&r, path, &e), KV_EFAIL);
        if (!strstr(e.msg, cases[i].said)) fail_msg("'%s' lacks '%s'", e.msg, cases[i].said);
        assert_non_null(strstr(e.where, "row 1"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mix_reads_back_as_it_is_spelt),
        cmocka_unit_test(nonsense_is_no_mix),
        cmocka_unit_test(our_files_read_back_as_they_were_written),
        cmocka_unit_test(llama_bench_files_of_each_kind_are_read),
        cmocka_unit_test(a_plain_csv_needs_a_context_a_mix_and_a_time),
        cmocka_unit_test(issue_13_A2_runs_of_several_ways_are_refused_by_field_and_chosen),
        cmocka_unit_test(issue_13_A3_every_file_type_of_llama_cpp_keeps_its_name),
        cmocka_unit_test(issue_13_D3_markdown_talk_and_files_of_2023_are_read),
        cmocka_unit_test(issue_16_sql_of_llama_bench_is_read),
        cmocka_unit_test(issue_13_D3_what_cannot_be_read_is_called_what_it_is),
        cmocka_unit_test(issue_13_A2_numbers_that_no_machine_has_are_refused_by_row_and_field),
        cmocka_unit_test(bad_files_are_refused_with_file_row_and_column),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
