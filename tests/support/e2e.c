/* e2e.c - see e2e.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "e2e.h"

struct test_daemon service;
struct http_client *client;

/* --- what lives until the test ends ------------------------------------------------------------------ */

enum kind { PLAIN, ANSWER, JSON, FILE_READ };
struct kept {
    struct kept *next;
    enum kind kind;
    void *it;
};
static struct kept *everything;

static void *keep(enum kind kind, void *it) {
    struct kept *kept = malloc(sizeof *kept);
    assert_non_null(kept);
    *kept = (struct kept){everything, kind, it};
    everything = kept;
    return it;
}

void *service_keep(void *data) { return keep(PLAIN, data); }

int service_forget(void **state) {
    (void)state;
    while (everything) {
        struct kept *kept = everything;
        everything = kept->next;
        if (kept->kind == ANSWER) http_answer_fini(kept->it);
        if (kept->kind == FILE_READ) test_file_close(kept->it);
        if (kept->kind == JSON)
            json_decref(kept->it);
        else
            free(kept->it);
        free(kept);
    }
    return 0;
}

/* --- the daemon -------------------------------------------------------------------------------------- */

void service_start(const char *const *flags, const char *const *environment) {
    test_daemon_start(&service, flags, environment);
    client = http_client_new(service.url);
    assert_non_null(client);
}

void service_stop(void) {
    service_forget(NULL);
    http_client_free(client);
    client = NULL;
    assert_int_equal(test_daemon_stop(&service), 0);
}

int service_setup(void **state) {
    (void)state;
    service_start(NULL, NULL);
    return 0;
}

int service_teardown(void **state) {
    (void)state;
    service_stop();
    return 0;
}

void service_is_alive(void) {
    assert_string_equal(text_at(ask(200, "GET", "/healthz", NULL), "status"), "ok");
    assert_int_equal(kill(service.pid, 0), 0);
}

/* --- calls ------------------------------------------------------------------------------------------- */

const struct http_answer *service_call(int status, const struct http_request *request) {
    struct http_answer *answer = calloc(1, sizeof *answer);
    assert_non_null(answer);
    http_call(client, request, answer);
    keep(ANSWER, answer);
    if (answer->status != status)
        fail_msg("%s %s answers %d, not %d: %.2000s\n%.500s", request->method, request->path, answer->status,
                 status, (char *)answer->body, request->body ? (const char *)request->body : "");
    return answer;
}

char *quoted(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    return service_keep(copy);
}

const json_t *service_json(const char *text) {
    json_t *json = json_loads(quoted(text), JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    return keep(JSON, json);
}

const struct http_answer *ask_bytes(int status, const char *method, const char *path, const char *body) {
    const char *text = body ? quoted(body) : NULL;
    return service_call(status, &(struct http_request){.method = method,
                                                       .path = path,
                                                       .type = text ? JSON_TYPE : NULL,
                                                       .body = text,
                                                       .size = text ? strlen(text) : 0});
}

static const json_t *json_of(const struct http_answer *answer, const char *type) {
    char own[256];
    json_error_t error;
    assert_string_equal(http_header(answer, "Content-Type", own), type);
    json_t *json = json_loadb((char *)answer->body, answer->size, JSON_REJECT_DUPLICATES, &error);
    if (!json) fail_msg("not JSON: %s: %.500s", error.text, (char *)answer->body);
    return keep(JSON, json);
}

static const struct http_answer *ask_formatted(int status, const char *method, const char *path,
                                               const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));
static const struct http_answer *ask_formatted(int status, const char *method, const char *path,
                                               const char *format, va_list args) {
    char *body = NULL;
    if (format) {
        assert_int_not_equal(vasprintf(&body, format, args), -1);
        service_keep(body);
    }
    return ask_bytes(status, method, path, body);
}

const json_t *ask(int status, const char *method, const char *path, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const struct http_answer *answer = ask_formatted(status, method, path, format, args);
    va_end(args);
    return json_of(answer, status < 400 ? JSON_TYPE : PROBLEM);
}

