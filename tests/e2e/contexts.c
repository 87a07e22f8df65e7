/* Contexts: a backward pass belongs to the version that its forward saw, and uses its context up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define MODEL                                                                                                \
    "{'name': '%s', 'seed': 3, 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', "                \
    "'out_features': "                                                                                       \
    "8}, {'op': 'tanh'}, {'op': 'dropout', 'p': 0.5}, {'op': 'linear', 'out_features': 2}], 'loss': {'op': " \
    "'cross_entropy'}, 'optimizer': {'op': 'sgd', 'lr': 0.5}}"
#define X      "'inputs': {'x': [[1, 2, 3], [-1, 0.5, 2], [0, 1, -1]]}"
#define Y      "'targets': {'y': [0, 1, 1]}"
#define WANTED "'return': ['parameters', 'inputs', 'nodes', 'outputs']"

static int fresh_model(void **state) {
    (void)state;
    ask(201, "POST", "/models", MODEL, "m");
    return 0;
}

static int no_model(void **state) {
    struct http_answer answer;
    http_call(client, &(struct http_request){.method = "DELETE", .path = "/models/m"}, &answer);
    http_answer_fini(&answer);
    return service_forget(state);
}

static const char *keep_context(const char *more) {
    return text_at(ask(200, "POST", "/forward", "{'model': 'm', " X ", 'retain': true%s}", more), "context");
}

/* All that a backward at this context computes. */
static const json_t *backward_at(const char *context, const char *more) {
    return ask(200, "POST", "/backward", "{'context': '%s', " Y ", " WANTED "%s}", context, more);
}

static void same_gradients(const json_t *a, const json_t *b) {
    static const char *const parts[] = {"gradients", "input_gradients", "node_gradients", "outputs",
                                        "loss",      "version",         "seed",           "samples"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) same_json(at(a, parts[i]), at(b, parts[i]));
}

/* What a request without a context says with this seed. */
static const json_t *fresh_backward(const char *seed) {
    return ask(200, "POST", "/backward", "{'model': 'm', " X ", " Y ", " WANTED ", 'seed': %s}", seed);
}

static void update(const char *seed) {
    ask(200, "POST", "/backward", "{'model': 'm', " X ", " Y ", 'apply': true, 'seed': %s}", seed);
}

static void is_of_its_version(void **state) {
    (void)state;
    const json_t *undisturbed = fresh_backward("11");
    const char *context = keep_context(", 'seed': 11");
    update("1");
    update("2");
    ask(200, "PUT", "/models/m/parameters?partial=true", "{'parameters': {'3.bias': [5, 5]}}");
    const json_t *late = backward_at(context, "");
    same_gradients(late, undisturbed);
    assert_int_equal(integer_at(late, "version"), 0);
    assert_int_equal(integer_at(ask(200, "GET", "/models/m", NULL), "version"), 3);
    assert_false(json_equal(at(fresh_backward("11"), "gradients"), at(undisturbed, "gradients")));
}

/* The same in the other encoding, byte for byte. */
static void is_of_its_version_in_bytes(void **state) {
    (void)state;
    const void *data[2];
    size_t n[2];
    const char *contexts[2];
    for (int i = 0; i < 2; i++) contexts[i] = keep_context(", 'seed': 12");
    for (int i = 0; i < 2; i++) {
        struct test_writer writer = {0};
        test_write_text(&writer, "context", contexts[i]);
        test_write(&writer, "targets/y", "I64", SHAPE(3), (const int64_t[]){0, 1, 1});
        const struct test_file *file = ask_file(200, "POST", "/backward", &writer);
        assert_string_equal(test_file_text(file, "version"), "0");
        data[i] = test_file_tensor(file, "gradients/0.weight", "F32", &n[i]);
        update("1");
    }
    assert_int_equal(n[0], 24);
    assert_memory_equal(data[0], data[1], 24 * sizeof(float));
}

static void is_used_up(void **state) {
    (void)state;
    const char *context = keep_context("");
    char path[64];
    snprintf(path, sizeof path, "/contexts/%s", context);
    ask(200, "GET", path, NULL);
    backward_at(context, "");
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
    ask(404, "GET", path, NULL);
    ask(404, "DELETE", path, NULL);
    assert_int_equal(json_array_size(at(ask(200, "GET", "/contexts", NULL), "contexts")), 0);
}

static void is_kept_when_asked(void **state) {
    (void)state;
    const char *context = keep_context("");
    const json_t *first = backward_at(context, ", 'retain': true");
    update("1");
    same_gradients(backward_at(context, ", 'retain': true"), first);
    same_gradients(backward_at(context, ""), first);
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
}

