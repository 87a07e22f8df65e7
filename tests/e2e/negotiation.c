/* Encodings by Content-Type and Accept, methods by path, and the token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define MODEL                                                                                                \
    "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "                 \
    "'out_features': 1}]}"
#define FORWARD "{'model': 'm', 'inputs': {'x': [[1, 2]]}}"

static int setup(void **state) {
    service_setup(state);
    ask(201, "POST", "/models", MODEL);
    return 0;
}

static const struct http_answer *forward(int status, const char *type, const char *accept) {
    const char *body = quoted(FORWARD);
    return service_call(status, &(struct http_request){.method = "POST",
                                                       .path = "/forward",
                                                       .type = type,
                                                       .accept = accept,
                                                       .body = body,
                                                       .size = strlen(body)});
}

static void content_types(void **state) {
    (void)state;
    static const char *const fine[] = {JSON_TYPE, "application/json; charset=utf-8", "Application/JSON",
                                       NULL};
    static const char *const wrong[] = {
        "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application", "*/*", "json"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) forward(200, fine[i], NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_problem(forward(415, wrong[i], NULL), 415, "unsupported-media-type", NULL);
    const char *patch = quoted("{'optimizer': {'op': 'sgd', 'lr': 1}}");
    service_call(200, &(struct http_request){.method = "PATCH",
                                             .path = "/models/m",
                                             .type = "application/merge-patch+json",
                                             .body = patch,
                                             .size = strlen(patch)});
}

/* What a JSON request gets for each Accept; NULL: 406. */
static void accepts(void **state) {
    (void)state;
    static const struct {
        const char *accept, *type;
    } cases[] = {
        {NULL, JSON_TYPE},
        {"*/*", JSON_TYPE},
        {"application/*", JSON_TYPE},
        {JSON_TYPE, JSON_TYPE},
        {FILE_TYPE, FILE_TYPE},
        {"APPLICATION/SAFETENSORS", FILE_TYPE},
        {"application/safetensors;v=1", FILE_TYPE},
        {"text/html, application/safetensors", FILE_TYPE},
        {"text/html, */*;q=0.1", JSON_TYPE},
        {"application/json;q=0.4, application/safetensors;q=0.5", FILE_TYPE},
        {"application/json; q=0.6 , application/safetensors; q=0.5", JSON_TYPE},
        {"application/safetensors;q=0.5, application/json;q=0.5", FILE_TYPE},
        {"application/json;q=0, application/safetensors;q=0.001", FILE_TYPE},
        {"application/safetensors;q=1.000, application/json;q=0.999", FILE_TYPE},
        {"application/json;q=0.1, */*", FILE_TYPE}, /* the more specific range decides a type's weight */
        {"*/*, application/json;q=0", FILE_TYPE},
        {"application/*;q=0.2, application/safetensors;q=0.1", JSON_TYPE},
        {"application/json;q=0", NULL},
        {"*/*;q=0", NULL},
        {"text/html", NULL},
        {"application/jso", NULL},
        {"application/json;q=0, application/safetensors;q=0.0", NULL},
    };
    char type[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct http_answer *answer = forward(cases[i].type ? 200 : 406, JSON_TYPE, cases[i].accept);
        if (!cases[i].type)
            check_problem(answer, 406, "not-acceptable", NULL);
        else if (strcmp(http_header(answer, "Content-Type", type), cases[i].type) != 0)
            fail_msg("Accept: %s answers %s", cases[i].accept, type);
    }
}

/* Parameters are parsed: what looks like a weight within one is none. */
static void parameters_of_accept(void **state) {
    (void)state;
    static const struct {
        const char *accept;
        int status;
    } cases[] = {{"application/json;seq=0", 200},
                 {"application/json;faq=0;q=1", 200},
                 {"application/json;profile=\"a;q=0\"", 200},
                 {"application/json;profile=\"a, b;q=0\", text/html", 200},
                 {"text/html;profile=\"application/json\"", 406}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        forward(cases[i].status, JSON_TYPE, cases[i].accept);
}

/* What a cache between may do with an answer. */
static void caches(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *if_none_match;
        int status;
        const char *vary, *cache;
    } cases[] = {{"GET", "/models/m/parameters", NULL, 200, "Accept", "no-cache"},
                 {"GET", "/models/m/parameters", "*", 304, "Accept", "no-cache"},
                 {"HEAD", "/models/m/parameters", NULL, 200, "Accept", "no-cache"},
                 {"GET", "/models/m?x=1", NULL, 422, "Accept", "no-cache"},
                 {"GET", "/models/nobody", NULL, 404, "Accept", "no-cache"},
                 {"GET", "/nowhere", NULL, 404, "", "no-cache"},
                 {"GET", "/metrics", NULL, 200, "", "no-cache"},
                 {"DELETE", "/models/nobody", NULL, 404, "Accept", ""}};
    char value[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct http_answer *answer =
            service_call(cases[i].status, &(struct http_request){.method = cases[i].method,
                                                                 .path = cases[i].path,
                                                                 .if_none_match = cases[i].if_none_match});
        assert_string_equal(http_header(answer, "Vary", value), cases[i].vary);
        assert_string_equal(http_header(answer, "Cache-Control", value), cases[i].cache);
    }
}