const struct test_file *ask_file(int status, const char *method, const char *path,
                                 struct test_writer *writer) {
    char type[256];
    struct http_request request = {.method = method, .path = path, .accept = FILE_TYPE};
    struct test_file *file = calloc(1, sizeof *file);
    assert_non_null(file);
    if (writer) {
        request.type = FILE_TYPE;
        request.body = service_keep(test_write_end(writer, &request.size));
    }
    const struct http_answer *answer = service_call(status, &request);
    assert_string_equal(http_header(answer, "Content-Type", type), FILE_TYPE);
    test_file_open(file, answer->body, answer->size);
    return keep(FILE_READ, file);
}

/* --- problems ---------------------------------------------------------------------------------------- */

const json_t *check_problem(const struct http_answer *answer, int status, const char *slug,
                            const char *pointer) {
    char type[128];
    if (answer->status != status)
        fail_msg("answers %d, not %d: %.1000s", answer->status, status, (char *)answer->body);
    const json_t *problem = json_of(answer, PROBLEM);
    snprintf(type, sizeof type, "urn:gradd:problem:%s", slug);
    const char *own = json_string_value(json_object_get(problem, "pointer"));
    if (strcmp(text_at(problem, "type"), type) != 0 || (pointer && strcmp(pointer, own ? own : "") != 0))
        fail_msg("not %s at \"%s\": %.1000s", slug, pointer ? pointer : "", (char *)answer->body);
    assert_int_equal(integer_at(problem, "status"), status);
    assert_true(text_at(problem, "title")[0]);
    assert_true(text_at(problem, "detail")[0]);
    return problem;
}

const json_t *refused(int status, const char *slug, const char *pointer, const char *method, const char *path,
                      const char *format, ...) {
    va_list args;
    va_start(args, format);
    const struct http_answer *answer = ask_formatted(status, method, path, format, args);
    va_end(args);
    return check_problem(answer, status, slug, pointer);
}

/* --- looking into JSON ------------------------------------------------------------------------------- */

const json_t *at(const json_t *json, const char *path) {
    const char *rest = path;
    while (json && *rest) {
        char token[160];
        size_t size = strcspn(rest, "/");
        assert_in_range(size, 1, sizeof token - 1);
        memcpy(token, rest, size);
        token[size] = '\0';
        json = json_is_array(json) ? json_array_get(json, strtoul(token, NULL, 10))
                                   : json_object_get(json, token);
        rest += size;
        rest += *rest == '/';
    }
    if (!json) fail_msg("there is no \"%s\"", path);
    return json;
}

const char *text_at(const json_t *json, const char *path) {
    json = at(json, path);
    if (!json_is_string(json)) fail_msg("\"%s\" is not a string", path);
    return json_string_value(json);
}

int64_t integer_at(const json_t *json, const char *path) {
    json = at(json, path);
    if (!json_is_integer(json)) fail_msg("\"%s\" is not an integer", path);
    return json_integer_value(json);
}

double number_at(const json_t *json, const char *path) {
    json = at(json, path);
    if (!json_is_number(json)) fail_msg("\"%s\" is not a number", path);
    return json_number_value(json);
}

void same_json(const json_t *a, const json_t *b) {
    if (json_equal(a, b)) return;
    char *left = json_dumps(a, JSON_ENCODE_ANY), *right = json_dumps(b, JSON_ENCODE_ANY);
    service_keep(left);
    service_keep(right);
    fail_msg("differ: %.2000s\n%.2000s", left, right);
}

void near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance * fmax(1, fabs(b)))) fail_msg("%.17g is not %.17g", a, b);
}

size_t numbers_of(const json_t *json, double *out, size_t room) {
    size_t used = 0;
    if (json_is_number(json)) {
        assert_in_range(room, 1, SIZE_MAX);
        *out = json_number_value(json);
        return 1;
    }
    assert_true(json_is_array(json));
    for (size_t i = 0; i < json_array_size(json); i++)
        used += numbers_of(json_array_get(json, i), out + used, room - used);
    return used;
}
