// SPDX-License-Identifier: Apache-2.0
// Judges the safetensors reader and layout: round trips, and files that lie about themselves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "sim/model/safetensors.h"
#include "sim/base/memory.h"

#define FILE_NAME "t.safetensors"

// *state is the path of the file under test, in a folder of its own.
static int make_dir(void **state) {
    char *path = kv_alloc(96, 1);
    strcpy(path, "/tmp/kvsim-safetensors-XXXXXX");
    if (!mkdtemp(path)) return -1;
    strcat(path, "/" FILE_NAME);
    *state = path;
    return 0;
}

static int remove_dir(void **state) {
    char *path = *state;
    unlink(path);
    path[strlen(path) - strlen("/" FILE_NAME)] = 0;
    int rc = rmdir(path);
    free(path);
    return rc;
}

// Writes length + header + n_data bytes 0, 1, 2, ... and opens the file.
static int open_raw(const char *path, struct kv_safetensors *s, uint64_t length, const char *header,
                    size_t n_data, struct kv_error *e) {
    char bytes[4096];
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++) bytes[i] = (char)(length >> (8 * i));
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < n_data; i++) bytes[8 + n + i] = (char)i;
    assert_int_equal(kv_write_file(path, bytes, 8 + n + n_data, e), 0);
    return kv_safetensors_open(s, path, e);
}

static void refuses(void **state, const char *header, size_t n_data, const char *message) {
    struct kv_safetensors s;
    struct kv_error e = {0};
    assert_int_equal(open_raw(*state, &s, strlen(header), header, n_data, &e), KV_EFAIL);
    assert_string_equal(e.msg, message);
    assert_non_null(strstr(e.where, FILE_NAME));
}

static void what_is_laid_out_reads_back(void **state) {
    const char *path = *state;
    struct kv_error e = {0};
    struct kv_tensor t[4] = {
        {.name = "ids", .dtype = "U8", .n_dims = 1, .dims = {3}},
        {.name = "scores", .dtype = "F64", .n_dims = 1, .dims = {2}},
        {.name = "keys \"q\"", .dtype = "F16", .n_dims = 3, .dims = {2, 1, 3}},
        {.name = "nothing", .dtype = "F32", .n_dims = 2, .dims = {0, 7}},
    };
    const char *meta[] = {"format", "kvsim-trace", "count", "4"};
    char *header;
    size_t header_bytes;
    uint64_t total;
    assert_int_equal(kv_safetensors_layout(t, 4, meta, 2, &header, &header_bytes, &total, &e), 0);
    assert_int_equal(header_bytes % 64, 0);
    assert_int_equal(total, header_bytes + 16 + 12 + 3);
    for (int i = 0; i < 4; i++) assert_int_equal(t[i].offset % kv_dtype_bytes(t[i].dtype), 0);

    char *file = calloc(total, 1);
    memcpy(file, header, header_bytes);
    for (int i = 0; i < 4; i++) memset(file + t[i].offset, 'a' + i, t[i].n_bytes);
    assert_int_equal(kv_write_file(path, file, total, &e), 0);

    struct kv_safetensors s;
    assert_int_equal(kv_safetensors_open(&s, path, &e), 0);
    assert_int_equal(s.n, 4);
    for (int i = 0; i < 4; i++) {
        const struct kv_tensor *r = kv_safetensors_find(&s, t[i].name);
        assert_non_null(r);
        assert_string_equal(r->dtype, t[i].dtype);
        assert_int_equal(r->n_dims, t[i].n_dims);
        assert_memory_equal(r->dims, t[i].dims, sizeof t[i].dims);
        assert_int_equal(r->offset, t[i].offset);
        assert_int_equal(r->n_bytes, t[i].n_bytes);
        for (size_t b = 0; b < r->n_bytes; b++) assert_int_equal(r->data[b], 'a' + i);
    }
    assert_null(kv_safetensors_find(&s, "values"));
    assert_string_equal(kv_safetensors_meta(&s, "format"), "kvsim-trace");
    assert_string_equal(kv_safetensors_meta(&s, "count"), "4");
    assert_null(kv_safetensors_meta(&s, "absent"));
    kv_safetensors_close(&s);
    free(file);
    free(header);
}

