/* Versions as conditions, gradients computed elsewhere, the accumulation buffer and blends. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/file.h"
#include "../support/service.h"

static struct test_service service;

#define LAYERS                                                                                               \
    "'seed': 3, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 2},"            \
    " {'op': 'dropout', 'p': 0.5}], 'loss': {'op': 'mse'}"
#define SGD   "'optimizer': {'op': 'sgd', 'lr': 1}"
#define BATCH "'inputs': {'x': [[1, 2], [3, 4]]}, 'targets': {'y': [[0, 1], [1, 0]]}"

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static int on_threads(void **state) {
    (void)state;
    test_service_start(&service, NULL, 4);
    return 0;
}

static json_int_t integer(const json_t *json, const char *name) {
    assert_true(json_is_integer(json_object_get(json, name)));
    return json_integer_value(json_object_get(json, name));
}

static void ask(int status, const char *request, const char *body) {
    json_decref(test_ask(&service, status, request, NULL, body ? "%s" : NULL, body));
}

static void check_slug(json_t *json, const char *slug, const char *pointer) {
    char type[80];
    snprintf(type, sizeof type, API_PROBLEM_TYPE "%s", slug);
    assert_string_equal(json_string_value(json_object_get(json, "type")), type);
    if (pointer) assert_string_equal(json_string_value(json_object_get(json, "pointer")), pointer);
    json_decref(json);
}

static void make(const char *name) {
    json_decref(test_ask(&service, 201, "POST /models", NULL, "{'name': '%s', " LAYERS ", " SGD "}", name));
}

/* Of the model "m". */
static json_int_t version(void) {
    json_t *json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    json_int_t v = integer(json, "version");
    json_decref(json);
    return v;
}

static char *incarnation(char text[20]) {
    json_t *json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    snprintf(text, 20, "%s", json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
    return text;
}

/* The parameters "0.weight" and "0.bias" of a model. */
struct values {
    double weight[4], bias[2];
};

static struct values values_of(const json_t *map) {
    struct values values;
    const json_t *weight = json_object_get(map, "0.weight"), *bias = json_object_get(map, "0.bias");
    for (size_t i = 0; i < 4; i++)
        values.weight[i] = json_number_value(json_array_get(json_array_get(weight, i / 2), i % 2));
    for (size_t i = 0; i < 2; i++) values.bias[i] = json_number_value(json_array_get(bias, i));
    return values;
}

static struct values parameters(const char *model) {
    char request[80];
    snprintf(request, sizeof request, "GET /models/%s/parameters", model);
    json_t *json = test_ask(&service, 200, request, NULL, NULL);
    struct values values = values_of(json_object_get(json, "parameters"));
    json_decref(json);
    return values;
}

enum { TEXT = 2000 };

/* `format` with `value` in place of its %s, if it has one. */
static char *fill(char text[TEXT], const char *format, const char *value) {
    const char *hole = strstr(format, "%s");
    size_t before = hole ? (size_t)(hole - format) : strlen(format), length = strlen(value);
    assert_true(strlen(format) + length < TEXT);
    memcpy(text, format, before);
    memcpy(text + before, value, length);
    memcpy(text + before + (hole ? length : 0), hole ? hole + 2 : "", strlen(hole ? hole + 2 : "") + 1);
    return text;
}

/* --- entity tags --------------------------------------------------------------------------------------- */

static struct test_answer get(const char *path, const char *accept, const char *if_none_match) {
    return test_request(&service,
                        &(struct test_request){
                            .method = "GET", .path = path, .accept = accept, .if_none_match = if_none_match});
}

static void tag_of(const char *path, const char *accept, char tag[128]) {
    struct test_answer answer = get(path, accept, NULL);
    assert_int_equal(answer.status, 200);
    assert_non_null(test_answer_header(&answer, "ETag"));
    snprintf(tag, 128, "%s", test_answer_header(&answer, "ETag"));
    test_answer_free(&answer);
}

#define JSON  "application/json"
#define FILES "application/safetensors"

static const struct {
    const char *path, *accept;
} representations[] = {
    {"/models/m/parameters", JSON},
    {"/models/m/parameters", FILES},
    {"/models/m/parameters?dtype=F16", JSON},
    {"/models/m/parameters?dtype=F16", FILES},
    {"/models/m/parameters?names=0.bias", JSON},
    {"/models/m/parameters?names=0.weight", JSON},
    {"/models/m/parameters?names=0.weight,0.bias", JSON},
    {"/models/m/parameters?dtype=BF16&names=0.bias", FILES},
};
enum { REPRESENTATIONS = sizeof representations / sizeof representations[0] };

/* Each representation has a tag of its own, and is not modified until the version is another. */
static void tags(void **state) {
    (void)state;
    char tag[REPRESENTATIONS][128], list[TEXT];
    make("m");
    for (int i = 0; i < REPRESENTATIONS; i++) {
        tag_of(representations[i].path, representations[i].accept, tag[i]);
        for (int k = 0; k < i; k++) assert_string_not_equal(tag[i], tag[k]);
    }
    for (int i = 0; i < REPRESENTATIONS; i++) {
        const char *other = tag[(i + 1) % REPRESENTATIONS];
        const struct {
            const char *format;
            int status;
        } cases[] = {{"%s", 304}, {"W/%s", 304}, {"\"x\", %s", 304}, {"*", 304}, {"\"x\"", 200}, {"", 200}};
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            fill(list, cases[k].format, tag[i]);
            struct test_answer answer = get(representations[i].path, representations[i].accept, list);
            assert_int_equal(answer.status, cases[k].status);
            assert_string_equal(test_answer_header(&answer, "ETag"), tag[i]);
            if (answer.status == 304) assert_int_equal(answer.size, 0);
            if (answer.status == 304) assert_null(test_answer_header(&answer, "Content-Type"));
            test_answer_free(&answer);
        }
        struct test_answer answer = get(representations[i].path, representations[i].accept, other);
        assert_int_equal(answer.status, 200);
        test_answer_free(&answer);
    }
    ask(200, "POST /backward", "{'model': 'm', 'apply': true, " BATCH "}");
    for (int i = 0; i < REPRESENTATIONS; i++) {
        struct test_answer answer = get(representations[i].path, representations[i].accept, tag[i]);
        assert_int_equal(answer.status, 200);
        assert_string_not_equal(test_answer_header(&answer, "ETag"), tag[i]);
        test_answer_free(&answer);
    }
    /* The same name and version, but another model. */
    ask(200, "DELETE /models/m", NULL);
    make("m");
    struct test_answer answer = get(representations[0].path, JSON, tag[0]);
    assert_int_equal(answer.status, 200);
    test_answer_free(&answer);
}

