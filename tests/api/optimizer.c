/* The optimizer's state over the API: what it keeps, it keeps by parameter; what was accumulated steps those parameters
 * that a contribution named; and what GET shows, PUT takes, to the same state. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/journal.h"
#include "../support/service.h"

static struct test_service service;
static struct test_journal journal;

static int setup(void **state) {
    (void)state;
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    test_journal_fini(&journal);
    return 0;
}

/* --- what the tests say ------------------------------------------------------------------------------- */

static json_t *get(struct test_service *of, const char *what) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", what);
    return test_call(of, 200, request, NULL);
}

/* One weight and one bias, which are 1. `rest`: further members. */
static void create_named(const char *name, const char *optimizer, const char *rest) {
    json_decref(
        test_ask(&service, 201, "POST /models", NULL,
                 "{'name': '%s', 'seed': 1, 'durability': 'journal', 'inputs': {'x': {'shape': [1]}}, "
                 "'layers': [{'op': 'linear', 'out_features': 1}], 'optimizer': {%s}%s}",
                 name, optimizer, rest));
    char request[64];
    snprintf(request, sizeof request, "PUT /models/%s/parameters", name);
    json_decref(test_ask(&service, 200, request, NULL, "{'parameters': {'0.weight': [[1]], '0.bias': [1]}}"));
}

static void create(const char *optimizer) { create_named("m", optimizer, ""); }

static void push_to(const char *model, int status, const char *gradients, const char *how) {
    json_t *seen = get(&service, model);
    char request[64];
    snprintf(request, sizeof request, "POST /models/%s/gradients", model);
    json_decref(test_ask(&service, status, request, NULL,
                         "{'incarnation': '%s', 'version': %lld, 'gradients': {%s}, %s}",
                         json_string_value(json_object_get(seen, "incarnation")),
                         json_integer_value(json_object_get(seen, "version")), gradients, how));
    json_decref(seen);
}

static void push(const char *gradients, const char *how) { push_to("m", 200, gradients, how); }

#define APPLY "'apply': true"
#define SUM   "'accumulate': true"

static double parameter_of(struct test_service *of, const char *name) {
    json_t *pulled = get(of, "m/parameters");
    const json_t *value = json_object_get(json_object_get(pulled, "parameters"), name);
    while (json_is_array(value)) value = json_array_get(value, 0);
    assert_true(json_is_number(value));
    double number = json_number_value(value);
    json_decref(pulled);
    return number;
}

static void expect_in(struct test_service *of, const char *name, double expected) {
    double found = parameter_of(of, name);
    if (!(fabs(found - expected) < 1e-6)) fail_msg("%s is %.9g, and not %.9g", name, found, expected);
}

static void expect(double weight, double bias) {
    expect_in(&service, "0.weight", weight);
    expect_in(&service, "0.bias", bias);
}

static char *text_take(json_t *json, const char *const *without, size_t n) {
    for (size_t i = 0; i < n; i++) json_object_del(json, without[i]);
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(json);
    return text;
}

/* That an answer has a member, which is written with ' for "; NULL: it has none. */
static void expect_member(const char *what, const char *member, const char *expected) {
    json_t *answer = get(&service, what);
    char *text = json_dumps(json_object_get(answer, member), JSON_ENCODE_ANY | JSON_SORT_KEYS);
    for (char *c = text; c && *c; c++)
        if (*c == '"') *c = '\'';
    if (!text != !expected || (text && strcmp(text, expected) != 0))
        fail_msg("%s: %s: %s instead of %s", what, member, text ? text : "nothing",
                 expected ? expected : "nothing");
    free(text);
    json_decref(answer);
}

/* --- steps, by parameter ------------------------------------------------------------------------------ */

static void steps_count_by_parameter(void **state) {
    (void)state;
    create("'op': 'adam', 'lr': 0.01");
    for (int i = 0; i < 300; i++) push("'0.bias': [1]", APPLY);
    push("'0.weight': [[1]]", APPLY);
    expect_in(&service, "0.weight", 0.99);
    expect_member("m/optimizer", "steps", "{'0.bias': 300, '0.weight': 1}");
    expect_member("m", "steps", "300");
    for (int i = 0; i < 299; i++) push("'0.weight': [[1]]", APPLY);
    expect_member("m/optimizer", "steps", "300");
    json_decref(test_ask(&service, 200, "DELETE /models/m", NULL, NULL));

    create("'op': 'adagrad', 'lr': 0.1, 'lr_decay': 1");
    for (int i = 0; i < 9; i++) push("'0.bias': [1]", APPLY);
    push("'0.weight': [[1]]", APPLY);
    expect_in(&service, "0.weight", 0.9);
    json_decref(test_ask(&service, 200, "DELETE /models/m", NULL, NULL));

    create("'op': 'sgd', 'lr': 0.1, 'momentum': 0.9, 'dampening': 0.5");
    push("'0.bias': [1]", APPLY);
    expect_member("m/optimizer", "fresh", "['momentum_buffer.0.weight']");
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    expect(0.9, 0.9 - 0.1 * (0.9 + 0.5));
}

