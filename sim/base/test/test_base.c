// SPDX-License-Identifier: Apache-2.0
// The base library: specs and their expansion, checked values, files, half floats, workers, text.
#include <setjmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "sim/base/args.h"
#include "sim/base/files.h"
#include "sim/base/half.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/cpu.h"
#include "sim/base/spec.h"
#include "sim/base/work.h"
#include "sim/base/assets.h"
#include "sim/base/utf8.h"

// cmocka wants the headers above before its own
#include <cmocka.h>

static void must(int rc, const struct kv_error *e) {
    if (rc) fail_msg("%s: %s", e->where, e->msg);
}

// ---- specs ----------------------------------------------------------------------------

static void a_spec_is_a_name_an_inner_text_and_pairs(void **state) {
    struct kv_spec s;
    struct kv_error e;
    (void)state;
    must(kv_spec_parse(&s, "shuffle(mlp:weights=a/b.bin,k=(1,2)):within=item,seed=3", &e), &e);
    assert_string_equal("shuffle", s.name);
    assert_string_equal("mlp:weights=a/b.bin,k=(1,2)", s.inner);
    assert_int_equal(2, s.n_pairs);
    assert_string_equal("within", s.keys[0]);
    assert_string_equal("item", s.values[0]);
    assert_string_equal("seed", s.keys[1]);
    assert_string_equal("3", s.values[1]);
    kv_spec_fini(&s);
    must(kv_spec_parse(&s, "none", &e), &e);
    assert_null(s.inner);
    assert_int_equal(0, s.n_pairs);
    kv_spec_fini(&s);
    char *policy, *format;
    must(kv_spec_split("shuffle(a@b):x=1@hadamard(sym)", &policy, &format, &e), &e);
    assert_string_equal("shuffle(a@b):x=1", policy);
    assert_string_equal("hadamard(sym)", format);
    free(policy);
    free(format);
    must(kv_spec_split("none", &policy, &format, &e), &e);
    assert_null(format);
    free(policy);
}

static void a_whole_spec_comes_apart_wrappers_first(void **state) {
    struct kv_spec_parts p;
    (void)state;
    kv_spec_take_apart(&p, "shuffle(static:k=4,v=2):seed=1@hadamard(sym:group=64):sides=keys");
    assert_string_equal("shuffle(static:k=4,v=2):seed=1", p.policy_text);
    assert_string_equal("hadamard(sym:group=64):sides=keys", p.format_text);
    assert_int_equal(2, p.n_policies);
    assert_string_equal("shuffle", p.policies[0].name);
    assert_string_equal("2", kv_spec_value(&p.policies[1], "v"));
    assert_null(kv_spec_value(&p.policies[0], "v"));
    assert_int_equal(2, p.n_formats);
    assert_string_equal("64", kv_spec_value(&p.formats[1], "group"));
    kv_spec_parts_fini(&p);
    kv_spec_take_apart(&p, "none");
    assert_string_equal("", p.format_text);
    assert_true(p.n_policies == 1 && p.n_formats == 0);
    kv_spec_parts_fini(&p);
    kv_spec_take_apart(&p, "outer(no key):a=1"); // what wraps it is still told
    assert_int_equal(1, p.n_policies);
    assert_string_equal("no key", p.policies[0].inner);
    kv_spec_parts_fini(&p);
    kv_spec_take_apart(&p, "broken(@x");
    assert_string_equal("broken(@x", p.policy_text);
    assert_int_equal(0, p.n_policies);
    kv_spec_parts_fini(&p);
}

static void specs_that_are_none_are_wrong_usage(void **state) {
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"", "a spec begins with a name"},
        {":bits=4", "a spec begins with a name"},
        {"static(", "brackets do not match"},
        {"static(a", "brackets do not match"},
        {"static)", "after 'static' comes ':' and key=value, not ')'"},
        {"static bits=4", "after 'static' comes ':' and key=value, not ' '"},
        {"static:", "'' is not key=value"},
        {"static:bits", "'bits' is not key=value"},
        {"static:=4", "'=4' is not key=value"},
        {"static:bits=4,", "'' is not key=value"},
        {"static:bits=(4", "'bits=(4' is not key=value"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kv_spec s;
        struct kv_error e;
        assert_int_equal(KV_EUSAGE, kv_spec_parse(&s, wrong[i].text, &e));
        assert_string_equal(wrong[i].message, e.msg);
        assert_string_equal(wrong[i].text, e.where);
    }
}

