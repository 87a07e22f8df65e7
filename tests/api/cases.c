/* Requests and expected answers as files: cases/README.md says how they are written. Every case is a test,
 * with a service of its own; and one more in safetensors, for it is one document in two encodings. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/members.h"
#include "../../api/wire/safetensors.h"
#include "../support/service.h"

#define FOLDER    "tests/api/cases"
#define MAX_CASES 512
#define TOLERANCE 1e-6 /* of numbers, relative to 1 + their size, where a step names none */

static double tolerance;

#define SAFETENSORS "application/safetensors"

struct test_case {
    char name[160];
    json_t *steps;
    bool safetensors;
};

/* --- comparing ------------------------------------------------------------------------------------- */

static bool differ(const char *where, const json_t *expected, const json_t *actual) {
    char *e = json_dumps(expected, JSON_ENCODE_ANY | JSON_COMPACT);
    char *a = actual ? json_dumps(actual, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    print_error("%s: %s instead of %s\n", where, a ? a : "nothing", e);
    free(e);
    free(a);
    return false;
}

static bool is_word(const json_t *json, const char *word) {
    return json_is_string(json) && strcmp(json_string_value(json), word) == 0;
}

/* Members that are not expected may be anything; elements are all expected. */
static bool matches(const char *where, const json_t *expected, const json_t *actual) {
    char inner[512];
    const char *name;
    json_t *value;
    size_t i;
    bool same = true;
    if (is_word(expected, "(none)")) return actual ? differ(where, expected, actual) : true;
    if (!actual) return differ(where, expected, actual);
    if (is_word(expected, "*")) return true;
    if (json_is_number(expected) && json_is_number(actual)) {
        double e = json_number_value(expected), a = json_number_value(actual);
        return fabs(e - a) <= tolerance * (1 + fabs(e)) ? true : differ(where, expected, actual);
    }
    if (json_is_object(expected) && json_is_object(actual)) {
        json_object_foreach((json_t *)expected, name, value) {
            snprintf(inner, sizeof inner, "%s/%s", where, name);
            same &= matches(inner, value, json_object_get(actual, name));
        }
        return same;
    }
    if (json_is_array(expected) && json_array_size(expected) == json_array_size(actual)) {
        json_array_foreach((json_t *)expected, i, value) {
            snprintf(inner, sizeof inner, "%s/%zu", where, i);
            same &= matches(inner, value, json_array_get(actual, i));
        }
        return same;
    }
    return json_equal(expected, actual) ? true : differ(where, expected, actual);
}

/* --- safetensors ----------------------------------------------------------------------------------- */

/* The requests and answers that hold tensors. */
static bool has_tensors(const char *line) {
    const char *end = strchr(line, '?');
    size_t size = end ? (size_t)(end - line) : strlen(line);
    return strcmp(line, "POST /forward") == 0 || strcmp(line, "POST /backward") == 0 ||
           (size > 11 && (strncmp(line + size - 11, "/parameters", 11) == 0 ||
                          strncmp(line + size - 10, "/optimizer", 10) == 0));
}

static bool is_map(const char *name) {
    const struct api_member *member = api_member_find(name, strlen(name));
    return member && member->kind == API_TENSORS;
}

/* The numbers of a nested array, into `data` where it is not NULL: I64 if all are integers, else F64. */
static void flatten(const json_t *list, int depth, struct api_tensor_out *tensor, void *data, size_t *n) {
    size_t i;
    json_t *item;
    if (!json_is_array(list)) {
        assert_true(json_is_number(list));
        if (json_is_real(list)) tensor->dtype = API_F64;
        if (data && tensor->dtype == API_F64) ((double *)data)[*n] = json_number_value(list);
        if (data && tensor->dtype == API_I64) ((int64_t *)data)[*n] = json_integer_value(list);
        ++*n;
        return;
    }
    tensor->shape.dim[depth] = (int64_t)json_array_size(list);
    tensor->shape.rank = tensor->shape.rank > depth ? tensor->shape.rank : depth + 1;
    json_array_foreach((json_t *)list, i, item) flatten(item, depth + 1, tensor, data, n);
}

struct file {
    json_t *metadata;
    struct api_tensor_out tensors[64];
    void *data[64];
    size_t size[64], n;
};

static void add_map(struct file *file, const char *prefix, const json_t *map) {
    const char *name;
    json_t *list;
    json_object_foreach((json_t *)map, name, list) {
        struct api_tensor_out *tensor = &file->tensors[file->n];
        size_t n = 0, again = 0;
        assert_true(file->n < 64);
        *tensor = (struct api_tensor_out){.member = prefix, .name = name, .dtype = API_I64};
        flatten(list, 0, tensor, NULL, &n);
        file->size[file->n] = n * sizeof(double);
        file->data[file->n] = malloc(n * sizeof(double) + 1);
        flatten(list, 0, tensor, file->data[file->n++], &again);
    }
}

/* The document in its other encoding. The parameters resource has names without their map. */
static char *to_safetensors(const char *line, const json_t *document, size_t *size) {
    bool tensors = has_tensors(line), plain = strstr(line, "/parameters");
    struct file file = {.metadata = json_object()};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)document, name, value) {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
        if (tensors && is_map(name))
            add_map(&file, plain ? "" : name, value);
        else
            json_object_set_new(file.metadata, name, text ? json_string(text) : json_incref(value));
        free(text);
    }
    char *bytes = api_safetensors_header(file.metadata, file.tensors, file.n, size);
    for (size_t i = 0; i < file.n; i++) {
        bytes = realloc(bytes, *size + file.size[i]);
        assert_non_null(bytes);
        memcpy(bytes + *size, file.data[i], file.size[i]);
        *size += file.size[i];
        free(file.data[i]);
    }
    json_decref(file.metadata);
    return bytes;
}