/* A request that fails uses nothing up. */
static void survives_bad_requests(void **state) {
    (void)state;
    const char *context = keep_context("");
    refused(422, "invalid-value", "/targets/y", "POST", "/backward",
            "{'context': '%s', 'targets': {'y': [0, 1, 9]}}", context);
    refused(422, "shape-mismatch", "/targets/y", "POST", "/backward",
            "{'context': '%s', 'targets': {'y': [0, 1]}}", context);
    refused(422, "invalid-value", "/targets", "POST", "/backward", "{'context': '%s'}", context);
    refused(422, "invalid-value", "/model", "POST", "/backward", "{'context': '%s', 'model': 'm', " Y "}",
            context);
    refused(422, "invalid-value", "/seed", "POST", "/backward", "{'context': '%s', 'seed': 1, " Y "}",
            context);
    refused(422, "invalid-value", "/mode", "POST", "/backward", "{'context': '%s', 'mode': 'eval', " Y "}",
            context);
    refused(422, "invalid-value", "/inputs", "POST", "/backward", "{'context': '%s', " X ", " Y "}", context);
    refused(422, "invalid-value", "/dtype", "POST", "/backward", "{'context': '%s', 'dtype': 'F8', " Y "}",
            context);
    refused(422, "unknown-name", "/upstream/z", "POST", "/backward",
            "{'context': '%s', 'upstream': {'z': [[1]]}}", context);
    ask(200, "PATCH", "/models/m", "{'optimizer': null}");
    refused(409, "no-optimizer", NULL, "POST", "/backward", "{'context': '%s', " Y ", 'apply': true}",
            context);
    backward_at(context, "");
}

/* Applied at the model's newest version, though taken at another. */
static void is_applied(void **state) {
    (void)state;
    const char *context = keep_context(", 'seed': 5");
    update("1");
    const json_t *answer =
        ask(200, "POST", "/backward",
            "{'context': '%s', " Y ", 'apply': {'lr': 1}, 'return': ['parameters']}", context);
    assert_int_equal(integer_at(answer, "version"), 0);
    assert_int_equal(integer_at(answer, "applied_version"), 2);
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
}

static void tells_of_itself(void **state) {
    (void)state;
    const char *context = keep_context(", 'seed': 9");
    const json_t *list = at(ask(200, "GET", "/contexts", NULL), "contexts"), *one = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(text_at(one, "context"), context);
    assert_string_equal(text_at(one, "model"), "m");
    assert_string_equal(text_at(one, "mode"), "train");
    assert_int_equal(integer_at(one, "seed"), 9);
    assert_int_equal(integer_at(one, "rows"), 3);
    assert_int_equal(integer_at(one, "version"), 0);
    assert_in_range(integer_at(one, "bytes"), 100, 100000);
    assert_in_range(integer_at(one, "expires_in_ms"), 1, 600000);
}

static void goes_when_told(void **state) {
    (void)state;
    const char *context = keep_context("");
    char path[64];
    snprintf(path, sizeof path, "/contexts/%s", context);
    assert_string_equal(text_at(ask(200, "DELETE", path, NULL), "deleted"), context);
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
}

static void goes_with_its_model(void **state) {
    (void)state;
    const char *context = keep_context("");
    ask(201, "POST", "/models", MODEL, "other");
    const char *others =
        text_at(ask(200, "POST", "/forward", "{'model': 'other', " X ", 'retain': true}"), "context");
    ask(200, "DELETE", "/models/m", NULL);
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
    backward_at(others, "");
    ask(200, "DELETE", "/models/other", NULL);
    ask(201, "POST", "/models", MODEL, "m"); /* the same name is another model */
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
}

/* A tape in eval mode, and the mode that each call has by itself. */
static void has_a_mode(void **state) {
    (void)state;
    const char *eval = keep_context(", 'mode': 'eval', 'seed': 4");
    const json_t *list = at(ask(200, "GET", "/contexts", NULL), "contexts");
    assert_string_equal(text_at(json_array_get(list, 0), "mode"), "eval");
    const json_t *plain = ask(200, "POST", "/forward", "{'model': 'm', " X ", 'seed': 5}");
    same_json(at(backward_at(eval, ""), "outputs"), at(plain, "outputs"));
    const json_t *train = ask(200, "POST", "/forward", "{'model': 'm', " X ", 'seed': 5, 'mode': 'train'}");
    assert_false(json_equal(at(train, "outputs"), at(plain, "outputs")));
    same_json(at(fresh_backward("5"), "outputs"), at(train, "outputs"));
}

/* --- time -------------------------------------------------------------------------------------------- */

static void expires(void **state) {
    (void)state;
    service_start((const char *const[]){"--context-ttl", "1s", NULL}, NULL);
    ask(201, "POST", "/models", MODEL, "m");
    const char *context = quoted(keep_context(""));
    backward_at(context, ", 'retain': true"); /* is there */
    for (int i = 0; i < 4000 && json_array_size(at(ask(200, "GET", "/contexts", NULL), "contexts")); i++)
        test_pause();
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': '%s', " Y "}", context);
    service_stop();
}

#define context_test(function) cmocka_unit_test_setup_teardown(function, fresh_model, no_model)

int main(void) {
    const struct CMUnitTest tests[] = {
        context_test(is_of_its_version),
        context_test(is_of_its_version_in_bytes),
        context_test(is_used_up),
        context_test(is_kept_when_asked),
        context_test(survives_bad_requests),
        context_test(is_applied),
        context_test(tells_of_itself),
        context_test(goes_when_told),
        context_test(goes_with_its_model),
        context_test(has_a_mode),
    };
    const struct CMUnitTest in_time[] = {service_test(expires)};
    int failed = cmocka_run_group_tests(tests, service_setup, service_teardown);
    return failed + cmocka_run_group_tests(in_time, NULL, NULL);
}