static void expands_to(const char *text, const char *want) {
    char **list;
    size_t n;
    struct kv_error e;
    struct kv_text got = {0};
    must(kv_spec_expand(text, &list, &n, &e), &e);
    for (size_t i = 0; i < n; i++) kv_text_addf(&got, "%s%s", i ? " " : "", list[i]);
    assert_string_equal(want, got.s);
    kv_list_free(list, n);
    free(got.s);
}

static char *repeated(const char *left, const char *middle, const char *right, size_t n) {
    struct kv_text t = {0};
    for (size_t i = 0; i < n; i++) kv_text_addf(&t, "%s", left);
    kv_text_addf(&t, "%s", middle);
    for (size_t i = 0; i < n; i++) kv_text_addf(&t, "%s", right);
    return kv_text_take(&t);
}

static void issue_13_C5_specs_are_bounded_by_work_and_by_depth(void **state) {
    (void)state;
    struct kv_error e = {0};
    struct kv_spec spec;
    struct kv_spec_parts parts;
    char **list, *many = repeated("{b,b}", "", "", 40), *deep = repeated("{", "a", "}", 30000),
                 *wrapped = repeated("w(", "none", ")", 5000),
                 *open = repeated("{", "", "", 200000);
    size_t n;
    expands_to("a:b=3..3+1e-15", "a:b=3");
    const struct {
        const char *text, *says;
    } wrong[] = {
        {many, "too much work"},       {deep, "too much work"},
        {open, "longer than"},         {"a:b=0..9+0.00001", "makes more than 100000 specs"},
        {"a:b=2..nan", "a range is"},  {"a:b=2..inf", "a range is"},
        {"a:b=0..1+nan", "a range is"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(kv_spec_expand(wrong[i].text, &list, &n, &e), KV_EUSAGE);
        if (!strstr(e.msg, wrong[i].says)) fail_msg("%zu: %s", i, e.msg);
    }
    assert_int_equal(kv_spec_parse(&spec, wrapped, &e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "nest more than 32 deep"));
    kv_spec_take_apart(&parts, wrapped); // a store may hold it
    assert_int_equal(parts.n_policies, 0);
    kv_spec_parts_fini(&parts);
    free(many);
    free(deep);
    free(wrapped);
    free(open);
}

static void issue_13_A10_a_cpu_level_that_is_not_there_is_refused(void **state) {
    (void)state;
    struct kv_error e = {0};
    const char *before = getenv("KVSIM_CPU");
    char *kept = before ? kv_strdup(before) : NULL;
    setenv("KVSIM_CPU", "avx1024", 1);
    assert_int_equal(kv_cpu_check(&e), KV_EUSAGE);
    assert_non_null(strstr(e.msg, "no CPU level is named 'avx1024'"));
    setenv("KVSIM_CPU", "", 1);
    assert_int_equal(kv_cpu_check(&e), KV_EUSAGE);
    setenv("KVSIM_CPU", "base", 1);
    assert_int_equal(kv_cpu_check(&e), 0);
    if (kept)
        setenv("KVSIM_CPU", kept, 1);
    else
        unsetenv("KVSIM_CPU");
    free(kept);
}

static void braces_and_ranges_expand_in_order_without_repeats(void **state) {
    char **list;
    size_t n;
    struct kv_error e;
    (void)state;
    expands_to("none", "none");
    expands_to("a:b={2,4}@{x,y}", "a:b=2@x a:b=2@y a:b=4@x a:b=4@y");
    expands_to("{a,b{1,2}}", "a b1 b2");
    expands_to("a:b={2,2}", "a:b=2");
    expands_to("a{,:b=1}", "a a:b=1");
    expands_to("a:b=2..4", "a:b=2 a:b=3 a:b=4");
    expands_to("a:b=0.1..0.3+0.1", "a:b=0.1 a:b=0.2 a:b=0.3");
    expands_to("a:b=2..3+0.5,c=4", "a:b=2.0,c=4 a:b=2.5,c=4 a:b=3.0,c=4");
    expands_to("a:f=x/..y", "a:f=x/..y"); // a path, no range
    assert_int_equal(KV_EUSAGE, kv_spec_expand("a{b", &list, &n, &e));
    assert_string_equal("'{' is not closed", e.msg);
    assert_int_equal(KV_EUSAGE, kv_spec_expand("a}b", &list, &n, &e));
    assert_string_equal("'}' without '{'", e.msg);
    assert_int_equal(KV_EUSAGE, kv_spec_expand("a:b=4..2", &list, &n, &e));
    assert_int_equal(KV_EUSAGE, kv_spec_expand("a:b=1..9+0", &list, &n, &e));
    assert_int_equal(KV_EUSAGE, kv_spec_expand("a:b=1..1000000", &list, &n, &e));
    assert_null(list);
}

static const struct kv_param params[] = {
    {"bits", KV_INT, "4", 1, 16, NULL, "bits", "width"},
    {"scale", KV_FLOAT, "1.5", 0, 0, NULL, NULL, "any number"},
    {"mode", KV_CHOICE, "full", 0, 0, "full/max3", NULL, "how"},
    {"list", KV_LIST, "", 0, 1, NULL, NULL, "shares"},
    {"weights", KV_TEXT, NULL, 0, 0, NULL, NULL, "a file"},
    {0}};
static const struct kv_param common[] = {{"window", KV_INT, "0", 0, 512, NULL, "tokens", "exact"},
                                         {0}};

static int args_of(struct kv_args **a, const char *text, struct kv_error *e) {
    struct kv_spec s;
    must(kv_spec_parse(&s, text, e), e);
    int rc = kv_args_new(a, &s, params, common, "policy x", e);
    kv_spec_fini(&s);
    return rc;
}

static void equal_spellings_have_one_canonical_text(void **state) {
    struct kv_args *a;
    struct kv_error e;
    (void)state;
    static const char *const spellings[] = {
        "x:weights=w,bits=8,list=0.5/0.25", "x:list=.50/25e-2,bits=08.0,weights=w,window=0",
        "x:bits=8,scale=1.500,weights=w,mode=full,list=0.5/0.25"};
    for (size_t i = 0; i < 3; i++) {
        must(args_of(&a, spellings[i], &e), &e);
        char *canonical = kv_args_canonical(a, "x");
        assert_string_equal("x:bits=8,list=0.5/0.25,mode=full,scale=1.5,weights=w,window=0",
                            canonical);
        free(canonical);
        kv_args_free(a);
    }
    must(args_of(&a, "x(y:z=1):weights=w", &e), &e);
    char *canonical = kv_args_canonical(a, "x");
    assert_string_equal("x(y:z=1):bits=4,mode=full,scale=1.5,weights=w,window=0", canonical);
    assert_true(kv_arg(a, "bits")->number == 4 && !kv_arg(a, "bits")->given);
    assert_int_equal(0, kv_arg(a, "list")->n_list);
    assert_string_equal("", kv_arg(a, "list")->text);
    free(canonical);
    kv_args_free(a);
}

static void values_out_of_place_are_refused_in_one_sentence(void **state) {
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"x:weights=w,bit=4", "unknown key 'bit'; did you mean 'bits'?"},
        {"x:weights=w,zebra=4",
         "unknown key 'zebra'; it has bits, scale, mode, list, weights, window"},
        {"x:weights=w,windw=4", "unknown key 'windw'; did you mean 'window'?"},
        {"x:weights=w,bits=4,bits=4", "key 'bits' is given twice"},
        {"x", "key 'weights' must be given (a file)"},
        {"x:weights=w,bits=4.5", "bits=4.5: bits must be a whole number from 1 to 16"},
        {"x:weights=w,bits=17", "bits=17: bits must be a whole number from 1 to 16"},
        {"x:weights=w,bits=nan", "bits=nan: bits must be a whole number from 1 to 16"},
        {"x:weights=w,bits=", "bits=: bits must be a whole number from 1 to 16"},
        {"x:weights=w,scale=2x", "scale=2x: scale must be a number"},
        {"x:weights=w,mode=ful", "mode=ful: mode must be one of full/max3"},
        {"x:weights=w,mode=full/max3", "mode=full/max3: mode must be one of full/max3"},
        {"x:weights=w,list=0.5//1", "list=: list must be a number from 0 to 1"},
        {"x:weights=w,list=0.5/2", "list=2: list must be a number from 0 to 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kv_args *a;
        struct kv_error e;
        assert_int_equal(KV_EUSAGE, args_of(&a, wrong[i].text, &e));
        assert_string_equal(wrong[i].message, e.msg);
        assert_string_equal("policy x", e.where);
        assert_null(a);
    }
}

