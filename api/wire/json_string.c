/* json_string.c - strings of JSON (RFC 8259, section 7), strictly. */
#include "json_string.h"

#include <string.h>

/* Table 3-7 of the Unicode Standard lists the well-formed byte sequences. */
size_t api_utf8_size(const char *p, const char *end) {
    const unsigned char *c = (const unsigned char *)p;
    size_t size = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    if ((size_t)(end - p) < size) return 0;
    for (size_t i = 1; i < size; i++)
        if ((c[i] & 0xc0) != 0x80) return 0;
    bool overlong = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
    bool surrogate = c[0] == 0xed && c[1] > 0x9f;
    bool beyond = c[0] == 0xf4 && c[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : size;
}

static char *write_utf8(char *out, uint32_t code) {
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *out++ = (char)((0xff00 >> (more + 1) & 0xff) | code >> 6 * more);
    while (more--) *out++ = (char)(0x80 | (code >> 6 * more & 0x3f));
    return out;
}

/* Reads four hexadecimal digits. -1: there are not four. */
static int32_t read_hex(const char *p, const char *end) {
    if (end - p < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = p[i] ? strchr(digits, p[i]) : NULL;
        if (!digit) return -1;
        value = value * 16 + (int32_t)((digit - digits) % 16);
    }
    return value;
}

/* Reads the escape behind a backslash at p. Returns its end; NULL, with the reason in *why, if it is malformed. */
static const char *read_escape(const char *p, const char *end, uint32_t *code, const char **why) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = p < end && *p ? strchr(letters, *p) : NULL;
    if (letter) {
        *code = (uint32_t)meanings[letter - letters];
        return p + 1;
    }
    int32_t unit = p < end && *p == 'u' ? read_hex(p + 1, end) : -1, low = -1;
    *why = unit < 0 ? "has a backslash that begins no escape" : "has \\u0000, which no text may hold here";
    if (unit <= 0) return NULL;
    p += 5;
    *code = (uint32_t)unit;
    if (unit < 0xd800 || unit > 0xdfff) return p;
    *why = "has one half of a surrogate pair without the other";
    if (unit < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') low = read_hex(p + 2, end);
    if (low < 0xdc00 || low > 0xdfff) return NULL;
    *code = 0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    return p + 6;
}

/* Decodes up to the closing quote at `end`. The output is never longer than the input. Returns NULL, or the text of an
 * error. */
static const char *decode(const char *p, const char *end, char *out) {
    const char *why = NULL;
    while (p < end) {
        if ((unsigned char)*p < 0x20) return "has a control character that is not escaped";
        if (*p == '\\') {
            uint32_t code;
            p = read_escape(p + 1, end, &code, &why);
            if (!p) return why;
            out = write_utf8(out, code);
            continue;
        }
        size_t size = api_utf8_size(p, end);
        if (!size) return "is not UTF-8";
        memcpy(out, p, size);
        out += size;
        p += size;
    }
    return NULL;
}

/* Finds the end of the string that begins at p, before it is decoded: the result bounds its decoded size. */
static const char *find_end(const char *p, const char *end) {
    for (; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
    return p < end ? p : NULL;
}

char *api_json_string_read(const char **p, const char *end, struct nn_arena *arena, struct nn_error *err) {
    const char *first = *p + 1, *last = find_end(first, end);
    if (**p != '"' || !last) {
        nn_fail(err, NN_E_MALFORMED, "a JSON string is expected, or is cut off");
        return NULL;
    }
    char *out = nn_arena_alloc(arena, (size_t)(last - first) + 1, 1);
    if (!out) {
        nn_fail(err, NN_E_NOMEM, "no memory for a string");
        return NULL;
    }
    const char *why = decode(first, last, out);
    if (why) {
        nn_fail(err, NN_E_MALFORMED, "a string of JSON %s", why);
        return NULL;
    }
    *p = last + 1;
    return out;
}