static json_t *nested(const struct api_tensor *tensor, const void *data, int depth, size_t *n) {
    if (depth == tensor->shape.rank) {
        size_t i = (*n)++;
        if (tensor->dtype == API_I64) return json_integer(((const int64_t *)data)[i]);
        return json_real(((const double *)data)[i]);
    }
    json_t *list = json_array();
    for (int64_t i = 0; i < tensor->shape.dim[depth]; i++)
        json_array_append_new(list, nested(tensor, data, depth + 1, n));
    return list;
}

static void add_tensor(json_t *document, const struct api_tensor *tensor) {
    const char *slash = strchr(tensor->name, '/');
    char map[64];
    struct nn_error err = {0};
    size_t n = (size_t)nn_shape_elements(&tensor->shape), i = 0;
    double *data = malloc(n * sizeof(double) + 1);
    snprintf(map, sizeof map, "%.*s", slash ? (int)(slash - tensor->name) : 10,
             slash ? tensor->name : "parameters");
    enum nn_dtype to = tensor->dtype == API_I64 ? NN_I64 : NN_F64;
    assert_int_equal(api_tensor_convert(tensor, to, data, &err), NN_OK);
    if (!json_object_get(document, map)) json_object_set_new(document, map, json_object());
    json_object_set_new(json_object_get(document, map), slash ? slash + 1 : tensor->name,
                        nested(tensor, data, 0, &i));
    free(data);
}

/* And back: the document that the JSON answer would have been. */
static json_t *from_safetensors(const struct test_answer *answer) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_safetensors file;
    json_t *document = json_object(), *text;
    const char *name;
    assert_int_equal(api_safetensors_read(answer->body, answer->size, arena, &file, &err), NN_OK);
    json_object_foreach(file.metadata, name, text) {
        json_t *value = json_loads(json_string_value(text), JSON_DECODE_ANY, NULL);
        bool word = !value || strcmp(name, "incarnation") == 0 || strcmp(name, "context") == 0;
        json_object_set(document, name, word ? text : value);
        json_decref(value);
    }
    for (size_t i = 0; i < file.n_tensors; i++) add_tensor(document, &file.tensors[i]);
    api_safetensors_fini(&file);
    nn_arena_free(arena);
    return document;
}

/* --- a step ---------------------------------------------------------------------------------------- */