static void the_nearest_name_is_near(void **state) {
    static const char *const names[] = {"static", "random", "threshold", NULL};
    (void)state;
    assert_string_equal("static", kv_nearest("statik", names));
    assert_string_equal("static", kv_nearest("sttaic", names)); // a swap is one slip
    assert_string_equal("threshold", kv_nearest("treshhold", names));
    assert_null(kv_nearest("zebra", names));
    char longer[200];
    memset(longer, 'a', sizeof longer - 1), longer[199] = '\0';
    assert_null(kv_nearest(longer, names));
}

// ---- files ----------------------------------------------------------------------------

static int make_folder(void **state) {
    static char dir[40];
    snprintf(dir, sizeof dir, "/tmp/kvsim-test-XXXXXX");
    *state = dir;
    return mkdtemp(dir) ? 0 : 1;
}

static int remove_folder(void **state) {
    char *command = kv_format_text("rm -r '%s'", (char *)*state);
    int rc = system(command);
    free(command);
    return rc;
}

static void a_file_is_read_as_it_stands_or_gunzipped(void **state) {
    char *plain = kv_format_text("%s/plain", (char *)*state),
         *packed = kv_format_text("%s/packed", (char *)*state), *text;
    struct kv_error e;
    size_t n;
    static char content[300000];
    for (size_t i = 0; i < sizeof content; i++) content[i] = (char)(i * i >> 7);
    must(kv_write_file(plain, content, sizeof content, &e), &e);
    gzFile gz = gzopen(packed, "wb");
    assert_int_equal(sizeof content, gzwrite(gz, content, sizeof content));
    assert_int_equal(Z_OK, gzclose(gz));
    for (int i = 0; i < 2; i++) {
        must(kv_read_file(i ? packed : plain, &text, &n, &e), &e);
        assert_int_equal(sizeof content, n);
        assert_memory_equal(content, text, n);
        assert_int_equal('\0', text[n]);
        free(text);
    }
    struct stat st;
    assert_int_equal(0, stat(packed, &st));
    assert_int_equal(0, truncate(packed, st.st_size / 2));
    assert_int_equal(KV_EFAIL, kv_read_file(packed, &text, &n, &e));
    assert_string_equal(packed, e.where);
    assert_int_equal(0, truncate(plain, 0));
    must(kv_read_file(plain, &text, &n, &e), &e);
    assert_int_equal(0, n);
    assert_string_equal("", text);
    free(text);
    struct kv_map m;
    must(kv_map_open(&m, plain, &e), &e);
    assert_int_equal(0, m.n);
    kv_map_close(&m);
    assert_int_equal(KV_EFAIL, kv_map_open(&m, *state, &e));
    assert_string_equal("is not a plain file", e.msg);
    free(plain);
    free(packed);
}