static void names(void **state) {
    (void)state;
    make("m");
    json_t *json = test_ask(&service, 200, "GET /models/m/parameters?names=0.bias", NULL, NULL);
    assert_int_equal(json_object_size(json_object_get(json, "parameters")), 1);
    json_decref(json);
    json = test_ask(&service, 200, "GET /models/m/parameters?names=0.bias%2C0%2eweight", NULL, NULL);
    assert_int_equal(json_object_size(json_object_get(json, "parameters")), 2);
    json_decref(json);
    ask(422, "GET /models/m/parameters?names=0.bias,nobody", NULL);
    ask(422, "GET /models/m/parameters?names=0.bias%00", NULL);
    ask(422, "GET /models/m/parameters?names=0.bias%2", NULL);
    ask(422, "GET /models/m/parameters?dtype=I64", NULL);
}

/* --- If-Match ------------------------------------------------------------------------------------------ */

/* Every call that changes a model; %s is its incarnation. */
static const struct {
    const char *request, *body;
    int made; /* versions */
} changes[] = {
    {"POST /backward",
     "{\"model\": \"m\", \"apply\": true, \"inputs\": {\"x\": [[1, 2]]}, \"targets\":"
     " {\"y\": [[1, 2]]}}",
     1},
    {"POST /backward",
     "{\"model\": \"m\", \"accumulate\": true, \"inputs\": {\"x\": [[1, 2]]}, \"targets\":"
     " {\"y\": [[1, 2]]}}",
     0},
    {"POST /step", "{\"model\": \"m\"}", 1},
    {"PATCH /models/m", "{\"optimizer\": {\"lr\": 0.5}}", 0},
    {"PUT /models/m/parameters?partial=true", "{\"parameters\": {\"0.bias\": [0, 0]}}", 1},
    {"POST /models/m/parameters", "{\"from\": \"m\", \"tau\": 0.5}", 1},
    {"POST /models/m/gradients",
     "{\"incarnation\": \"%s\", \"version\": 0, \"gradients\": {\"0.bias\": [1, 1]}}", 1},
    {"PUT /models/m/optimizer", "{\"steps\": 7, \"state\": {}}", 0},
    {"DELETE /models/m/gradients", NULL, 0},
    {"DELETE /models/m", NULL, 0},
};