/* The text with "$name" replaced by what was taken from an answer. */
static char *fill_in(const char *text, const json_t *taken) {
    char *out = calloc(1, strlen(text) + 4096);
    const char *name;
    json_t *value;
    assert_non_null(out);
    for (char *to = out; *text;) {
        size_t used = 0;
        json_object_foreach((json_t *)taken, name,
                            value) if (*text == '$' && strncmp(text + 1, name, strlen(name)) == 0) {
            used = strlen(name) + 1;
            to += snprintf(to, 256, "%s", json_string_value(value));
        }
        if (!used) *to++ = *text;
        text += used ? used : 1;
    }
    return out;
}

static const char *text_of(const json_t *step, const char *object, const char *name) {
    return json_string_value(json_object_get(json_object_get(step, object), name));
}

static struct test_answer send(struct test_service *service, const json_t *step, const json_t *taken,
                               bool safetensors) {
    char method[16], *line = fill_in(json_string_value(json_object_get(step, "do")), taken);
    const char *path = strchr(line, ' ') + 1, *text = json_string_value(json_object_get(step, "text"));
    json_t *body = json_object_get(step, "body");
    struct test_request request = {.method = method,
                                   .path = path,
                                   .authorization = text_of(step, "headers", "Authorization"),
                                   .content_type = text_of(step, "headers", "Content-Type"),
                                   .accept = text_of(step, "headers", "Accept")};
    char *bytes = NULL;
    size_t size = 0;
    snprintf(method, sizeof method, "%.*s", (int)(path - line - 1), line);
    if (body || text) {
        char *dumped = body ? json_dumps(body, 0) : NULL;
        bytes = fill_in(body ? dumped : text, taken);
        size = strlen(bytes);
        free(dumped);
    }
    bool forced = is_word(json_object_get(step, "encoding"), "safetensors");
    if (forced || (safetensors && has_tensors(line) && !text && !request.accept && !request.content_type)) {
        json_t *document = bytes ? json_loads(bytes, 0, NULL) : NULL;
        free(bytes);
        bytes = document ? to_safetensors(line, document, &size) : NULL;
        if (document) request.content_type = SAFETENSORS;
        request.accept = SAFETENSORS;
        json_decref(document);
    }
    request.body = bytes;
    request.size = size;
    struct test_answer answer = test_request(service, &request);
    free(bytes);
    free(line);
    return answer;
}

static json_t *document_of(const struct test_answer *answer) {
    const char *type = test_answer_header(answer, "Content-Type");
    if (strcmp(type, SAFETENSORS) == 0) return from_safetensors(answer);
    json_t *json = json_loadb(answer->body, answer->size, JSON_REJECT_DUPLICATES, NULL);
    if (!json) print_error("no JSON: %s\n", answer->body);
    assert_non_null(json);
    return json;
}

static void run_step(struct test_service *service, const json_t *step, json_t *taken, bool safetensors) {
    const char *name;
    json_t *value;
    const char *line = json_string_value(json_object_get(step, "do"));
    json_t *status = json_object_get(step, "status"), *expected = json_object_get(step, "answer");
    atomic_fetch_add(&service->now_ms, json_integer_value(json_object_get(step, "after_ms")));
    struct test_answer answer = send(service, step, taken, safetensors);
    int wanted = status ? (int)json_integer_value(status) : 200;
    if (answer.status != wanted)
        fail_msg("%s: %d instead of %d: %.2000s", line, answer.status, wanted, answer.body);
    json_t *document = document_of(&answer), *told = json_object_get(step, "tolerance");
    tolerance = told ? json_number_value(told) : TOLERANCE;
    assert_true(!expected || matches(line, expected, document));
    json_object_foreach(json_object_get(step, "answer_headers"), name, value) {
        const char *header = test_answer_header(&answer, name);
        if (!header || strcmp(header, json_string_value(value)) != 0)
            fail_msg("%s: %s: %s", line, name, header ? header : "is missing");
    }
    json_object_foreach(json_object_get(step, "take"), name, value) {
        json_t *found = json_object_get(document, json_string_value(value));
        assert_true(json_is_string(found));
        json_object_set(taken, name, found);
    }
    json_decref(document);
    test_answer_free(&answer);
}