static void a_file_is_written_whole_or_not_at_all(void **state) {
    char *path = kv_format_text("%s/file", (char *)*state),
         *none = kv_format_text("%s/none/file", (char *)*state), *text;
    struct kv_error e;
    size_t n;
    must(kv_write_file(path, "old", 3, &e), &e);
    assert_int_equal(KV_EFAIL, kv_write_file(none, "new", 3, &e));
    assert_string_equal("cannot be written: No such file or directory", e.msg);
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(KV_EFAIL, kv_write_file("/dev/full", "new", 3, &e));
        assert_string_equal("cannot be written: No space left on device", e.msg);
    }
    must(kv_read_file(path, &text, &n, &e), &e);
    assert_string_equal("old", text);
    free(text);
    char *partial = kv_format_text("%s.partial", path);
    assert_int_equal(-1, access(partial, F_OK));
    free(partial);
    free(path);
    free(none);
}

static void folders_are_made_with_their_parents(void **state) {
    char *deep = kv_format_text("%s/a/b/c", (char *)*state),
         *file = kv_format_text("%s/file", (char *)*state);
    struct kv_error e;
    must(kv_make_dir(deep, &e), &e);
    must(kv_make_dir(deep, &e), &e);
    assert_true(kv_is_dir(deep));
    must(kv_write_file(file, "", 0, &e), &e);
    assert_int_equal(KV_EFAIL, kv_make_dir(file, &e));
    assert_string_equal("is not a folder", e.msg);
    assert_true(kv_free_bytes(deep) > 0);
    char *future = kv_format_text("%s/not/yet/there", (char *)*state);
    assert_true(kv_free_bytes(future) != UINT64_MAX); // of the file system that would hold it
    free(future);
    free(deep);
    free(file);
}