static void a_layout_names_no_tensor_twice(void **state) {
    (void)state;
    struct kv_error e = {0};
    struct kv_tensor t[2] = {{.name = "a", .dtype = "F32", .n_dims = 1, .dims = {1}},
                             {.name = "a", .dtype = "F32", .n_dims = 1, .dims = {1}}};
    char *header;
    size_t n;
    uint64_t total;
    assert_int_equal(kv_safetensors_layout(t, 2, NULL, 0, &header, &n, &total, &e), KV_EFAIL);
    assert_string_equal(e.msg, "tensor a is named twice");
    t[1] =
        (struct kv_tensor){.name = "b", .dtype = "F32", .n_dims = 2, .dims = {1u << 31, 1u << 31}};
    t[1].dims[0] *= 8;
    assert_int_equal(kv_safetensors_layout(t, 2, NULL, 0, &header, &n, &total, &e), KV_EFAIL);
    assert_string_equal(e.msg, "tensor b is too large to write");
}

static void a_header_that_passes_the_file_is_refused(void **state) {
    const char *path = *state;
    struct kv_safetensors s;
    struct kv_error e = {0};
    assert_int_equal(open_raw(*state, &s, UINT64_MAX, "{}", 0, &e), KV_EFAIL);
    assert_string_equal(e.msg, "the header claims 18446744073709551615 bytes at byte 0, but the "
                               "file has 10; it is truncated or no safetensors file");
    assert_int_equal(open_raw(*state, &s, 3, "{}", 0, &e), KV_EFAIL);
    assert_int_equal(kv_write_file(path, "GGUF", 4, &e), 0);
    assert_int_equal(kv_safetensors_open(&s, path, &e), KV_EFAIL);
    assert_string_equal(e.msg,
                        "the file has 4 bytes; a safetensors file begins with 8 bytes of length");
    assert_int_equal(kv_write_file(path, "", 0, &e), 0);
    assert_int_equal(kv_safetensors_open(&s, path, &e), KV_EFAIL);
}

static void a_header_that_is_no_object_is_refused(void **state) {
    struct kv_safetensors s;
    struct kv_error e = {0};
    assert_int_equal(open_raw(*state, &s, 2, "[]", 0, &e), KV_EFAIL);
    assert_string_equal(e.msg, "the header is not a JSON object: another value at byte 8");
    assert_int_equal(open_raw(*state, &s, 4, "{\"a\"", 0, &e), KV_EFAIL);
    assert_non_null(strstr(e.msg, "the header is not a JSON object: "));
}

static void lying_tensors_are_refused_by_name(void **state) {
    refuses(state, "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
            "tensor w ends at byte 70, but the file has 69 bytes; it is truncated or its header "
            "lies");
    refuses(state, "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
            "tensor w occupies 8 bytes, which is not what its shape and dtype F32 need");
    refuses(state,
            "{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", 8,
            "tensor w occupies 8 bytes, which is not what its shape and dtype F32 need");
    refuses(state,
            "{\"w\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
            0, "tensor w occupies 0 bytes, which is not what its shape and dtype U8 need");
    refuses(state, "{\"w\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
            "tensor w has dtype Q4, which is not known");
    refuses(state, "{\"w\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
            "tensor w has a dimension that is no whole number from 0 up");
    refuses(state, "{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
            8, "tensor w has 7 dimensions; at most 6 are read");
    refuses(state, "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
            "tensor w has no \"data_offsets\" [begin, end] with begin <= end");
    refuses(state,
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
            8, "tensors a and b overlap at byte 116");
    refuses(state, "{\"w\":7}", 8, "tensor w has no \"dtype\"");
    refuses(state, "{\"__metadata__\":{\"v\":1}}", 0, "metadata v in the header is not a string");
    refuses(state, "{\"__metadata__\":[]}", 0, "\"__metadata__\" in the header is not an object");
}

static void no_single_flipped_byte_breaks_the_reader(void **state) {
    const char *header = "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,12]}}";
    char copy[256];
    for (size_t i = 0; i < strlen(header); i++)
        for (int bit = 0; bit < 8; bit++) {
            struct kv_safetensors s;
            struct kv_error e = {0};
            strcpy(copy, header);
            copy[i] = (char)(copy[i] ^ (1 << bit));
            if (copy[i] == 0) continue;
            if (open_raw(*state, &s, strlen(header), copy, 12, &e)) {
                assert_true(e.msg[0] != 0);
                continue;
            }
            for (size_t k = 0; k < s.n; k++)
                assert_true(s.tensors[k].offset + s.tensors[k].n_bytes <= s.map.n);
            kv_safetensors_close(&s);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_laid_out_reads_back),
        cmocka_unit_test(a_layout_names_no_tensor_twice),
        cmocka_unit_test(a_header_that_passes_the_file_is_refused),
        cmocka_unit_test(a_header_that_is_no_object_is_refused),
        cmocka_unit_test(lying_tensors_are_refused_by_name),
        cmocka_unit_test(no_single_flipped_byte_breaks_the_reader),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_dir, remove_dir);
}