static void steps_are_a_number_or_a_map(void **state) {
    (void)state;
    create("'op': 'adam', 'lr': 0.01");
    push("'0.bias': [1]", APPLY);
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    expect_member("m/optimizer", "steps", "{'0.bias': 2, '0.weight': 1}");
#define STATE                                                                                                \
    "'state': {'exp_avg.0.weight': [[0]], 'exp_avg.0.bias': [0], 'exp_avg_sq.0.weight': [[0]], "             \
    "'exp_avg_sq.0.bias': [0]}"
    static const struct {
        const char *members, *slug, *pointer, *steps;
    } rows[] = {
        {"'steps': 7", NULL, NULL, "7"},
        {"'steps': {'0.weight': 3, '0.bias': 3}", NULL, NULL, "3"},
        {"'steps': {'0.weight': 0, '0.bias': 9007199254740991}", NULL, NULL,
         "{'0.bias': 9007199254740991, '0.weight': 0}"},
        {"'steps': {'0.weight': 3}", "invalid-value", "/steps/0.bias", NULL},
        {"'steps': {'0.weight': 3, '0.bias': -1}", "invalid-value", "/steps/0.bias", NULL},
        {"'steps': {'0.weight': 3, '0.bias': 1, 'more': 1}", "unknown-name", "/steps/more", NULL},
        {"'steps': '7'", "invalid-value", "/steps", NULL},
        {"'steps': 0.5", "invalid-value", "/steps", NULL},
        {"'steps': 9007199254740992", "invalid-value", "/steps", NULL},
        {"'steps': 1, 'fresh': {}", "invalid-value", "/fresh", NULL},
        {"'steps': 1, 'fresh': [1]", "invalid-value", "/fresh", NULL},
        {"'steps': 1, 'fresh': ['exp_avg.0.weight']", "unknown-name", "/fresh", NULL},
        {"'steps': 1, 'fresh': ['nothing']", "unknown-name", "/fresh", NULL},
        {"'steps': 1, 'fresh': ['', '', '', '', '']", "invalid-value", "/fresh", NULL},
    };
    const char *steps = "{'0.bias': 2, '0.weight': 1}";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *answer = test_ask(&service, rows[i].slug ? 422 : 200, "PUT /models/m/optimizer", NULL,
                                  "{%s, " STATE "}", rows[i].members);
        if (rows[i].steps) steps = rows[i].steps;
        const char *type = json_string_value(json_object_get(answer, "type")),
                   *pointer = json_string_value(json_object_get(answer, "pointer"));
        if (rows[i].slug &&
            (!type || !pointer || strcmp(type + strlen(API_PROBLEM_TYPE), rows[i].slug) != 0 ||
             strcmp(pointer, rows[i].pointer) != 0))
            fail_msg("%s: %s at %s", rows[i].members, type, pointer);
        json_decref(answer);
        expect_member("m/optimizer", "steps", steps);
    }
}

/* A frozen parameter takes no steps, and has no name among them. */
static void frozen_parameters_are_no_part_of_it(void **state) {
    (void)state;
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'linear', "
                         "'out_features': 1}, {'op': 'linear', 'out_features': 1, 'trainable': false}], "
                         "'optimizer': {'op': 'sgd', 'momentum': 0.5}}"));
    push("'0.bias': [1]", APPLY);
    expect_member("m/optimizer", "steps", "{'0.bias': 1, '0.weight': 0}");
    json_decref(test_ask(&service, 422, "PUT /models/m/optimizer", NULL,
                         "{'steps': {'0.weight': 1, '0.bias': 1, '1.bias': 1}, 'state': "
                         "{'momentum_buffer.0.weight': [[0]], 'momentum_buffer.0.bias': [0]}}"));
    json_decref(
        test_ask(&service, 200, "PUT /models/m/optimizer", NULL,
                 "{'steps': {'0.weight': 1, '0.bias': 1}, 'state': {'momentum_buffer.0.weight': [[0]], "
                 "'momentum_buffer.0.bias': [0]}}"));
    expect_member("m/optimizer", "steps", "1");
}

