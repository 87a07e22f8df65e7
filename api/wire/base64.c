/* base64.c - decodes base64 (RFC 4648, section 4), strictly: padded, without line breaks, unused bits zero. No two
 * texts decode to the same bytes. */
#include <string.h>

#include "tensor.h"

enum { BAD = 0x80 }; /* marks a character that is no digit; a digit has only the six bits below */

static void make_table(unsigned char value[256]) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    memset(value, BAD, 256);
    for (unsigned char i = 0; i < 64; i++) value[(unsigned char)alphabet[i]] = i;
}

/* The 24 bits of up to four digits at p. Missing digits count as zero. *bad collects the BAD of all digits. */
static uint32_t group(const unsigned char value[256], const unsigned char *p, size_t digits, unsigned *bad) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; i++) {
        unsigned char v = i < digits ? value[p[i]] : 0;
        *bad |= v;
        bits = bits << 6 | v;
    }
    return bits;
}

int64_t api_base64_decode(const char *text, size_t size, void *out, size_t room) {
    if (size % 4) return -1;
    size_t padding = size && text[size - 1] == '=' ? 1 + (text[size - 2] == '=') : 0;
    size_t bytes = size / 4 * 3 - padding, whole = bytes / 3;
    if (bytes > room) return -1;
    unsigned char value[256], *to = out;
    make_table(value);
    const unsigned char *p = (const unsigned char *)text;
    unsigned bad = 0;
    for (size_t i = 0; i < whole; i++, p += 4, to += 3) {
        uint32_t bits = group(value, p, 4, &bad);
        to[0] = (unsigned char)(bits >> 16);
        to[1] = (unsigned char)(bits >> 8);
        to[2] = (unsigned char)bits;
    }
    if (padding) {
        uint32_t bits = group(value, p, 4 - padding, &bad);
        to[0] = (unsigned char)(bits >> 16);
        if (padding == 1) to[1] = (unsigned char)(bits >> 8);
        if (bits & (padding == 1 ? 0xff : 0xffff)) return -1;
    }
    return bad & BAD ? -1 : (int64_t)bytes;
}