static void matches(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "\"%s-99\"", "\"0123456789abcdef-0\"", "\"\"", "\"nonsense\"", "\"%s\"", "\"%s-\"", "\"%s-x\""};
    char own[20], tag[TEXT], body[TEXT];
    json_int_t at = 0;
    make("m");
    incarnation(own);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct test_request headers = {.if_match = tag};
        fill(body, changes[i].body ? changes[i].body : "", own);
        const char *format = changes[i].body ? "%s" : NULL;
        for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
            fill(tag, wrong[k], own);
            check_slug(test_ask(&service, 412, changes[i].request, &headers, format, body), "stale", NULL);
        }
        if (at) { /* a longer number that begins as the right one does is another */
            snprintf(tag, sizeof tag, "\"%s-%lld0\"", own, (long long)at);
            check_slug(test_ask(&service, 412, changes[i].request, &headers, format, body), "stale", NULL);
        }
        assert_int_equal(version(), at);
        snprintf(tag, sizeof tag, "\"other\", \"%s-%lld-json-F32\"", own, (long long)at);
        if (i % 3 == 1) snprintf(tag, sizeof tag, "*");
        if (i % 3 == 2) snprintf(tag, sizeof tag, "\"%s-%lld\"", own, (long long)at);
        json_decref(test_ask(&service, 200, changes[i].request, &headers, format, body));
        at += changes[i].made;
        if (strcmp(changes[i].request, "DELETE /models/m") != 0) assert_int_equal(version(), at);
    }
    ask(404, "GET /models/m", NULL);
}

/* Writers on threads, each of whom means the same version: one a round has its way. */
enum { WRITERS = 8, ROUNDS = 60 };
static atomic_int won, lost, odd;
static pthread_barrier_t barrier;
static char own_incarnation[20];

static void *write_rounds(void *arg) {
    int writer = *(int *)arg;
    char tag[64], body[200];
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(tag, sizeof tag, "\"%s-%d\"", own_incarnation, round);
        if (writer % 2)
            snprintf(body, sizeof body, "{\"parameters\": {\"0.bias\": [%d, %d]}}", writer, round);
        else
            snprintf(body, sizeof body,
                     "{\"incarnation\": \"%s\", \"version\": 0, \"gradients\": {\"0.bias\": [%d, %d]}}",
                     own_incarnation, writer, round);
        pthread_barrier_wait(&barrier);
        struct test_answer answer = test_request(
            &service, &(struct test_request){.method = writer % 2 ? "PUT" : "POST",
                                             .path = writer % 2 ? "/models/m/parameters?partial=true"
                                                                : "/models/m/gradients",
                                             .if_match = tag,
                                             .body = body,
                                             .size = strlen(body)});
        atomic_fetch_add(answer.status == 200 ? &won : answer.status == 412 ? &lost : &odd, 1);
        test_answer_free(&answer);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void one_writer_wins(void **state) {
    (void)state;
    pthread_t threads[WRITERS];
    int numbers[WRITERS];
    make("m");
    incarnation(own_incarnation);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, WRITERS), 0);
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_rounds, &numbers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(version(), ROUNDS);
    assert_int_equal(atomic_load(&won), ROUNDS);
    assert_int_equal(atomic_load(&lost), ROUNDS * (WRITERS - 1));
    assert_int_equal(atomic_load(&odd), 0);
}

/* --- staleness ----------------------------------------------------------------------------------------- */

#define PUSH "{'incarnation': '%s', 'version': %d, 'gradients': {'0.bias': [1, 1]}%s}"

