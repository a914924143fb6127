# SPDX-License-Identifier: Apache-2.0
# Accuracy, and divergence from the 16-bit run, against effective bits (codes and metadata).

do for [p = 1:panels] {
    x_title[p] = "effective bits a cached value"
}
y_title[1] = "accuracy, %"
y_format[1] = "%g"
if (panels > 1) {
    y_title[2] = zero_drawn ? "KL to 16 bit, nats a token (0 at the foot)" : "KL to 16 bit, nats a token"
    y_format[2] = "%g"
}
