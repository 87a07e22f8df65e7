/* negotiate.c - see negotiate.h. */
#include "negotiate.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *type;
    enum api_encoding encoding;
} media_types[] = {{"application/json", API_JSON},
                   {"application/safetensors", API_SAFETENSORS},
                   {"application/merge-patch+json", API_JSON}};

/* --- one media type, or range of them, with its parameters --------------------------------------------------- */

struct range {
    const char *type;
    size_t size;
    double weight; /* the parameter "q" */
};

static bool is(const struct range *range, const char *type) {
    return strlen(type) == range->size && strncasecmp(range->type, type, range->size) == 0;
}

/* The end of a parameter's value: of a token, or of a quoted string, in which commas and semicolons do not separate. */
static const char *value_end(const char *at) {
    if (*at != '"') return at + strcspn(at, " \t;,\"");
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1]) at++;
    return *at ? at + 1 : at;
}

/* A weight from 0 to 1. A malformed weight counts as absent, which is 1. */
static double read_weight(const char *text, size_t size) {
    double weight = 0, unit = 1;
    bool fraction = false, any = false;
    for (size_t i = 0; i < size; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (!digit && (text[i] != '.' || fraction)) return 1;
        any |= digit;
        fraction |= !digit;
        if (digit && fraction) unit /= 10;
        if (digit) weight = fraction ? weight + (text[i] - '0') * unit : weight * 10 + (text[i] - '0');
    }
    return !any || weight > 1 ? 1 : weight;
}

/* Reads the media range at `at`, with its parameter "q". Returns its end: a comma, or the end of the text. */
static const char *read_range(const char *at, struct range *range) {
    *range = (struct range){at, strcspn(at, " \t;,"), 1};
    at += range->size;
    while (*at && *at != ',') {
        const char *name = at += strspn(at, " \t;");
        size_t size = strcspn(at, " \t;,=\"");
        const char *value = at += size;
        if (*at == '=') value++;
        if (*at == '=' || *at == '"') at = value_end(value);
        if (size == 1 && strncasecmp(name, "q", 1) == 0 && value > name + 1)
            range->weight = read_weight(value, (size_t)(at - value));
    }
    return at;
}

static bool find_encoding(const struct range *range, enum api_encoding *encoding) {
    for (size_t i = 0; i < sizeof media_types / sizeof media_types[0]; i++)
        if (is(range, media_types[i].type)) {
            *encoding = media_types[i].encoding;
            return true;
        }
    return false;
}

/* --- headers --------------------------------------------------------------------------------------------------- */

bool api_encoding_of_type(const char *type, enum api_encoding *encoding) {
    struct range range;
    const char *end = read_range(type, &range), *behind = type + range.size;
    behind += strspn(behind, " \t");
    return !*end && (!*behind || *behind == ';') && find_encoding(&range, encoding);
}

/* How exactly a range names an encoding: 3 by its media type, 2 by application/<any>, 1 by any type, 0 not at all. */
static int closeness(const struct range *range, enum api_encoding encoding) {
    enum api_encoding named;
    if (find_encoding(range, &named)) return named == encoding ? 3 : 0;
    return is(range, "application/*") ? 2 : is(range, "*/*");
}

/* The weight that Accept gives to one encoding: that of the range that names it most exactly; of equally exact ranges,
 * the greatest weight. `close` is the range's closeness, `place` its place in the list, from 1. */
struct wish {
    int close, place;
    double weight;
};

static void consider(struct wish *wish, const struct range *range, enum api_encoding encoding, int place) {
    int close = closeness(range, encoding);
    bool better = close > wish->close || (close && close == wish->close && range->weight > wish->weight);
    if (better) *wish = (struct wish){close, place, range->weight};
}

bool api_encoding_accepted(const char *accept, enum api_encoding *encoding) {
    static const enum api_encoding encodings[] = {API_JSON, API_SAFETENSORS};
    struct wish of[2] = {{0}}, *own = &of[*encoding == API_SAFETENSORS], *other = own == of ? &of[1] : &of[0];
    if (!accept) return true;
    accept += strspn(accept, " \t,");
    if (!*accept) return true;
    for (int place = 1; *accept; place++) {
        struct range range;
        accept = read_range(accept, &range);
        for (int i = 0; i < 2; i++) consider(&of[i], &range, encodings[i], place);
        accept += strspn(accept, " \t,");
    }
    if (other->weight > own->weight || (other->weight == own->weight && other->place < own->place))
        *encoding = encodings[other - of];
    return own->weight > 0 || other->weight > 0;
}

bool api_coding_is_identity(const char *codings) {
    static const char identity[] = "identity";
    if (!codings) return true;
    for (codings += strspn(codings, " \t,"); *codings; codings += strspn(codings, " \t,")) {
        size_t size = strcspn(codings, " \t,");
        if (size != strlen(identity) || strncasecmp(codings, identity, size) != 0) return false;
        codings += size;
    }
    return true;
}
