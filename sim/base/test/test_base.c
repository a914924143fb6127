// SPDX-License-Identifier: Apache-2.0
// Specs, half floats, workers and files.
#include "sim/base/args.h"
#include "sim/base/util.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

// ---- specs
// ---------------------------------------------------------------------------------------

static void test_parse(void **state) {
    (void)state;
    struct kv_spec s;
    struct kv_error e = {0};
    assert_int_equal(kv_spec_parse(&s, "static", &e), 0);
    assert_string_equal(s.name, "static");
    assert_null(s.inner);
    assert_int_equal(s.n_pairs, 0);
    kv_spec_fini(&s);
    assert_int_equal(kv_spec_parse(&s, "shuffle(mlp:w=a.b,n=2):within=item", &e), 0);
    assert_string_equal(s.name, "shuffle");
    assert_string_equal(s.inner, "mlp:w=a.b,n=2");
    assert_int_equal(s.n_pairs, 1);
    assert_string_equal(s.keys[0], "within");
    assert_string_equal(s.values[0], "item");
    kv_spec_fini(&s);
    static const char *const bad[] = {"", ":k=1", "a:", "a:k", "a:=1", "a(b", "a:k=1,", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (kv_spec_parse(&s, bad[i], &e) != KV_EUSAGE) fail_msg("'%s' was taken", bad[i]);
}

static void test_split(void **state) {
    (void)state;
    static const struct {
        const char *text, *policy, *format;
    } cases[] = {{"static:bits=4", "static:bits=4", NULL},
                 {"static@sym", "static", "sym"},
                 {"w(a@b):k=1@f(g@h)", "w(a@b):k=1", "f(g@h)"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *policy, *format;
        struct kv_error e = {0};
        assert_int_equal(kv_spec_split(cases[i].text, &policy, &format, &e), 0);
        assert_string_equal(policy, cases[i].policy);
        if (cases[i].format)
            assert_string_equal(format, cases[i].format);
        else
            assert_null(format);
        free(policy);
        free(format);
    }
}

static void test_expand(void **state) {
    (void)state;
    static const struct {
        const char *text, *want; // joined by spaces
    } cases[] = {{"static", "static"},
                 {"s:bits={2,4}", "s:bits=2 s:bits=4"},
                 {"s:bits={2,4}@{sym,asym:group=32}",
                  "s:bits=2@sym s:bits=2@asym:group=32 s:bits=4@sym s:bits=4@asym:group=32"},
                 {"{a,b{1,2},c}:k=1", "a:k=1 b1:k=1 b2:k=1 c:k=1"},
                 {"{a{,x},b}", "a ax b"},
                 {"o:bits=2..4", "o:bits=2 o:bits=3 o:bits=4"},
                 {"o:bits=2..4+0.5", "o:bits=2.0 o:bits=2.5 o:bits=3.0 o:bits=3.5 o:bits=4.0"},
                 {"o:bits=0.1..0.3+0.1", "o:bits=0.1 o:bits=0.2 o:bits=0.3"},
                 {"o:bits={2..3,8}", "o:bits=2 o:bits=3 o:bits=8"},
                 {"{a,a,b}", "a b"},
                 {"m:weights=../a..b", "m:weights=../a..b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char **list;
        size_t n;
        struct kv_error e = {0};
        struct kv_text all = {0};
        if (kv_spec_expand(cases[i].text, &list, &n, &e)) fail_msg("%s", e.msg);
        for (size_t k = 0; k < n; k++) kv_text_addf(&all, "%s%s", k ? " " : "", list[k]);
        char *got = kv_text_take(&all);
        assert_string_equal(got, cases[i].want);
        free(got);
        kv_list_free(list, n);
    }
    static const char *const bad[] = {"{a,b",          "a}",     "a:k=4..2", "a:k=1..2+0",
                                      "a:k=1..9+1e-9", "{a,b{c}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char **list;
        size_t n;
        struct kv_error e = {0};
        if (kv_spec_expand(bad[i], &list, &n, &e) != KV_EUSAGE) fail_msg("'%s' was taken", bad[i]);
        assert_null(list);
    }
}

static const struct kv_param table[] = {
    {"bits", KV_INT, "4", 1, 16, NULL, "bits", "a width"},
    {"cut", KV_FLOAT, "0.5", 0, 1, NULL, NULL, "a share"},
    {"levels", KV_CHOICE, "full", 0, 0, "full/max3", NULL, "a choice"},
    {"shares", KV_LIST, "", 0, 9, NULL, NULL, "a list"},
    {"path", KV_TEXT, "", 0, 0, NULL, NULL, "a text"},
    {0}};

static void test_canonical(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {{"p", "p:bits=4,cut=0.5,levels=full"},
                 {"p:levels=max3,bits=04", "p:bits=4,cut=0.5,levels=max3"},
                 {"p:cut=0.50,bits=4.0", "p:bits=4,cut=0.5,levels=full"},
                 {"p:shares=1/2.50/3", "p:bits=4,cut=0.5,levels=full,shares=1/2.5/3"},
                 {"p(q:z=1):path=x", "p(q:z=1):bits=4,cut=0.5,levels=full,path=x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_spec s;
        struct kv_args *args;
        struct kv_error e = {0};
        assert_int_equal(kv_spec_parse(&s, cases[i].text, &e), 0);
        if (kv_args_new(&args, &s, table, NULL, "policy p", &e)) fail_msg("%s", e.msg);
        char *text = kv_args_canonical(args, s.name);
        assert_string_equal(text, cases[i].want);
        free(text);
        kv_args_free(args);
        kv_spec_fini(&s);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *msg;
    } cases[] = {
        {"p:bit=4", "unknown key 'bit'; did you mean 'bits'?"},
        {"p:zzzzzz=4", "unknown key 'zzzzzz'; it has bits, cut, levels, shares, path"},
        {"p:bits=17", "bits=17: bits must be a whole number from 1 to 16"},
        {"p:bits=4.5", "bits=4.5: bits must be a whole number from 1 to 16"},
        {"p:bits=nan", "bits=nan: bits must be a whole number from 1 to 16"},
        {"p:bits=", "bits=: bits must be a whole number from 1 to 16"},
        {"p:cut=1.5", "cut=1.5: cut must be a number from 0 to 1"},
        {"p:levels=half", "levels=half: levels must be one of full/max3"},
        {"p:shares=1//2", "shares=: shares must be a number from 0 to 9"},
        {"p:bits=4,bits=4", "key 'bits' is given twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kv_spec s;
        struct kv_args *args;
        struct kv_error e = {0};
        assert_int_equal(kv_spec_parse(&s, cases[i].text, &e), 0);
        assert_int_equal(kv_args_new(&args, &s, table, NULL, "policy p", &e), KV_EUSAGE);
        assert_string_equal(e.where, "policy p");
        assert_string_equal(e.msg, cases[i].msg);
        kv_spec_fini(&s);
    }
}

static void test_nearest(void **state) {
    (void)state;
    static const char *const names[] = {"static", "random", "none", NULL};
    assert_string_equal(kv_nearest("statik", names), "static");
    assert_string_equal(kv_nearest("nnoe", names), "none"); // neighbours swapped
    assert_string_equal(kv_nearest("rndom", names), "random");
    assert_null(kv_nearest("hadamard", names));
}

// ---- half floats
// ---------------------------------------------------------------------------------

// The value of a half by the definition of IEEE 754, in double.
static double half_value(uint32_t h) {
    uint32_t e = h >> 10 & 31, m = h & 1023;
    return (h & 0x8000 ? -1 : 1) * (e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24));
}

static void test_halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float x = kv_f16_to_f32((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00) {
            assert_true(h & 0x3FF ? isnan(x) : isinf(x) && (x < 0) == (h >> 15));
            if (!(h & 0x3FF)) assert_int_equal(kv_f32_to_f16(x), h);
            continue;
        }
        if ((double)x != half_value(h)) fail_msg("half %04x is %g", h, (double)x);
        assert_int_equal(kv_f32_to_f16(x), h); // signed zeros too
        uint32_t next = h + 1;
        if (h & 0x8000 || (next & 0x7C00) == 0x7C00) continue;
        // Between neighbours: the middle goes to the even one, floats beside it to the nearer.
        float middle = (float)((half_value(h) + half_value(next)) / 2); // exact in float32
        assert_int_equal(kv_f32_to_f16(middle), h & 1 ? next : h);
        assert_int_equal(kv_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(kv_f32_to_f16(nextafterf(middle, 1e9f)), next);
        assert_int_equal(kv_f32_to_f16(-middle), 0x8000 | (h & 1 ? next : h));
    }
    assert_int_equal(kv_f32_to_f16(65519.0f), 0x7BFF);
    assert_int_equal(kv_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(kv_f32_to_f16(1e-30f), 0);
    assert_int_equal(kv_f32_to_f16(NAN) & 0x7C00, 0x7C00);
}

static void test_half_arrays(void **state) {
    (void)state;
    enum { N = 40000 };
    static float x[N], y[N];
    static uint16_t h[N];
    for (size_t i = 0; i < N; i++)
        x[i] = (float)ldexp(kv_draw(1, 1, i) - 0.5, (int)(60 * kv_draw(1, 2, i)) - 35);
    for (size_t n = 0; n < 40; n++) { // lengths that are no multiple of a vector
        kv_f32_to_f16_n(x + n, h, n);
        for (size_t i = 0; i < n; i++) assert_int_equal(h[i], kv_f32_to_f16(x[n + i]));
    }
    kv_f32_to_f16_n(x, h, N);
    kv_f16_to_f32_n(h, y, N);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(h[i], kv_f32_to_f16(x[i]));
        assert_true(y[i] == kv_f16_to_f32(h[i]));
    }
}

static void test_bfloats(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float x = kv_bf16_to_f32((uint16_t)h);
        if (isnan(x))
            assert_true(isnan(kv_bf16_to_f32(kv_f32_to_bf16(x))));
        else
            assert_int_equal(kv_f32_to_bf16(x), h);
    }
    assert_int_equal(kv_f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);            // the middle: to even
    assert_int_equal(kv_f32_to_bf16(1.0f + 0x3p-8f), 0x3F82);            // the middle: to even
    assert_int_equal(kv_f32_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81); // above it
}

// ---- workers
// -------------------------------------------------------------------------------------

struct tally {
    atomic_int done[1000];
    unsigned workers;
    size_t fail_from;
};

static int count(void *self, unsigned worker, size_t i, struct kv_error *e) {
    struct tally *t = self;
    if (worker >= t->workers) return kv_fail(e, KV_EFAIL, "worker", "%u", worker);
    atomic_fetch_add(&t->done[i], 1);
    if (i >= t->fail_from) return kv_fail(e, KV_EFAIL, "job", "%zu", i);
    return 0;
}

static void test_parallel(void **state) {
    (void)state;
    for (unsigned workers = 1; workers <= 7; workers += 3) {
        struct tally t = {.workers = workers, .fail_from = 1000};
        struct kv_error e = {0};
        assert_int_equal(kv_parallel(1000, workers, count, &t, &e), 0);
        for (size_t i = 0; i < 1000; i++) assert_int_equal(t.done[i], 1);
    }
    struct tally t = {.workers = 4, .fail_from = 300};
    struct kv_error e = {0};
    assert_int_equal(kv_parallel(1000, 4, count, &t, &e), KV_EFAIL);
    assert_string_equal(e.where, "job");
    assert_string_equal(e.msg, "300"); // the first in order, whoever failed first
    assert_int_equal(t.done[999], 0);
    assert_int_equal(kv_parallel(0, 4, count, &t, &e), 0);
}

// ---- files
// ---------------------------------------------------------------------------------------

static void test_files(void **state) {
    (void)state;
    const char *build = getenv("BUILD");
    char *dir = kv_format_text("%s/base-XXXXXX", build ? build : "build"), *text;
    struct kv_error e = {0};
    struct kv_map map;
    size_t n;
    assert_non_null(mkdtemp(dir));
    char *path = kv_format_text("%s/file", dir), *deep = kv_format_text("%s/a/b", dir);
    assert_int_equal(kv_write_file(path, "one\0two", 7, &e), 0);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "one\0two", 8); // with a NUL behind
    free(text);
    assert_int_equal(kv_map_open(&map, path, &e), 0);
    assert_int_equal(map.n, 7);
    assert_memory_equal(map.data, "one\0two", 7);
    kv_map_close(&map);
    gzFile gz = gzopen(path, "wb");
    for (int i = 0; i < 300000; i++) gzputs(gz, "line\n");
    gzclose(gz);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    assert_int_equal(n, 1500000);
    assert_memory_equal(text + n - 5, "line\n", 6);
    free(text);
    char *packed;
    assert_int_equal(kv_map_open(&map, path, &e), 0); // cut in the middle: an error, not a part
    packed = kv_alloc(map.n / 2, 1);
    memcpy(packed, map.data, map.n / 2);
    n = map.n / 2;
    kv_map_close(&map);
    assert_int_equal(kv_write_file(path, packed, n, &e), 0);
    assert_int_equal(kv_read_file(path, &text, &n, &e), KV_EFAIL);
    free(packed);
    assert_int_equal(kv_write_file(path, "", 0, &e), 0);
    assert_int_equal(kv_read_file(path, &text, &n, &e), 0);
    assert_int_equal(n, 0);
    free(text);
    assert_int_equal(kv_make_dir(deep, &e), 0);
    assert_true(kv_is_dir(deep));
    assert_int_equal(kv_make_dir(path, &e), KV_EFAIL);
    assert_string_equal(e.msg, "is not a folder");
    assert_int_equal(kv_read_file(dir, &text, &n, &e), KV_EFAIL);
    assert_string_equal(e.msg, "is not a plain file");
    assert_true(kv_free_bytes("not/there/yet") > 0);
    rmdir(deep);
    deep[strlen(deep) - 2] = '\0';
    rmdir(deep);
    unlink(path);
    rmdir(dir);
    free(path);
    free(deep);
    free(dir);
}

static void test_full_disk(void **state) {
    (void)state;
    struct kv_error e = {0};
    if (access("/dev/full", W_OK) != 0) skip();
    assert_int_equal(kv_write_file("/dev/full", "x", 1, &e), KV_EFAIL);
    assert_string_equal(e.where, "/dev/full");
    assert_string_equal(e.msg, "cannot be written: No space left on device");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a spec is a name, an inner text and pairs; anything else is refused", test_parse, NULL,
         NULL, NULL},
        {"policy and format part at the '@' outside brackets", test_split, NULL, NULL, NULL},
        {"braces nest, ranges keep their decimals, repeats go", test_expand, NULL, NULL, NULL},
        {"equal spellings have one canonical form", test_canonical, NULL, NULL, NULL},
        {"wrong keys and values are refused in one sentence", test_refusals, NULL, NULL, NULL},
        {"the nearest name is suggested, a far one is not", test_nearest, NULL, NULL, NULL},
        {"all halves come back, and floats between them round to nearest even", test_halves, NULL,
         NULL, NULL},
        {"arrays of halves are converted as single ones are", test_half_arrays, NULL, NULL, NULL},
        {"bfloat16 rounds to nearest even", test_bfloats, NULL, NULL, NULL},
        {"each job is done once; of several failures the first in order is told", test_parallel,
         NULL, NULL, NULL},
        {"files are read whole, packed or not, and written whole", test_files, NULL, NULL, NULL},
        {"a full disk is told", test_full_disk, NULL, NULL, NULL},
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
