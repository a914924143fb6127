// SPDX-License-Identifier: Apache-2.0
// Bit packing: every width, every length 1..300, at every offset, up to an unreadable page.
#include "sim/quant/pack.h"
#include "sim/quant/test/guard.h"

#include <setjmp.h>
#include <cmocka.h>

enum { LONGEST = 300 };

static void test_round_trip(void **state) {
    (void)state;
    struct guard in, out;
    assert_int_equal(guard_open(&in, 4096), 0);
    assert_int_equal(guard_open(&out, 4096), 0);
    uint8_t back[LONGEST];
    for (unsigned bits = 1; bits <= 8; bits++)
        for (size_t n = 1; n <= LONGEST; n++) {
            size_t bytes = kv_packed_bytes(n, bits);
            uint8_t *codes = guard_end(&in, n), *packed = guard_end(&out, bytes);
            for (size_t i = 0; i < n; i++)
                codes[i] = (uint8_t)(kv_draw(bits, n, i) * (double)(1u << bits));
            packed[-1] = 0x5A;
            kv_pack(codes, n, bits, packed);
            assert_int_equal(packed[-1], 0x5A);
            kv_unpack(packed, n, bits, back);
            assert_memory_equal(back, codes, n);
            for (size_t i = 0; i < n; i++) { // bit by bit, as the layout says
                unsigned code = 0;
                for (unsigned k = 0; k < bits; k++) {
                    size_t at = i * bits + k;
                    code |= (unsigned)(packed[at / 8] >> (at % 8) & 1) << k;
                }
                assert_int_equal(code, codes[i]);
            }
            if (n * bits % 8) assert_int_equal(packed[bytes - 1] >> (n * bits % 8), 0);
        }
    guard_close(&in);
    guard_close(&out);
}

static void test_halves(void **state) {
    (void)state;
    struct guard floats, halves;
    assert_int_equal(guard_open(&floats, 4096), 0);
    assert_int_equal(guard_open(&halves, 4096), 0);
    for (size_t n = 1; n <= LONGEST; n++)
        for (size_t offset = 0; offset < 2; offset++) {
            float *x = guard_end(&floats, n * sizeof *x);
            uint8_t *h = (uint8_t *)guard_end(&halves, 2 * n + offset);
            for (size_t i = 0; i < n; i++) x[i] = (float)(kv_draw(n, offset, i) * 200.0 - 100.0);
            kv_put_halves(x, n, h);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(kv_get16(h + 2 * i), kv_f32_to_f16(x[i]));
                x[i] = kv_f16_to_f32(kv_get16(h + 2 * i));
            }
            float y[LONGEST];
            kv_get_halves(h, n, y);
            assert_memory_equal(x, y, n * sizeof *x);
        }
    guard_close(&floats);
    guard_close(&halves);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"codes of every width and length 1..300 come back, bit where the layout says",
         test_round_trip, 0, 0, 0},
        {"halves are the scalar conversion's at every length and odd address", test_halves, 0, 0,
         0},
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