static void staleness(void **state) {
    (void)state;
    char own[20];
    make("m");
    incarnation(own);
    for (int i = 0; i < 5; i++) ask(200, "POST /models/m/parameters", "{'from': 'm', 'tau': 1}");
    static const struct {
        int version;
        const char *more;
        int status;
    } cases[] = {
        {5, ", 'max_staleness': 0", 200}, /* 6 from here on */
        {5, ", 'max_staleness': 0", 412},
        {5, ", 'max_staleness': 1", 200}, /* 7 */
        {4, ", 'max_staleness': 2, 'accumulate': true", 412},
        {4, ", 'max_staleness': 3, 'accumulate': true", 200},
        {7, ", 'max_staleness': -1", 422},
        {7, ", 'max_staleness': 1.5", 422},
        {7, ", 'max_staleness': '1'", 422},
        {0, "", 200}, /* 8 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        json_decref(test_ask(&service, cases[i].status, "POST /models/m/gradients", NULL, PUSH, own,
                             cases[i].version, cases[i].more));
    assert_int_equal(version(), 8);

    /* The buffer is as old as its oldest contribution. */
    json_decref(
        test_ask(&service, 200, "POST /models/m/gradients", NULL, PUSH, own, 8, ", 'accumulate': true"));
    ask(412, "POST /step", "{'model': 'm', 'max_staleness': 3}");
    json_t *json = test_ask(&service, 200, "POST /step", NULL, "{'model': 'm', 'max_staleness': 4}");
    assert_int_equal(integer(json, "staleness"), 4);
    assert_int_equal(integer(json, "contributions"), 2);
    json_decref(json);

    /* A model's own bound; the stricter of both counts. */
    ask(200, "PATCH /models/m", "{'max_staleness': 2}");
    json_decref(
        test_ask(&service, 412, "POST /models/m/gradients", NULL, PUSH, own, 6, ", 'max_staleness': 9"));
    json_decref(
        test_ask(&service, 412, "POST /models/m/gradients", NULL, PUSH, own, 8, ", 'max_staleness': 0"));
    json_decref(
        test_ask(&service, 200, "POST /models/m/gradients", NULL, PUSH, own, 7, ", 'max_staleness': 9"));
    ask(422, "PATCH /models/m", "{'max_staleness': -3}");
    ask(200, "PATCH /models/m", "{'max_staleness': null}");
    json_decref(test_ask(&service, 200, "POST /models/m/gradients", NULL, PUSH, own, 0, ""));

    json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    const json_t *distribution = json_object_get(json, "staleness");
    static const struct {
        const char *bucket;
        int n;
    } expected[] = {{"0", 1},   {"1", 1},    {"2", 1},     {"3-4", 1},
                    {"5-8", 1}, {"9-16", 1}, {"17-32", 0}, {"33-", 0}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(integer(distribution, expected[i].bucket), expected[i].n);
    json_decref(json);
}

/* A backward pass says how old its gradient was too, and a context's may be old. */
static void stale_context(void **state) {
    (void)state;
    make("m");
    json_t *json = test_ask(&service, 200, "POST /forward", NULL,
                            "{'model': 'm', 'retain': true, 'inputs': {'x': [[1, 2]]}}");
    const char *id = json_string_value(json_object_get(json, "context"));
    for (int i = 0; i < 2; i++) ask(200, "POST /models/m/parameters", "{'from': 'm', 'tau': 1}");
    json_decref(test_ask(&service, 412, "POST /backward", NULL,
                         "{'context': '%s', 'targets': {'y': [[1, 2]]}, 'apply': true, 'max_staleness': 1}",
                         id));
    json_t *applied = test_ask(&service, 200, "POST /backward", NULL,
                               "{'context': '%s', 'targets': {'y': [[1, 2]]}, 'apply': true,"
                               " 'max_staleness': 2}",
                               id);
    assert_int_equal(integer(applied, "version"), 0);
    assert_int_equal(integer(applied, "applied_version"), 3);
    assert_int_equal(integer(applied, "staleness"), 2);
    json_decref(applied);
    json_decref(json);
}

/* --- pushed gradients ---------------------------------------------------------------------------------- */

static json_t *push(int status, const char *format, const char *own) {
    char body[TEXT];
    return test_ask(&service, status, "POST /models/m/gradients", NULL, "%s", fill(body, format, own));
}

static void pushes(void **state) {
    (void)state;
    char own[20];
    make("m");
    incarnation(own);
    struct values before = parameters("m");
    json_t *json = push(200,
                        "{'incarnation': '%s', 'version': 0, 'gradients':"
                        " {'0.weight': [[1, 2], [3, 4]], '0.bias': [5, 6]}}",
                        own);
    assert_string_equal(json_string_value(json_object_get(json, "model")), "m");
    assert_string_equal(json_string_value(json_object_get(json, "incarnation")), own);
    assert_int_equal(integer(json, "version"), 0);
    assert_int_equal(integer(json, "applied_version"), 1);
    assert_int_equal(integer(json, "staleness"), 0);
    json_decref(json);
    struct values after = parameters("m");
    for (int i = 0; i < 4; i++) assert_true(fabs(before.weight[i] - (i + 1) - after.weight[i]) < 1e-6);
    for (int i = 0; i < 2; i++) assert_true(fabs(before.bias[i] - (i + 5) - after.bias[i]) < 1e-6);

    /* Some of them, at a rate for this once: the others stay, even where weights decay. */
    ask(200, "PATCH /models/m", "{'optimizer': {'weight_decay': 0.5}}");
    json_decref(push(200,
                     "{'incarnation': '%s', 'version': 1, 'gradients': {'0.bias': [1, 1]},"
                     " 'apply': {'lr': 0.5}}",
                     own));
    struct values partial = parameters("m");
    assert_memory_equal(partial.weight, after.weight, sizeof after.weight);
    for (int i = 0; i < 2; i++)
        assert_true(fabs(after.bias[i] - 0.5 * (1 + 0.5 * after.bias[i]) - partial.bias[i]) < 1e-5);
}

static void bad_pushes(void **state) {
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *slug, *pointer;
    } cases[] = {
        {"{'version': 0, 'gradients': {'0.bias': [1, 1]}}", 422, "invalid-value", "/incarnation"},
        {"{'incarnation': '%s', 'gradients': {'0.bias': [1, 1]}}", 422, "invalid-value", "/version"},
        {"{'incarnation': 'ffffffffffffffff', 'version': 0, 'gradients': {'0.bias': [1, 1]}}", 412, "stale",
         NULL},
        {"{'incarnation': '%s', 'version': 1, 'gradients': {'0.bias': [1, 1]}}", 422, "invalid-value",
         "/version"},
        {"{'incarnation': '%s', 'version': -1, 'gradients': {'0.bias': [1, 1]}}", 422, "invalid-value",
         "/version"},
        {"{'incarnation': '%s', 'version': 0}", 422, "invalid-value", "/gradients"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {}}", 422, "invalid-value", "/gradients"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'bias': [1, 1]}}", 422, "unknown-name",
         "/gradients/bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1, 1]}}", 422, "shape-mismatch",
         "/gradients/0.bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 'Infinity']}}", 422, "not-finite",
         "/gradients/0.bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1e39]}}", 422, "invalid-value",
         "/gradients/0.bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': {'dtype': 'F16', 'shape': [2],"
         " 'base64': 'AHwAAA=='}}}",
         422, "not-finite", "/gradients/0.bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': {'dtype': 'BF16', 'shape': [2],"
         " 'base64': 'AADAfw=='}}}",
         422, "not-finite", "/gradients/0.bias"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}, 'samples': 0}", 422,
         "invalid-value", "/samples"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}, 'apply': true,"
         " 'accumulate': true}",
         422, "invalid-value", "/accumulate"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}, 'apply': {'lr': -1}}", 422,
         "invalid-value", "/apply"},
        {"{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}, 'color': 1}", 422,
         "unknown-member", "/color"},
    };
    char own[20];
    make("m");
    incarnation(own);
    struct values before = parameters("m");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_slug(push(cases[i].status, cases[i].body, own), cases[i].slug, cases[i].pointer);
    struct values after = parameters("m");
    assert_memory_equal(&after, &before, sizeof after);
    assert_int_equal(version(), 0);
    ask(409, "GET /models/m/gradients", NULL);
    ask(200, "PATCH /models/m", "{'optimizer': null}");
    check_slug(push(409, "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}}", own),
               "no-optimizer", NULL);
    json_decref(
        push(200, "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}, 'accumulate': true}",
             own));
}