/* --- what was accumulated ------------------------------------------------------------------------------ */

#define DECAY "'op': 'sgd', 'lr': 0.1, 'weight_decay': 0.5"

static void step(const char *members) {
    json_decref(test_ask(&service, 200, "POST /step", NULL, "{'model': 'm'%s}", members));
}

static void what_is_accumulated_steps_whom_it_names(void **state) {
    (void)state;
    create(DECAY);
    push("'0.weight': [[1]]", SUM);
    expect_member("m/gradients", "gradients", "{'0.weight': [[1.0]]}");
    step("");
    expect(0.85, 1);

    push("'0.weight': [[2]]", "'accumulate': {'scale': 0.5}"); /* names join */
    push("'0.bias': [3]", SUM);
    expect_member("m/gradients", "gradients", "{'0.bias': [3.0], '0.weight': [[1.0]]}");
    step(", 'mean': true");
    expect(0.85 - 0.1 * (1 / 1.5 + 0.5 * 0.85), 1 - 0.1 * (2 + 0.5));

    push("'0.weight': [[1]]", SUM); /* names go with the sum */
    json_decref(test_ask(&service, 200, "DELETE /models/m/gradients", NULL, NULL));
    double weight = parameter_of(&service, "0.weight"), bias = parameter_of(&service, "0.bias");
    push("'0.bias': [0]", SUM);
    step("");
    expect(weight, bias * 0.95);

    push("'0.weight': [[1]], '0.bias': [1]", SUM); /* all of them are as none left out */
    step("");
    expect(weight - 0.1 * (1 + 0.5 * weight), bias * 0.95 - 0.1 * (1 + 0.5 * bias * 0.95));
}

/* A contribution that is refused leaves the names as they were, and so does the first one, which leaves none. */
static void a_refused_contribution_names_nobody(void **state) {
    (void)state;
    create(DECAY);
    push_to("m", 422, "'0.weight': [[3e38]], '0.bias': [0]", "'accumulate': {'scale': 10}");
    push("'0.bias': [0]", SUM);
    push_to("m", 422, "'0.weight': [[3e38]], '0.bias': [0]", "'accumulate': {'scale': 10}");
    expect_member("m/gradients", "gradients", "{'0.bias': [0.0]}");
    step("");
    expect(1, 0.95);
}

static void check_after(struct test_service *of, double weight, double bias) {
    json_decref(test_ask(of, 200, "POST /step", NULL, "{'model': 'm'}"));
    expect_in(of, "0.weight", weight);
    expect_in(of, "0.bias", bias);
}

/* Between a contribution and the step: a start from records, from a snapshot, from both, and a restore. */
static void names_outlive_the_process(void **state) {
    (void)state;
    struct test_recovered recovered;
    create(DECAY);
    push("'0.bias': [0]", SUM);
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check_after(&recovered.service, 1, 0.95);
    test_recovered_stop(&recovered);

    test_journal_checkpoint(&journal, service.api);
    test_recovered_start(&recovered, &journal, &service, true, journal.n);
    check_after(&recovered.service, 1, 0.95);
    test_recovered_stop(&recovered);

    push("'0.weight': [[0]]", SUM);
    test_recovered_start(&recovered, &journal, &service, true, journal.n);
    check_after(&recovered.service, 0.95, 0.95);
    test_recovered_stop(&recovered);

    check_after(&service, 0.95, 0.95); /* and what comes after the step is known by the record */
    push("'0.weight': [[0]]", SUM);
    check_after(&service, 0.95 * 0.95, 0.95);
    test_recovered_start(&recovered, &journal, &service, true, journal.n);
    expect_in(&recovered.service, "0.weight", 0.95 * 0.95);
    expect_in(&recovered.service, "0.bias", 0.95);
    test_recovered_stop(&recovered);
}

/* A model whose durability is raised is written down as it is; so is one that is restored. */
static void names_are_in_a_state(void **state) {
    (void)state;
    struct test_recovered recovered;
    create(DECAY);
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "{'durability': 'none'}"));
    push("'0.weight': [[1]]", APPLY);
    push("'0.bias': [0]", SUM);
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "{'durability': 'journal'}"));
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check_after(&recovered.service, 0.85, 0.95);
    test_recovered_stop(&recovered);
}