/* A coded body is refused at its head: nothing of it is asked for, and nothing is read as if it were plain. */
static void content_codings(void **state) {
    (void)state;
    static const char *const lines[] = {"Content-Encoding: gzip\r\n", "Content-Encoding: identity, br\r\n",
                                        "Expect: 100-continue\r\nContent-Encoding: x\r\n",
                                        "Content-Encoding: Identity\r\n", ""};
    for (int i = 0; i < 5; i++) {
        char request[512], answer[4096];
        const char *body = quoted(FORWARD);
        int fd = raw_connect(service.port);
        bool refused = i < 3;
        snprintf(request, sizeof request,
                 "POST /forward HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: "
                 "%zu\r\n\r\n%s",
                 lines[i], i == 2 ? (size_t)1 << 20 : strlen(body), i == 2 ? "" : body);
        assert_true(raw_send_text(fd, request));
        raw_receive(fd, answer, sizeof answer);
        close(fd);
        assert_int_equal(raw_status(answer), refused ? 415 : 200);
        assert_true(!strstr(answer, "\r\nAccept-Encoding: identity\r\n") == !refused);
        assert_true(!strstr(answer, "unsupported-coding") == !refused);
    }
}

/* As a URL's query is written by those who repeat a name for a list. */
static void lists_in_queries(void **state) {
    (void)state;
    const json_t *map =
        at(ask(200, "GET", "/models/m/parameters?names=0.weight&names=0.bias", NULL), "parameters");
    assert_int_equal(json_object_size(map), 2);
    check_problem(ask_bytes(400, "GET", "/models/m/parameters?dtype=F16&dtype=F32", NULL), 400, "malformed",
                  NULL);
}

/* HEAD is asked as GET is. */
static void conditions_of_reads(void **state) {
    (void)state;
    static const char *const methods[] = {"GET", "HEAD"};
    for (int i = 0; i < 2; i++) {
        struct http_request request = {
            .method = methods[i], .path = "/models/m/parameters", .if_match = "\"x\""};
        service_call(412, &request);
        request.if_match = "*";
        service_call(200, &request);
        request.if_none_match = "*";
        service_call(304, &request);
        request.if_match = "*x";
        service_call(400, &request);
    }
}

/* None, or any: a request is answered as it came, and a GET in JSON. */
static void by_default_as_it_came(void **state) {
    (void)state;
    static const char *const any[] = {NULL, "*/*"};
    char type[256];
    for (int i = 0; i < 2; i++) {
        struct test_writer writer = {0};
        struct http_request request = {
            .method = "POST", .path = "/forward", .type = FILE_TYPE, .accept = any[i]};
        test_write_text(&writer, "model", "m");
        test_write_f32(&writer, "inputs/x", SHAPE(1, 2), (const float[]){1, 2});
        request.body = service_keep(test_write_end(&writer, &request.size));
        assert_string_equal(http_header(service_call(200, &request), "Content-Type", type), FILE_TYPE);
        request = (struct http_request){.method = "GET", .path = "/models/m/parameters", .accept = any[i]};
        assert_string_equal(http_header(service_call(200, &request), "Content-Type", type), JSON_TYPE);
    }
}