/* 1, 2 and their like are exact in all of them. */
static void pushes_in_files(void **state) {
    (void)state;
    static const uint16_t half[] = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600};
    static const uint16_t brain[] = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0};
    static const float single[] = {1, 2, 3, 4, 5, 6};
    static const struct {
        const char *dtype;
        const void *data;
        size_t width;
    } cases[] = {{"F32", single, 4}, {"F16", half, 2}, {"BF16", brain, 2}};
    char own[20];
    make("m");
    incarnation(own);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_writer writer = {0};
        size_t size;
        const char *data = cases[i].data;
        struct values before = parameters("m");
        test_write_text(&writer, "incarnation", own);
        test_write_text(&writer, "version", "0");
        test_write_text(&writer, "samples", "256");
        test_write_text(&writer, "worker", "w1");
        if (i != 1) test_write(&writer, "gradients/0.weight", cases[i].dtype, SHAPE(2, 2), data);
        test_write(&writer, "gradients/0.bias", cases[i].dtype, SHAPE(2), data + 4 * cases[i].width);
        unsigned char *file = test_write_end(&writer, &size);
        struct test_answer answer =
            test_request(&service, &(struct test_request){.method = "POST",
                                                          .path = "/models/m/gradients",
                                                          .content_type = FILES,
                                                          .accept = JSON,
                                                          .body = file,
                                                          .size = size});
        if (answer.status != 200) fail_msg("%s", answer.body);
        test_answer_free(&answer);
        free(file);
        struct values after = parameters("m");
        for (int k = 0; k < 4; k++)
            assert_true(fabs(before.weight[k] - (i == 1 ? 0 : k + 1) - after.weight[k]) < 1e-5);
        for (int k = 0; k < 2; k++) assert_true(fabs(before.bias[k] - (k + 5) - after.bias[k]) < 1e-5);
    }
}

