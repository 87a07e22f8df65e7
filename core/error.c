/* error.c - recording what went wrong, once, for a caller who owns the record. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "nn.h"

static const struct nn_code_info infos[NN_CODE_COUNT] = {
    [NN_OK] = {"ok", 200, "OK"},
#define NN_ERROR(code, slug, status, title) [code] = {slug, status, title},
#include "errors.def"
#undef NN_ERROR
};

const struct nn_code_info *nn_code_info(enum nn_code code) {
    assert(code < NN_CODE_COUNT);
    return &infos[code];
}

static int record(struct nn_error *err, enum nn_code code, const char *member, const char *format,
                  va_list args) __attribute__((format(printf, 4, 0)));

static int record(struct nn_error *err, enum nn_code code, const char *member, const char *format,
                  va_list args) {
    assert(code != NN_OK);
    if (err->code != NN_OK) return (int)code;
    *err = (struct nn_error){.code = code, .index = -1};
    snprintf(err->member, sizeof err->member, "%s", member);
    vsnprintf(err->text, sizeof err->text, format, args);
    return (int)code;
}

int nn_fail(struct nn_error *err, enum nn_code code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(err, code, "", format, args);
    va_end(args);
    return (int)code;
}

int nn_fail_member(struct nn_error *err, enum nn_code code, const char *member, const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(err, code, member, format, args);
    va_end(args);
    return (int)code;
}

int nn_fail_shape(struct nn_error *err, const struct nn_shape *expected, const struct nn_shape *actual,
                  const char *format, ...) {
    if (err->code != NN_OK) return NN_E_SHAPE;
    va_list args;
    va_start(args, format);
    record(err, NN_E_SHAPE, "", format, args);
    va_end(args);
    err->has_shapes = true;
    err->expected = *expected;
    err->actual = *actual;
    return NN_E_SHAPE;
}

int nn_error_at(struct nn_error *err, enum nn_site site, int index) {
    if (err->site == NN_SITE_NONE) {
        err->site = site;
        err->index = index;
    }
    return (int)err->code;
}