static void submit(struct test_pending *pending, char *body, size_t room, const char *worker,
                   const char *gradients) {
    json_t *seen = get(&service, "m");
    snprintf(body, room,
             "{\"incarnation\": \"%s\", \"version\": %lld, \"worker\": \"%s\", \"gradients\": {%s}, "
             "\"apply\": true}",
             json_string_value(json_object_get(seen, "incarnation")),
             json_integer_value(json_object_get(seen, "version")), worker, gradients);
    json_decref(seen);
    test_submit(&service, pending,
                &(struct test_request){.method = "POST",
                                       .path = "/models/m/gradients",
                                       .content_type = "application/json",
                                       .body = body,
                                       .size = strlen(body)});
}

/* Of a round, too, those parameters are stepped that some contribution names, and they count their steps. */
static void a_round_steps_whom_it_names(void **state) {
    (void)state;
    static const struct {
        const char *gradients[2];
        double weight, bias;
        const char *steps;
    } rows[] = {{{"\"0.weight\": [[1]]", "\"0.weight\": [[3]]"}, 0.75, 1, "{'0.bias': 0, '0.weight': 1}"},
                {{"\"0.weight\": [[0]]", "\"0.bias\": [0]"}, 0.7125, 0.95, "{'0.bias': 1, '0.weight': 2}"}};
    struct test_recovered recovered;
    create_named("m", DECAY, ", 'aggregation': {'mode': 'sync', 'workers': 2}");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct test_pending pending[2];
        char body[2][512];
        for (int k = 0; k < 2; k++)
            submit(&pending[k], body[k], sizeof body[k], k ? "b" : "a", rows[i].gradients[k]);
        for (int k = 0; k < 2; k++) {
            struct test_answer answer = test_take(&pending[k]);
            if (answer.status != 200) fail_msg("%s", answer.body);
            test_answer_free(&answer);
        }
        expect(rows[i].weight, rows[i].bias);
        expect_member("m/optimizer", "steps", rows[i].steps);
        test_recovered_start(&recovered, &journal, &service, false, journal.n);
        expect_in(&recovered.service, "0.weight", rows[i].weight);
        expect_in(&recovered.service, "0.bias", rows[i].bias);
        test_recovered_stop(&recovered);
    }
}

/* --- what GET shows, PUT takes -------------------------------------------------------------------------- */

static void buffers_that_are_given_are_used(void **state) {
    (void)state;
#define BUFFERS "'state': {'momentum_buffer.0.weight': [[10]], 'momentum_buffer.0.bias': [10]}"
    create("'op': 'sgd', 'lr': 1, 'momentum': 0.5");
    json_decref(test_ask(&service, 200, "PUT /models/m/optimizer", NULL, "{'steps': 0, " BUFFERS "}"));
    expect_member("m/optimizer", "fresh", NULL);
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    expect(-5, -5);

    json_decref(test_ask(&service, 200, "PUT /models/m/parameters", NULL,
                         "{'parameters': {'0.weight': [[1]], '0.bias': [1]}}"));
    json_t *answer = test_ask(&service, 200, "PUT /models/m/optimizer", NULL,
                              "{'steps': 4, 'fresh': ['momentum_buffer.0.bias'], " BUFFERS "}");
    assert_string_equal(json_string_value(json_array_get(json_object_get(answer, "fresh"), 0)),
                        "momentum_buffer.0.bias");
    json_decref(answer);
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    expect(-5, 0);
    expect_member("m/optimizer", "fresh", NULL);
}

#define TENSORS "application/safetensors"

/* The state of one model becomes another's, in this encoding. */
static void carry_over(const char *from, const char *to, const char *encoding) {
    char path[64];
    snprintf(path, sizeof path, "/models/%s/optimizer", from);
    struct test_answer got =
        test_request(&service, &(struct test_request){.method = "GET", .path = path, .accept = encoding});
    assert_int_equal(got.status, 200);
    snprintf(path, sizeof path, "/models/%s/optimizer", to);
    struct test_answer put = test_request(
        &service,
        &(struct test_request){
            .method = "PUT", .path = path, .content_type = encoding, .body = got.body, .size = got.size});
    if (put.status != 200) fail_msg("%s: %s", path, put.body);
    test_answer_free(&got);
    test_answer_free(&put);
}

static const char *const of_its_own[] = {"model",   "name",          "incarnation",
                                         "version", "specification", "durable_version"};

