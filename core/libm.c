/* libm.c - tells apart C libraries whose functions have other last bits. */
#include <math.h>
#include <string.h>

#include "nn.h"

enum { ARGUMENTS = 512 };

/* FNV-1a over the bytes of a number. */
static uint64_t hash_number(uint64_t hash, double x) {
    unsigned char bytes[sizeof x];
    memcpy(bytes, &x, sizeof x);
    for (size_t i = 0; i < sizeof x; i++) hash = (hash ^ bytes[i]) * 0x100000001B3;
    return hash;
}

/* Of every function that an operator, an optimizer or an initial value calls. */
uint64_t nn_libm_bits(void) {
    static double (*const functions[])(double) = {exp, expm1, log, log1p, tanh, erfc, sin, cos};
    uint64_t hash = 0xCBF29CE484222325;
    for (size_t f = 0; f < sizeof functions / sizeof functions[0]; f++)
        for (int i = 1; i <= ARGUMENTS; i++) hash = hash_number(hash, functions[f](i / 81.0));
    for (int i = 1; i <= ARGUMENTS; i++) hash = hash_number(hash, pow(i / 513.0, i % 31));
    return hash;
}