/* What a backward pass answered, sent back as it is, does what applying it would have done. */
static void answers_sent_back(void **state) {
    (void)state;
    make("m");
    make("twin");
    json_decref(test_ask(&service, 200, "POST /backward", NULL,
                         "{'model': 'twin', 'apply': true, 'seed': 1, " BATCH "}"));
    for (int i = 0; i < 2; i++) { /* as JSON, and as a file */
        struct test_answer answer, applied;
        char body[] = "{\"model\": \"m\", \"seed\": 1, \"inputs\": {\"x\": [[1, 2], [3, 4]]},"
                      " \"targets\": {\"y\": [[0, 1], [1, 0]]}}";
        const char *type = i ? FILES : JSON;
        answer = test_request(&service, &(struct test_request){.method = "POST",
                                                               .path = "/backward",
                                                               .content_type = JSON,
                                                               .accept = type,
                                                               .body = body,
                                                               .size = strlen(body)});
        assert_int_equal(answer.status, 200);
        applied = test_request(&service, &(struct test_request){.method = "POST",
                                                                .path = "/models/m/gradients",
                                                                .content_type = type,
                                                                .body = answer.body,
                                                                .size = answer.size});
        if (applied.status != 200) fail_msg("%s", applied.body);
        test_answer_free(&applied);
        test_answer_free(&answer);
        if (i == 0) {
            struct values m = parameters("m"), twin = parameters("twin");
            assert_memory_equal(&m, &twin, sizeof m);
        }
    }
    assert_int_equal(version(), 2);
}

/* --- the accumulation buffer ----------------------------------------------------------------------------- */

static void buffer(void **state) {
    (void)state;
    char own[20];
    make("m");
    incarnation(own);
    check_slug(test_ask(&service, 409, "GET /models/m/gradients", NULL, NULL), "nothing-accumulated", NULL);
    json_t *json = test_ask(&service, 200, "DELETE /models/m/gradients", NULL, NULL);
    assert_int_equal(integer(json, "cleared"), 0);
    json_decref(json);

    json = push(200,
                "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 2]},"
                " 'accumulate': {'scale': 2}}",
                own);
    assert_int_equal(integer(json_object_get(json, "accumulated"), "contributions"), 1);
    assert_true(json_number_value(json_object_get(json_object_get(json, "accumulated"), "scale")) == 2);
    json_decref(json);
    ask(200, "POST /models/m/parameters", "{'from': 'm', 'tau': 1}");
    json_decref(push(200,
                     "{'incarnation': '%s', 'version': 1, 'gradients': {'0.weight': [[1, 1], [1, 1]]},"
                     " 'accumulate': {'scale': -0.5}}",
                     own));
    for (int i = 0; i < 2; i++) { /* reading changes nothing */
        json = test_ask(&service, 200, "GET /models/m/gradients", NULL, NULL);
        struct values sum = values_of(json_object_get(json, "gradients"));
        assert_int_equal(integer(json, "contributions"), 2);
        assert_int_equal(integer(json, "version"), 1);
        assert_int_equal(integer(json, "oldest_version"), 0);
        assert_true(json_number_value(json_object_get(json, "scale")) == 1.5);
        assert_true(sum.bias[0] == 2 && sum.bias[1] == 4 && sum.weight[0] == -0.5 && sum.weight[3] == -0.5);
        json_decref(json);
    }
    struct test_answer file = get("/models/m/gradients?dtype=BF16", FILES, NULL);
    assert_int_equal(file.status, 200);
    assert_non_null(memmem(file.body, file.size, "gradients/0.bias", 16));
    assert_non_null(memmem(file.body, file.size, "BF16", 4));
    test_answer_free(&file);

    struct values before = parameters("m");
    ask(200, "POST /step", "{'model': 'm', 'mean': true}");
    struct values after = parameters("m");
    assert_true(fabs(before.bias[1] - 4 / 1.5 - after.bias[1]) < 1e-6);
    assert_true(fabs(before.weight[2] + 0.5 / 1.5 - after.weight[2]) < 1e-6);
    check_slug(test_ask(&service, 409, "POST /step", NULL, "{'model': 'm'}"), "nothing-accumulated", NULL);

    json_decref(
        push(200, "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 2]}, 'accumulate': true}",
             own));
    json = test_ask(&service, 200, "DELETE /models/m/gradients", NULL, NULL);
    assert_int_equal(integer(json, "cleared"), 1);
    assert_string_equal(json_string_value(json_object_get(json, "incarnation")), own);
    json_decref(json);
    ask(409, "GET /models/m/gradients", NULL);
    /* What was cleared leaves nothing behind: neither numbers nor age. */
    json_decref(
        push(200, "{'incarnation': '%s', 'version': 2, 'gradients': {'0.bias': [1, 0]}, 'accumulate': true}",
             own));
    json = test_ask(&service, 200, "GET /models/m/gradients", NULL, NULL);
    struct values sum = values_of(json_object_get(json, "gradients"));
    assert_int_equal(integer(json, "oldest_version"), 2);
    assert_true(sum.bias[0] == 1 && sum.bias[1] == 0 && sum.weight[0] == 0);
    json_decref(json);
}

