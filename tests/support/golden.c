/* golden.c - reference values read from tests/golden/values. */
#include "golden.h"

#include <stdio.h>
#include <string.h>

#include "../../api/wire/safetensors.h"
#include "check.h"

struct golden {
    const char *name;
    struct nn_arena *arena;
    unsigned char *body;
    struct api_safetensors file;
};

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing: see tests/golden/README.md", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *body = malloc(*size + 1);
    assert_non_null(body);
    assert_int_equal(fread(body, 1, *size, f), *size);
    fclose(f);
    return body;
}

static void check_current(const struct golden *golden, json_t *now) {
    const char *text = json_string_value(json_object_get(golden->file.metadata, "case"));
    json_t *then = text ? json_loads(text, 0, NULL) : NULL;
    if (!then || !json_equal(then, now)) {
        char *dump = json_dumps(now, JSON_COMPACT | JSON_SORT_KEYS);
        print_error("values are for %s\nthe table says %s\n", text ? text : "nothing", dump);
        free(dump);
        fail_msg("%s.safetensors is stale: see tests/golden/README.md", golden->name);
    }
    json_decref(then);
    json_decref(now);
}

struct golden *golden_open(const char *name, json_t *now) {
    struct golden *golden = calloc(1, sizeof *golden);
    assert_non_null(golden);
    char *path = test_format("tests/golden/values/%s.safetensors", name);
    size_t size;
    struct nn_error err = {0};
    golden->name = name;
    golden->arena = nn_arena_new();
    golden->body = read_file(path, &size);
    test_ok(api_safetensors_read(golden->body, size, golden->arena, &golden->file, &err), &err, "%s", path);
    free(path);
    if (now) check_current(golden, now);
    return golden;
}

void golden_close(struct golden *golden) {
    if (!golden) return;
    api_safetensors_fini(&golden->file);
    nn_arena_free(golden->arena);
    free(golden->body);
    free(golden);
}

size_t golden_count(const struct golden *golden) { return golden->file.n_tensors; }

static const struct api_tensor *find(const struct golden *golden, const char *name) {
    for (size_t i = 0; i < golden->file.n_tensors; i++)
        if (!strcmp(golden->file.tensors[i].name, name)) return &golden->file.tensors[i];
    fail_msg("%s.safetensors has no %s", golden->name, name);
    return NULL;
}

const double *golden_get(struct golden *golden, const struct nn_shape *shape, const char *name, ...) {
    char full[128];
    va_list args;
    va_start(args, name);
    vsnprintf(full, sizeof full, name, args);
    va_end(args);
    const struct api_tensor *tensor = find(golden, full);
    char has[64], wants[64];
    if (!nn_shape_equal(&tensor->shape, shape))
        fail_msg("%s.safetensors: %s has shape %s, wanted %s", golden->name, full,
                 nn_shape_text(&tensor->shape, has, sizeof has), nn_shape_text(shape, wants, sizeof wants));
    double *reals = nn_arena_alloc(golden->arena, (size_t)nn_shape_elements(shape), sizeof *reals);
    assert_non_null(reals);
    struct nn_error err = {0};
    test_ok(api_tensor_convert(tensor, NN_F64, reals, &err), &err, "%s.safetensors: %s", golden->name, full);
    return reals;
}