static void check_same(const char *what, const char *one, const char *other) {
    char *text[2];
    for (int i = 0; i < 2; i++) {
        char part[64];
        snprintf(part, sizeof part, "%s%s", i ? other : one, what);
        text[i] = text_take(get(&service, part), of_its_own, sizeof of_its_own / sizeof of_its_own[0]);
    }
    assert_string_equal(text[0], text[1]);
    free(text[0]);
    free(text[1]);
}

/* Partial steps, and then the state of "m" into itself, and into "n"; all three go on alike. */
static void check_neutral(const char *optimizer, const char *encoding, int pushes) {
    static const char *const gradients[] = {"'0.bias': [0.5]", "'0.weight': [[0.25]], '0.bias': [-1]",
                                            "'0.bias': [2]", "'0.weight': [[-3]]"};
    static const char *const models[] = {"m", "n", "untouched"};
    for (int k = 0; k < 3; k++) create_named(models[k], optimizer, "");
    for (int i = 0; i < pushes; i++) {
        push_to("m", 200, gradients[i], APPLY);
        push_to("untouched", 200, gradients[i], APPLY);
    }
    json_t *parameters = get(&service, "m/parameters");
    char *body = json_dumps(json_object_get(parameters, "parameters"), JSON_REAL_PRECISION(17));
    json_decref(test_ask(&service, 200, "PUT /models/n/parameters", NULL, "{'parameters': %s}", body));
    free(body);
    json_decref(parameters);
    carry_over("m", "m", encoding);
    carry_over("m", "n", encoding);
    check_same("/optimizer", "untouched", "m");
    check_same("/optimizer", "untouched", "n");
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) push_to(models[k], 200, gradients[3 - i], APPLY);
    for (int k = 0; k < 2; k++) {
        check_same("/optimizer", "untouched", models[k]);
        check_same("/parameters", "untouched", models[k]);
    }
    struct test_recovered recovered; /* as the records have it */
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    double found = parameter_of(&recovered.service, "0.weight");
    assert_true(found == parameter_of(&service, "0.weight"));
    test_recovered_stop(&recovered);
    teardown(NULL);
    setup(NULL);
}

static void get_then_put_changes_nothing(void **state) {
    (void)state;
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        for (int e = 0; e < def->n_examples; e++)
            for (int pushes = 0; pushes <= 4; pushes += 2)
                for (int file = 0; file < 2; file++) {
                    char optimizer[256];
                    const char *attrs = def->examples[e].attrs;
                    snprintf(optimizer, sizeof optimizer, "'op': '%s'%s%s%s", def->name, *attrs ? ", " : "",
                             attrs,
                             strstr(attrs, "dampening") || strcmp(def->name, "sgd") != 0 ||
                                     !strstr(attrs, "momentum") || strstr(attrs, "nesterov")
                                 ? ""
                                 : ", 'dampening': 0.5");
                    check_neutral(optimizer, file ? TENSORS : "application/json", pushes);
                }
}

/* Momentum that comes on later is fresh for every parameter, whatever the steps; and stays so through a start. */
static void momentum_comes_on_later(void **state) {
    (void)state;
    struct test_recovered recovered;
    create("'op': 'sgd', 'lr': 0.1");
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL,
                         "{'optimizer': {'momentum': 0.5, 'dampening': 0.5}}"));
    expect_member("m/optimizer", "steps", "1");
    expect_member("m/optimizer", "fresh", "['momentum_buffer.0.weight', 'momentum_buffer.0.bias']");
    push("'0.weight': [[1]]", APPLY);
    expect_member("m/optimizer", "fresh", "['momentum_buffer.0.bias']");
    test_journal_checkpoint(&journal, service.api);
    push("'0.weight': [[1]], '0.bias': [1]", APPLY);
    expect(0.8 - 0.1 * (0.5 + 0.5), 0.8);
    test_recovered_start(&recovered, &journal, &service, true, journal.n);
    expect_in(&recovered.service, "0.weight", 0.7);
    expect_in(&recovered.service, "0.bias", 0.8);
    test_recovered_stop(&recovered);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(steps_count_by_parameter),
        TEST(steps_are_a_number_or_a_map),
        TEST(frozen_parameters_are_no_part_of_it),
        TEST(what_is_accumulated_steps_whom_it_names),
        TEST(a_refused_contribution_names_nobody),
        TEST(names_outlive_the_process),
        TEST(names_are_in_a_state),
        TEST(a_round_steps_whom_it_names),
        TEST(buffers_that_are_given_are_used),
        TEST(get_then_put_changes_nothing),
        TEST(momentum_comes_on_later),
    };
    return cmocka_run_group_tests_name("optimizer", tests, NULL, NULL);
}
