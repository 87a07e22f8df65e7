/* Numbers in and out, held against libc: the text as one number of an array is what strtof and strtod say, and a
 * bit pattern printed is read back as the same. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../api/wire/decimal.h"
#include "../../api/wire/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_text(const uint8_t *data, size_t size) {
    static const char tails[][64] = {"]", ",0.0000000000000000000000000000000000000000000000000000000000]"};
    for (int i = 0; i < 2; i++) { /* as the last number, and as one with more behind it */
        size_t whole = 1 + size + strlen(tails[i]);
        char *text = malloc(whole + 1), *number = malloc(size + 1);
        if (!text || !number) abort();
        text[0] = '[';
        if (size) memcpy(text + 1, data, size);
        if (size) memcpy(number, data, size);
        number[size] = '\0';
        memcpy(text + 1 + size, tails[i], strlen(tails[i]) + 1);
        struct nn_error err = {0};
        struct api_tensor tensor = {.json = text};
        tensor.json_size = api_json_array_scan(text, whole, &tensor.shape, &err);
        if (tensor.json_size == whole && tensor.shape.rank == 1 && tensor.shape.dim[0] == 1 + i &&
            number[0] != 't' && number[0] != 'f' && !strpbrk(number, " \t\r\n,")) {
            float f32[2], want32 = strtof(number, NULL);
            double f64[2], want64 = strtod(number, NULL);
            if (api_tensor_convert(&tensor, NN_F32, f32, &err) ? !isinf(want32)
                                                               : memcmp(f32, &want32, 4) != 0)
                abort();
            err.code = NN_OK;
            if (api_tensor_convert(&tensor, NN_F64, f64, &err) ? !isinf(want64)
                                                               : memcmp(f64, &want64, 8) != 0)
                abort();
        }
        free(text);
        free(number);
    }
}

static void print_bits(uint64_t bits) {
    uint32_t half = (uint32_t)bits;
    char text[API_DECIMAL_ROOM];
    double x;
    float y;
    memcpy(&x, &bits, sizeof x);
    memcpy(&y, &half, sizeof y);
    if (isfinite(x)) {
        size_t size = api_decimal_from_f64(x, text);
        if (size > API_DECIMAL_F64_SIZE) abort();
        text[size] = '\0';
        double back = strtod(text, NULL);
        if (memcmp(&back, &x, sizeof x) != 0) abort();
    }
    if (isfinite(y)) {
        size_t size = api_decimal_from_f32(y, text);
        if (size > API_DECIMAL_F32_SIZE) abort();
        text[size] = '\0';
        float back = strtof(text, NULL);
        if (memcmp(&back, &y, sizeof y) != 0) abort();
    }
}

/* Any digits and exponent, past the shortcut too. */
static void round_digits(uint64_t digits, int exponent) {
    char text[64];
    snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, exponent);
    double f64[] = {api_decimal_to_f64(digits, exponent), api_decimal_round_f64(digits, exponent)};
    float f32[] = {api_decimal_to_f32(digits, exponent), api_decimal_round_f32(digits, exponent)};
    double want64 = strtod(text, NULL);
    float want32 = strtof(text, NULL);
    for (int i = 0; i < 2; i++)
        if (memcmp(&f64[i], &want64, sizeof want64) != 0 || memcmp(&f32[i], &want32, sizeof want32) != 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_text(data, size);
    uint64_t bits = 0;
    int16_t exponent = 0;
    memcpy(&bits, data, size < sizeof bits ? size : sizeof bits);
    if (size >= 10) memcpy(&exponent, data + 8, 2);
    print_bits(bits);
    round_digits(bits, exponent % 400);
    round_digits(bits >> 40, exponent % 60);
    return 0;
}