/* A worker that dies before its request is whole, and one whose request is refused, have added nothing. */
static void a_worker_that_dies(void **state) {
    (void)state;
    char own[20], body[300];
    make("m");
    incarnation(own);
    json_decref(
        push(200, "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 2]}, 'accumulate': true}",
             own));
    json_t *before = test_ask(&service, 200, "GET /models/m/gradients", NULL, NULL);
    int size = snprintf(body, sizeof body,
                        "{\"incarnation\": \"%s\", \"version\": 0, \"accumulate\": true, \"gradients\":"
                        " {\"0.bias\": [7, 7], \"0.weight\": [[7, 7], [7, 7]]}}",
                        own);
    for (int cut = 0; cut < size; cut++) {
        struct test_answer answer = test_request(
            &service,
            &(struct test_request){
                .method = "POST", .path = "/models/m/gradients", .body = body, .size = (size_t)cut});
        assert_int_equal(answer.status, 400);
        test_answer_free(&answer);
    }
    struct api_head head = {
        .method = "POST", .path = "/models/m/gradients", .content_length = (int64_t)sizeof body};
    size_t held = api_memory_in_use(service.api);
    struct api_admission admission = api_admit(service.api, &head);
    assert_non_null(admission.request);
    api_request_free(admission.request); /* the peer left */
    assert_int_equal(api_memory_in_use(service.api), held);
    json_t *after = test_ask(&service, 200, "GET /models/m/gradients", NULL, NULL);
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
}

/* --- blends ---------------------------------------------------------------------------------------------- */

static void blends(void **state) {
    (void)state;
    static const double taus[] = {0, 1, 0.005, 0.5};
    make("m");
    json_decref(
        test_ask(&service, 201, "POST /models", NULL, "{'name': 'q', " LAYERS "}")); /* no optimizer */
    ask(200, "PUT /models/q/parameters",
        "{'parameters': {'0.weight': [[1, -2], [3e5, 4]], '0.bias': [-0.0, 6]}}");
    for (size_t i = 0; i < sizeof taus / sizeof taus[0]; i++) {
        struct values m = parameters("m"), q = parameters("q");
        json_t *json =
            test_ask(&service, 200, "POST /models/m/parameters", NULL, "{'from': 'q', 'tau': %g}", taus[i]);
        assert_int_equal(integer(json, "applied_version"), i + 1);
        assert_int_equal(integer(json, "from_version"), 1);
        json_decref(json);
        struct values now = parameters("m");
        if (taus[i] == 0) assert_memory_equal(&now, &m, sizeof now);
        if (taus[i] == 1) assert_memory_equal(&now, &q, sizeof now);
        for (int k = 0; k < 4; k++) {
            double expected = taus[i] * q.weight[k] + (1 - taus[i]) * m.weight[k];
            assert_true(fabs(now.weight[k] - expected) <= 1e-6 * (1 + fabs(expected)));
        }
    }
    ask(200, "POST /models/m/parameters", "{'from': 'm', 'tau': 0.25}"); /* itself */
    struct values q = parameters("q");
    ask(200, "POST /models/q/parameters", "{'from': 'q', 'tau': 1}");
    struct values again = parameters("q");
    assert_memory_equal(&q, &again, sizeof q);
}

static void bad_blends(void **state) {
    (void)state;
    static const struct {
        const char *request, *body;
        int status;
        const char *slug, *pointer;
    } cases[] = {
        {"POST /models/m/parameters", "{'from': 'nobody', 'tau': 1}", 422, "unknown-name", "/from"},
        {"POST /models/nobody/parameters", "{'from': 'm', 'tau': 1}", 404, "not-found", NULL},
        {"POST /models/m/parameters", "{'from': 'wide', 'tau': 1}", 422, "shape-mismatch", "/from"},
        {"POST /models/m/parameters", "{'from': 'double', 'tau': 1}", 422, "shape-mismatch", "/from"},
        {"POST /models/m/parameters", "{'from': 'named', 'tau': 1}", 422, "shape-mismatch", "/from"},
        {"POST /models/m/parameters", "{'from': 'm'}", 422, "invalid-value", "/tau"},
        {"POST /models/m/parameters", "{'from': 'm', 'tau': 1.01}", 422, "invalid-value", "/tau"},
        {"POST /models/m/parameters", "{'from': 'm', 'tau': -0.01}", 422, "invalid-value", "/tau"},
        {"POST /models/m/parameters", "{'tau': 0.5}", 422, "invalid-value", "/from"},
    };
    make("m");
    ask(201, "POST /models",
        "{'name': 'wide', 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 2}]}");
    ask(201, "POST /models", "{'name': 'double', 'dtype': 'F64', " LAYERS "}");
    ask(201, "POST /models",
        "{'name': 'named', 'inputs': {'x': {'shape': [2]}},"
        " 'layers': [{'op': 'linear', 'out_features': 2, 'name': 'head'}]}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_slug(test_ask(&service, cases[i].status, cases[i].request, NULL, "%s", cases[i].body),
                   cases[i].slug, cases[i].pointer);
    assert_int_equal(version(), 0);
}