/* Both encodings say the same, and a problem is JSON in both. */
static void one_document(void **state) {
    (void)state;
    struct test_writer writer = {0};
    test_write_text(&writer, "model", "m");
    test_write_f32(&writer, "inputs/x", SHAPE(1, 2), (const float[]){1, 2});
    const struct test_file *file = ask_file(200, "POST", "/forward", &writer);
    const json_t *json = ask(200, "POST", "/forward", FORWARD);
    assert_true((float)number_at(json, "outputs/0/0/0") == test_file_f32(file, "outputs/0", 0));
    assert_string_equal(text_at(json, "incarnation"), test_file_text(file, "incarnation"));
    assert_string_equal(test_file_text(file, "version"), "0");

    struct http_request request = {
        .method = "POST", .path = "/forward", .type = FILE_TYPE, .accept = FILE_TYPE};
    test_write_text(&writer, "model", "m");
    test_write_f32(&writer, "inputs/x", SHAPE(2), (const float[]){1, 2});
    request.body = service_keep(test_write_end(&writer, &request.size));
    const json_t *problem = check_problem(service_call(422, &request), 422, "shape-mismatch", "/inputs/x");
    same_json(at(problem, "actual"), service_json("[2]"));
    same_json(at(problem, "expected"), service_json("[null, 2]"));
}

static void methods(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *allow;
    } cases[] = {
        {"DELETE", "/models", "GET, HEAD, POST"},
        {"POST", "/models/m", "GET, HEAD, PATCH, DELETE"},
        {"PUT", "/models/m", "GET, HEAD, PATCH, DELETE"},
        {"GET", "/forward", "POST"},
        {"PUT", "/backward", "POST"},
        {"GET", "/step", "POST"},
        {"DELETE", "/models/m/parameters", "GET, HEAD, PUT, POST"},
        {"PUT", "/models/m/gradients", "GET, HEAD, POST, DELETE"},
        {"DELETE", "/models/m/optimizer", "GET, HEAD, PUT"},
        {"POST", "/contexts", "GET, HEAD"},
        {"PUT", "/contexts/c", "GET, HEAD, DELETE"},
        {"DELETE", "/ops", "GET, HEAD"},
        {"POST", "/healthz", "GET, HEAD"},
        {"BREW", "/readyz", "GET, HEAD"},
        {"OPTIONS", "/models", "GET, HEAD, POST"},
    };
    char allow[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct http_answer *answer = ask_bytes(405, cases[i].method, cases[i].path, NULL);
        check_problem(answer, 405, "method-not-allowed", NULL);
        assert_string_equal(http_header(answer, "Allow", allow), cases[i].allow);
    }
}

/* --- a daemon with a token --------------------------------------------------------------------------- */

static const struct http_answer *get(int status, const char *path, const char *token) {
    return service_call(status, &(struct http_request){.method = "GET", .path = path, .token = token});
}

#define TAIL   "ecret-of-at-least-32-characters"
#define CUT    "s" TAIL
#define SECRET CUT "2"

static void check_token(void) {
    static const char *const wrong[] = {NULL, "", "secre", CUT, CUT " 2", "S" TAIL "2", SECRET "2"};
    char challenge[256];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const struct http_answer *answer = get(401, "/models", wrong[i]);
        check_problem(answer, 401, "unauthorized", NULL);
        assert_memory_equal(http_header(answer, "WWW-Authenticate", challenge), "Bearer ", 7);
        get(401, "/nowhere", wrong[i]); /* a stranger is not told what there is */
        get(401, "/forward", wrong[i]);
    }
    get(200, "/models", SECRET);
    get(200, "/models", SECRET " "); /* the blank belongs to the line, not to the token */
    get(404, "/nowhere", SECRET);
    get(405, "/forward", SECRET);
    get(200, "/healthz", NULL);
    get(200, "/readyz", "wrong");
}

static void a_token_of_the_environment(void **state) {
    (void)state;
    service_start(NULL, (const char *const[]){"GRADD_TOKEN=" SECRET, NULL});
    check_token();
    service_stop();
}

static void a_token_of_a_file(void **state) {
    (void)state;
    char path[] = "/tmp/gradd-token-XXXXXX";
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, SECRET "\n", sizeof SECRET), sizeof SECRET);
    close(fd);
    service_start((const char *const[]){"--secret-file", path, NULL}, NULL);
    unlink(path);
    check_token();
    service_stop();
}

int main(void) {
    const struct CMUnitTest open_house[] = {
        service_test(content_types),        service_test(accepts),
        service_test(parameters_of_accept), service_test(caches),
        service_test(content_codings),      service_test(lists_in_queries),
        service_test(conditions_of_reads),  service_test(by_default_as_it_came),
        service_test(one_document),         service_test(methods),
    };
    const struct CMUnitTest with_token[] = {
        service_test(a_token_of_the_environment),
        service_test(a_token_of_a_file),
    };
    int failed = cmocka_run_group_tests(open_house, setup, service_teardown);
    return failed + cmocka_run_group_tests(with_token, NULL, NULL);
}