// ---- numbers --------------------------------------------------------------------------

static void every_half_float_goes_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float x = kv_f16_to_f32((uint16_t)h);
        uint16_t back = kv_f32_to_f16(x);
        bool nan = (h & 0x7C00) == 0x7C00 && (h & 0x3FF);
        if (nan ? !isnan(x) || (back & 0x7C00) != 0x7C00 || !(back & 0x3FF) : back != h)
            fail_msg("%04x -> %g -> %04x", h, (double)x, back);
        float wide = kv_bf16_to_f32((uint16_t)h);
        if (!isnan(wide) && kv_f32_to_bf16(wide) != h) fail_msg("bf16 %04x", h);
    }
}

static void half_floats_round_to_the_nearest_even(void **state) {
    static const struct {
        double x;
        uint16_t half;
    } cases[] = {
        {1, 0x3C00},
        {1 + 0x1p-11, 0x3C00},           // halfway to 1 + 2^-10: down to even
        {1 + 0x1p-11 + 0x1p-23, 0x3C01}, // just above halfway
        {1 + 3 * 0x1p-11, 0x3C02},       // halfway: up to even
        {65504, 0x7BFF},
        {65519.99609375, 0x7BFF},
        {65520, 0x7C00}, // halfway to what would be 65536: infinity
        {-1e30, 0xFC00},
        {0x1p-24, 0x0001},
        {0x1p-25, 0x0000}, // halfway to the smallest: down to even
        {0x1.8p-25, 0x0001},
        {0x1.8p-24, 0x0002},
        {0x1p-14, 0x0400},
        {-0.0, 0x8000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (kv_f32_to_f16((float)cases[i].x) != cases[i].half)
            fail_msg("%.12g -> %04x, wanted %04x", cases[i].x, kv_f32_to_f16((float)cases[i].x),
                     cases[i].half);
    assert_int_equal(0x3F80, kv_f32_to_bf16(1.00390625f)); // 1 + 2^-8, halfway: to even
    assert_int_equal(0x3F82, kv_f32_to_bf16(1.01171875f));
    assert_int_equal(0x7F80, kv_f32_to_bf16(INFINITY));
    assert_true(isnan(kv_bf16_to_f32(kv_f32_to_bf16(NAN))));
}

// The rows' functions use what the CPU offers: the same bits as one by one, at any length.
static void rows_of_half_floats_equal_single_ones(void **state) {
    static float x[1000], back[1000];
    static uint16_t h[1000];
    (void)state;
    for (size_t n = 0; n <= 1000; n += 1 + n / 5) {
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)(kv_draw(n, 9, i) * 0x1p32);
            memcpy(&x[i], &bits, 4);
            if (i % 3) x[i] = (float)(kv_draw(n, 8, i) * 2e-7 - 1e-7); // around the smallest halves
            if (isnan(x[i])) x[i] = INFINITY;
        }
        kv_f32_to_f16_n(x, h, n);
        kv_f16_to_f32_n(h, back, n);
        for (size_t i = 0; i < n; i++) {
            float one = kv_f16_to_f32(h[i]);
            assert_int_equal(kv_f32_to_f16(x[i]), h[i]);
            assert_memory_equal(&one, &back[i], 4);
        }
    }
}

static void hashes_are_xxh64(void **state) {
    char hex[17];
    (void)state;
    kv_hex64(kv_hash("", 0, 0), hex); // test vectors of the xxHash specification
    assert_string_equal("ef46db3751d8e999", hex);
    kv_hex64(kv_hash("abc", 3, 0), hex);
    assert_string_equal("44bc2cf5ad770999", hex);
}

// ---- workers and text -----------------------------------------------------------------

struct crew {
    int done[500];
    size_t fails_from;
};

static int job(void *self, unsigned worker, size_t i, struct kv_error *e) {
    struct crew *c = self;
    (void)worker;
    if (i >= c->fails_from) return kv_fail(e, KV_EFAIL, "job", "number %zu", i);
    c->done[i]++;
    return 0;
}