/* A first step may say how the service is set up. */
static struct api_settings settings_of(const json_t *step) {
    const json_t *given = json_object_get(step, "service");
    struct api_settings settings = {.limits = api_default_limits, .version = "1.2.3"};
    const struct {
        const char *name;
        int *limit;
    } limits[] = {{"models", &settings.limits.models},
                  {"contexts", &settings.limits.contexts},
                  {"layers", &settings.limits.layers},
                  {"rank", &settings.limits.rank},
                  {"name", &settings.limits.name},
                  {"tensors", &settings.limits.tensors},
                  {"json_depth", &settings.limits.json_depth},
                  {"json_values", &settings.limits.json_values}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (json_object_get(given, limits[i].name))
            *limits[i].limit = (int)json_integer_value(json_object_get(given, limits[i].name));
    json_t *memory = json_object_get(given, "memory"), *body = json_object_get(given, "body");
    if (memory) settings.limits.memory = (size_t)json_integer_value(memory);
    if (body) settings.limits.body = (size_t)json_integer_value(body);
    settings.token = json_string_value(json_object_get(given, "token"));
    return settings;
}

static void run_case(void **state) {
    const struct test_case *test = *state;
    struct test_service service;
    struct api_settings settings = settings_of(json_array_get(test->steps, 0));
    json_t *taken = json_object(), *step;
    size_t i;
    test_service_start(&service, &settings, 0);
    json_array_foreach(test->steps, i, step) {
        if (json_object_get(step, "do")) run_step(&service, step, taken, test->safetensors);
    }
    json_decref(taken);
    test_service_stop(&service);
}

/* --- files ----------------------------------------------------------------------------------------- */

static struct test_case cases[MAX_CASES];
static struct CMUnitTest tests[MAX_CASES];
static size_t n_cases;

static void add_case(const char *file, const char *title, json_t *steps, bool safetensors) {
    if (n_cases == MAX_CASES) return;
    struct test_case *added = &cases[n_cases];
    added->steps = json_incref(steps);
    added->safetensors = safetensors;
    snprintf(added->name, sizeof added->name, "%.*s: %s%s", (int)strcspn(file, "."), file, title,
             safetensors ? " (safetensors)" : "");
    tests[n_cases++] = (struct CMUnitTest){added->name, run_case, NULL, NULL, added};
}

static bool uses_tensors(const json_t *steps) {
    size_t i;
    json_t *step;
    json_array_foreach((json_t *)steps, i, step) {
        const char *line = json_string_value(json_object_get(step, "do"));
        if (line && has_tensors(line)) return true;
    }
    return false;
}

/* A title that begins with "JSON" is of JSON alone. */
static bool read_file(const char *name) {
    char path[512];
    json_error_t error;
    const char *title;
    json_t *steps;
    snprintf(path, sizeof path, FOLDER "/%s", name);
    json_t *file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!file) {
        fprintf(stderr, "%s:%d: %s\n", path, error.line, error.text);
        return false;
    }
    json_object_foreach(file, title, steps) {
        add_case(name, title, steps, false);
        if (strncmp(title, "JSON", 4) != 0 && uses_tensors(steps)) add_case(name, title, steps, true);
    }
    json_decref(file);
    return true;
}

static int is_json(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".json") == 0;
}

int main(void) {
    struct dirent **files;
    bool read = true;
    int n = scandir(FOLDER, &files, is_json, alphasort);
    for (int i = 0; i < n; i++) {
        read &= read_file(files[i]->d_name);
        free(files[i]);
    }
    if (n < 1 || !read) {
        fprintf(stderr, "the cases are not to be read; run this from the project's folder\n");
        return 1;
    }
    free(files);
    nn_blas_init();
    int failed = _cmocka_run_group_tests("cases", tests, n_cases, NULL, NULL);
    for (size_t i = 0; i < n_cases; i++) json_decref(cases[i].steps);
    return failed;
}