/* --- one gradient, one version ---------------------------------------------------------------------------- */

enum { READERS = 4, VERSIONS = 300 };
static atomic_bool stop;

/* The gradients that a reader saw of each version; the first of them. */
struct reader {
    pthread_t thread;
    json_t *seen[VERSIONS + 1];
    int n, failed;
};

#define GRADIENT                                                                                             \
    "{\"model\": \"%s\", \"seed\": 5, \"inputs\": {\"x\": [[1, 2], [3, 4], [5, 6]]},"                        \
    " \"targets\": {\"y\": [[0, 1], [1, 0], [2, 2]]}, \"return\": [\"parameters\", \"inputs\", "             \
    "\"outputs\"]}"

static struct test_answer gradient(const char *model) {
    char body[400];
    snprintf(body, sizeof body, GRADIENT, model);
    return test_request(
        &service,
        &(struct test_request){.method = "POST", .path = "/backward", .body = body, .size = strlen(body)});
}

static void *read_gradients(void *arg) {
    struct reader *reader = arg;
    do { /* once at the least, however late the thread begins */
        struct test_answer answer = gradient("m");
        json_t *json = json_loadb(answer.body ? answer.body : "", answer.size, 0, NULL);
        json_int_t at = json_integer_value(json_object_get(json, "version"));
        reader->failed |= answer.status != 200 || at < 0 || at > VERSIONS;
        if (!reader->failed && !reader->seen[at]) {
            reader->seen[at] = json_incref(json);
            reader->n++;
        }
        json_decref(json);
        test_answer_free(&answer);
    } while (!atomic_load(&stop));
    return NULL;
}

static void set_version(const char *model, int v) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s/parameters?partial=true", model);
    for (int status = 503; status == 503;) { /* while too many versions are being read */
        char body[200];
        snprintf(body, sizeof body,
                 "{\"parameters\": {\"0.weight\": [[%.7g, %.7g], [%.7g, %.7g]], \"0.bias\": [%.7g, 1]}}",
                 sin(v), sin(2 * v), sin(3 * v), sin(4 * v), sin(5 * v));
        struct test_answer answer = test_request(
            &service,
            &(struct test_request){.method = "PUT", .path = path, .body = body, .size = strlen(body)});
        status = answer.status;
        test_answer_free(&answer);
        assert_true(status == 200 || status == 503);
    }
}

static void one_version(void **state) {
    (void)state;
    static struct reader readers[READERS];
    static const char *const members[] = {"gradients", "input_gradients", "outputs", "losses"};
    make("m");
    make("alone");
    atomic_store(&stop, false);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_gradients, &readers[i]), 0);
    for (int v = 1; v <= VERSIONS; v++) set_version("m", v);
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) pthread_join(readers[i].thread, NULL);
    int checked = 0;
    for (int v = 0; v <= VERSIONS; v++) {
        if (v) set_version("alone", v);
        struct test_answer answer = gradient("alone");
        json_t *alone = json_loadb(answer.body, answer.size, 0, NULL);
        test_answer_free(&answer);
        for (int i = 0; i < READERS; i++) {
            json_t *seen = readers[i].seen[v];
            for (size_t k = 0; seen && k < sizeof members / sizeof members[0]; k++)
                assert_true(
                    json_equal(json_object_get(seen, members[k]), json_object_get(alone, members[k])));
            checked += seen != NULL;
            json_decref(seen);
        }
        json_decref(alone);
    }
    for (int i = 0; i < READERS; i++) assert_false(readers[i].failed);
    assert_true(checked > 0);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(tags),
        TEST(names),
        TEST(matches),
        cmocka_unit_test_setup_teardown(one_writer_wins, on_threads, teardown),
        TEST(staleness),
        TEST(stale_context),
        TEST(pushes),
        TEST(bad_pushes),
        TEST(pushes_in_files),
        TEST(answers_sent_back),
        TEST(buffer),
        TEST(a_worker_that_dies),
        TEST(blends),
        TEST(bad_blends),
        cmocka_unit_test_setup_teardown(one_version, on_threads, teardown),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