static void workers_do_each_job_once_and_tell_the_first_failure(void **state) {
    struct kv_error e;
    (void)state;
    for (unsigned n_workers = 0; n_workers < 9; n_workers += 4) {
        struct crew c = {.fails_from = 500};
        must(kv_parallel(500, n_workers, job, &c, &e), &e);
        for (size_t i = 0; i < 500; i++) assert_int_equal(1, c.done[i]);
        c.fails_from = 123;
        assert_int_equal(KV_EFAIL, kv_parallel(500, n_workers, job, &c, &e));
        assert_string_equal("number 123", e.msg);
        assert_int_equal(KV_EFAIL, e.code);
        for (size_t i = 0; i < 123; i++) assert_int_equal(2, c.done[i]);
    }
    must(kv_parallel(0, 4, job, NULL, &e), &e);
}

static void text_grows_and_counts_its_characters(void **state) {
    struct kv_text t = {0};
    (void)state;
    for (int i = 0; i < 1000; i++) kv_text_addf(&t, "%d,", i % 10);
    assert_int_equal(2000, t.n);
    char *s = kv_text_take(&t);
    assert_int_equal(2000, strlen(s));
    assert_null(t.s);
    free(s);
    s = kv_text_take(&t); // an empty one is a text too
    assert_string_equal("", s);
    free(s);
    assert_int_equal(3, kv_utf8_count("a\xC3\xA9\xE2\x82\xAC", 6));
    assert_int_equal(6, kv_utf8_valid("a\xC3\xA9\xE2\x82\xAC", 6));
    assert_int_equal(1, kv_utf8_valid("a\xC0\x80", 3));        // overlong
    assert_int_equal(0, kv_utf8_valid("\xED\xA0\x80", 3));     // a surrogate
    assert_int_equal(0, kv_utf8_valid("\xF4\x90\x80\x80", 4)); // past the last
    assert_int_equal(1, kv_utf8_valid("a\xE2\x82", 3));        // cut short
    for (uint32_t c = 0; c < 0x110000; c += 7) {
        char out[4];
        size_t n = kv_utf8_put(c, out), at = 0;
        uint32_t back = kv_utf8_next(out, n, &at);
        assert_true(c >= 0xD800 && c < 0xE000 ? back == KV_UTF8_BAD : back == c && at == n);
    }
}

static void assets_are_found_by_their_path(void **state) {
    const struct kv_asset *schema = kv_asset_find("sim/store/schema.sql");
    char *text;
    size_t n;
    struct kv_error e;
    (void)state;
    assert_non_null(schema);
    must(kv_read_file("sim/store/schema.sql", &text, &n, &e), &e);
    assert_int_equal(n, schema->n);
    assert_memory_equal(text, schema->data, n + 1);
    free(text);
    assert_null(kv_asset_find("analysis/schema"));
    for (size_t i = 1; kv_asset_at(i); i++)
        assert_true(strcmp(kv_asset_at(i - 1)->path, kv_asset_at(i)->path) < 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spec_is_a_name_an_inner_text_and_pairs),
        cmocka_unit_test(a_whole_spec_comes_apart_wrappers_first),
        cmocka_unit_test(specs_that_are_none_are_wrong_usage),
        cmocka_unit_test(braces_and_ranges_expand_in_order_without_repeats),
        cmocka_unit_test(issue_13_C5_specs_are_bounded_by_work_and_by_depth),
        cmocka_unit_test(issue_13_A10_a_cpu_level_that_is_not_there_is_refused),
        cmocka_unit_test(equal_spellings_have_one_canonical_text),
        cmocka_unit_test(values_out_of_place_are_refused_in_one_sentence),
        cmocka_unit_test(the_nearest_name_is_near),
        TEST(a_file_is_read_as_it_stands_or_gunzipped),
        TEST(a_file_is_written_whole_or_not_at_all),
        TEST(folders_are_made_with_their_parents),
        cmocka_unit_test(every_half_float_goes_there_and_back),
        cmocka_unit_test(half_floats_round_to_the_nearest_even),
        cmocka_unit_test(rows_of_half_floats_equal_single_ones),
        cmocka_unit_test(hashes_are_xxh64),
        cmocka_unit_test(workers_do_each_job_once_and_tell_the_first_failure),
        cmocka_unit_test(text_grows_and_counts_its_characters),
        cmocka_unit_test(assets_are_found_by_their_path),
    };
    return cmocka_run_group_tests_name("the base library", tests, NULL, NULL);
}
