/* Forwards that are computed together: each answers the bytes that it got alone, whoever its company was and
 * whatever befell them; at one version, which it tells; and in the end nothing is held. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/service.h"

enum { REQUESTS = 40, FEATURES = 33, IDS = 3, VOCABULARY = 11, BATCH = 64, ROWS = 30 };

#define JSON    "application/json"
#define TENSORS "application/safetensors"

static struct test_service service;
static int64_t tile[2];

static void start(int workers, size_t memory) {
    struct api_settings settings = {.limits = api_default_limits, .tile = {tile[0], tile[1]}};
    settings.limits.batch_max = BATCH;
    if (memory) settings.limits.memory = memory;
    test_service_start(&service, &settings, workers);
}

/* Wide enough for the products' main kernels, with a width that meets their edges; and so that ROWS rows of
 * it are not brief: they are served by the service's threads. */
static void make(const char *name, const char *dtype) {
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': '%s', 'seed': 1, 'dtype': '%s', 'coalesce': true,"
                         " 'inputs': {'x': {'shape': [%d]}, 'id': {'shape': [%d], 'dtype': 'I64'}},"
                         " 'layers': [{'op': 'embedding', 'num_embeddings': %d, 'embedding_dim': 5,"
                         "             'inputs': ['id']}, {'op': 'flatten'},"
                         "            {'op': 'concat', 'inputs': ['x', '1', 'q']},"
                         "            {'op': 'linear', 'out_features': 2050}, {'op': 'gelu'}, {'op': "
                         "'dropout'}, {'op': 'batch_norm'},"
                         "            {'op': 'matmul', 'out_features': 19, 'name': 'logits'},"
                         "            {'op': 'softmax', 'name': 'p'},"
                         "            {'op': 'parameter', 'name': 'q', 'shape': [3], 'init': 'normal'}],"
                         " 'outputs': ['logits', 'p', 'q'],"
                         " 'loss': {'op': 'mse', 'input': 'p'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}}",
                         name, dtype, FEATURES, IDS, VOCABULARY));
}

/* --- requests ---------------------------------------------------------------------------------------- */

/* Row r of request i, the same whenever it is asked. */
static double number(int i, int r, int j) {
    return (double)((i * 7919 + r * 104729 + j * 1299709) % 2003 - 1001) / 997;
}

static json_t *rows_of(int i, int first, int rows, bool ids) {
    json_t *list = json_array();
    for (int r = first; r < first + rows; r++) {
        json_t *row = json_array();
        for (int j = 0; j < (ids ? IDS : FEATURES); j++)
            json_array_append_new(row,
                                  ids ? json_integer((i + r + j) % VOCABULARY) : json_real(number(i, r, j)));
        json_array_append_new(list, row);
    }
    return list;
}

static char *body_of(const char *model, int i, int first, int rows) {
    json_t *json = json_pack("{s:s, s:{s:o, s:o}, s:i}", "model", model, "inputs", "x",
                             rows_of(i, first, rows, false), "id", rows_of(i, first, rows, true), "seed", i);
    char *text = json_dumps(json, 0);
    assert_non_null(text);
    json_decref(json);
    return text;
}

static int rows_in(int i) { return 1 + i % 5 % 3; }

static struct test_request forward(const char *body, const char *accept) {
    return (struct test_request){.method = "POST",
                                 .path = "/forward",
                                 .content_type = JSON,
                                 .accept = accept,
                                 .body = body,
                                 .size = strlen(body)};
}

static json_int_t count(const char *model, const char *what) {
    json_t *json = test_ask(&service, 200, model, NULL, NULL);
    json_t *coalescing = json_object_get(json, "coalescing");
    json_int_t n = json_is_null(coalescing) ? -1 : json_integer_value(json_object_get(coalescing, what));
    json_decref(json);
    return n;
}

/* --- company ------------------------------------------------------------------------------------------ */

/* Keeps all of the service's threads until it is posted. */
static sem_t gate, arrived;

static void wait_at_gate(void *arg) {
    (void)arg;
    sem_post(&arrived);
    sem_wait(&gate);
}

static void hold_threads(void) {
    pthread_mutex_lock(&service.lock);
    for (int i = 0; i < service.n_workers; i++)
        service.queue[(service.first + service.n_jobs++) % TEST_MAX_QUEUE] =
            (struct test_job){wait_at_gate, NULL};
    pthread_cond_broadcast(&service.more);
    pthread_mutex_unlock(&service.lock);
}

static void let_go(void) {
    for (int i = 0; i < service.n_workers; i++) sem_post(&gate);
    for (int i = 0; i < service.n_workers; i++) sem_wait(&arrived);
}

/* When no thread is at anything: who has answered a batch may be about to let go of it. */
static size_t memory_at_rest(void) {
    hold_threads();
    for (int i = 0; i < service.n_workers; i++) sem_wait(&arrived);
    size_t bytes = api_memory_in_use(service.api);
    for (int i = 0; i < service.n_workers; i++) sem_post(&arrived);
    let_go();
    return bytes;
}

struct asked {
    char *body;
    const char *accept;
    struct test_answer alone;
    struct test_pending pending;
};

/* Asks once for each, alone. */
static void ask_alone(const char *model, struct asked *asked) {
    for (int i = 0; i < REQUESTS; i++) {
        asked[i] = (struct asked){.body = body_of(model, i, 0, rows_in(i)), .accept = i % 2 ? TENSORS : JSON};
        struct test_request request = forward(asked[i].body, asked[i].accept);
        asked[i].alone = test_request(&service, &request);
        assert_int_equal(asked[i].alone.status, 200);
    }
}

static void submit(struct asked *asked) {
    struct test_request request = forward(asked->body, asked->accept);
    test_submit(&service, &asked->pending, &request);
}

static void check(struct asked *asked) {
    struct test_answer answer = test_take(&asked->pending);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.size, asked->alone.size);
    assert_memory_equal(answer.body, asked->alone.body, answer.size);
    test_answer_free(&answer);
}

static void forget(struct asked *asked) {
    for (int i = 0; i < REQUESTS; i++) {
        free(asked[i].body);
        test_answer_free(&asked[i].alone);
    }
}

static void the_same_bytes_in_company(void **state) {
    (void)state;
    static struct asked asked[REQUESTS];
    static const char *const dtypes[] = {"F32", "F64"};
    for (int workers = 1; workers <= 4; workers += 3)
        for (int d = 0; d < 2; d++) {
            if (!tile[d]) continue; /* not on this machine */
            start(workers, 0);
            make("m", dtypes[d]);
            size_t before = memory_at_rest();
            ask_alone("m", asked);
            assert_int_equal(count("GET /models/m", "batches"), REQUESTS);
            assert_int_equal(count("GET /models/m", "tile"), tile[d]);
            for (int round = 0; round < 8; round++) { /* in another order each time */
                const int stride[] = {1, 3, 7, 9, 11, 13, 17, 39};
                hold_threads();
                for (int k = 0; k < REQUESTS; k++) submit(&asked[k * stride[round] % REQUESTS]);
                let_go();
                for (int i = 0; i < REQUESTS; i++) check(&asked[i]);
            }
            assert_int_equal(count("GET /models/m", "requests"), 9 * REQUESTS);
            json_int_t batches = count("GET /models/m", "batches") - REQUESTS;
            assert_true(batches < 8 * REQUESTS / 3);
            assert_int_equal(memory_at_rest(), before);
            forget(asked);
            test_service_stop(&service);
        }
}

/* A row's numbers do not depend on the batch that its client put it in, be it too large to share, or for
 * other outputs. */
static void the_same_numbers_in_any_batch(void **state) {
    (void)state;
    enum { MANY = BATCH + 9 };
    start(0, 0);
    make("m", tile[0] ? "F32" : "F64");
    char *body = body_of("m", 5, 0, MANY);
    json_t *all = test_call(&service, 200, "POST /forward", body);
    free(body);
    for (int r = 0; r < MANY; r += 8) {
        body = body_of("m", 5, r, 1);
        json_t *one = test_call(&service, 200, "POST /forward", body);
        static const char *const outputs[] = {"logits", "p"};
        for (int o = 0; o < 2; o++) {
            const json_t *many = json_object_get(json_object_get(all, "outputs"), outputs[o]);
            const json_t *alone = json_object_get(json_object_get(one, "outputs"), outputs[o]);
            assert_int_equal(json_array_size(many), MANY);
            assert_int_equal(json_array_size(alone), 1);
            assert_true(json_equal(json_array_get(many, (size_t)r), json_array_get(alone, 0)));
        }
        json_t *parsed = json_loads(body, 0, NULL);
        json_object_set_new(parsed, "outputs", json_pack("[s]", "logits"));
        char *some = json_dumps(parsed, 0);
        json_t *part = test_call(&service, 200, "POST /forward", some);
        assert_int_equal(json_object_size(json_object_get(part, "outputs")), 1);
        assert_true(json_equal(json_object_get(json_object_get(part, "outputs"), "logits"),
                               json_object_get(json_object_get(one, "outputs"), "logits")));
        json_decref(part), json_decref(parsed), json_decref(one);
        free(some), free(body);
    }
    json_decref(all);
    test_service_stop(&service);
}

/* --- who leaves ------------------------------------------------------------------------------------------- */

/* A peer that is there when its request is begun, and later is not; and one that stays. */
struct peer {
    struct test_pending pending; /* first, for it is the context */
    int looked;
};
static bool leaves(void *peer) { return ((struct peer *)peer)->looked++ > 0; }
static bool stays(void *peer) {
    ((struct peer *)peer)->looked++;
    return false;
}

/* Two share a batch. It is computed as long as one of them is there, to the same bytes. */
static void who_leaves_takes_nobody_along(void **state) {
    (void)state;
    start(1, 0);
    make("m", tile[0] ? "F32" : "F64");
    char *body = body_of("m", 1, 0, ROWS);
    struct test_request request = forward(body, JSON);
    struct test_answer alone = test_request(&service, &request);
    const size_t before = memory_at_rest();
    for (int leaving = 0; leaving <= 2; leaving++) {
        struct peer peers[2] = {0};
        json_int_t batches = count("GET /models/m", "batches");
        hold_threads();
        for (int i = 0; i < 2; i++) {
            request.left = i < leaving ? leaves : stays;
            test_submit(&service, &peers[i].pending, &request);
        }
        let_go();
        for (int i = 0; i < 2; i++) {
            struct test_answer answer = test_take(&peers[i].pending);
            assert_int_equal(answer.status, leaving < 2 ? 200 : 499);
            if (leaving < 2) assert_memory_equal(answer.body, alone.body, alone.size);
            test_answer_free(&answer);
        }
        assert_true(peers[leaving > 0].looked > 1); /* not only when it was begun */
        assert_int_equal(count("GET /models/m", "batches"), batches + 1);
        assert_int_equal(memory_at_rest(), before);
    }
    test_answer_free(&alone);
    free(body);
    test_service_stop(&service);
}

/* --- what befalls others ------------------------------------------------------------------------------ */

static void an_error_is_its_own(void **state) {
    (void)state;
    static struct asked asked[REQUESTS];
    static const struct {
        const char *body, *says;
    } bad[] = {{"{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]], \"id\": [[1, 2, 3]]}}", "shape-mismatch"},
               {"{\"model\": \"m\", \"inputs\": {\"id\": [[1, 2, 3]]}}", "invalid-value"},
               {"ID", "holds the id 99"},
               {"{\"model\": \"nobody\", \"inputs\": {\"id\": [[1, 2, 3]]}}", "not-found"},
               {"{\"model\": \"m\", \"inputs\": {\"id\": [[1, 2, 3]]}, \"worker\": \"w\"}", "unknown-member"},
               {"{\"model\": \"m\", \"inputs\"", "malformed"}};
    enum { BAD = sizeof bad / sizeof bad[0] };
    struct test_pending refused[BAD];
    start(2, 0);
    make("m", tile[0] ? "F32" : "F64");
    size_t before = memory_at_rest();
    ask_alone("m", asked);
    /* whose ids are beyond the vocabulary, found once its rows are taken */
    char *beyond = body_of("m", 0, 0, 2);
    char *ids = strstr(beyond, "\"id\": [[");
    assert_non_null(ids);
    memcpy(ids + strlen("\"id\": [["), "9", 1);
    char *comma = strchr(ids + strlen("\"id\": [["), ',');
    memcpy(comma, "9", 1); /* "0, 1" has become "99 1": */
    comma[1] = ',';
    hold_threads();
    for (int i = 0; i < REQUESTS; i++) {
        if (i < BAD) {
            struct test_request request = forward(bad[i].body[0] == 'I' ? beyond : bad[i].body, JSON);
            test_submit(&service, &refused[i], &request);
        }
        submit(&asked[i]);
    }
    let_go();
    for (int i = 0; i < REQUESTS; i++) check(&asked[i]);
    for (int i = 0; i < BAD; i++) {
        struct test_answer answer = test_take(&refused[i]);
        assert_true(answer.status >= 400 && answer.status < 500);
        if (!strstr(answer.body, bad[i].says)) fail_msg("%s: %s", bad[i].says, answer.body);
        test_answer_free(&answer);
    }
    assert_int_equal(memory_at_rest(), before);
    free(beyond);
    forget(asked);
    test_service_stop(&service);
}

/* One thread, so that all come into one batch: those before a change and those behind it. None answers from
 * before a change that was done when it came. */
static void one_version_a_batch(void **state) {
    (void)state;
    struct test_pending first, change, second;
    start(1, 0);
    make("m", tile[0] ? "F32" : "F64");
    char *body = body_of("m", 1, 0, ROWS);
    struct test_request request = forward(body, JSON);
    struct test_request put = {
        .method = "PUT",
        .path = "/models/m/parameters?partial=true",
        .content_type = JSON,
        .body = "{\"parameters\": {\"0.weight\": {\"dtype\": \"U8\", \"shape\": [11, 5],"
                " \"base64\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                "AAAAAAAAAAAAAA==\"}}}"};
    put.size = strlen(put.body);
    hold_threads();
    test_submit(&service, &first, &request);
    test_submit(&service, &change, &put);
    test_submit(&service, &second, &request);
    let_go();
    struct test_answer before = test_take(&first), after = test_take(&second), changed = test_take(&change);
    assert_int_equal(changed.status, 200);
    struct test_answer alone = test_request(&service, &request);
    assert_non_null(strstr(alone.body, "\"version\":1"));
    assert_string_equal(after.body, alone.body);
    assert_string_equal(before.body, alone.body);
    assert_int_equal(count("GET /models/m", "batches"), 2);
    test_answer_free(&before), test_answer_free(&after), test_answer_free(&changed), test_answer_free(&alone);
    free(body);
    test_service_stop(&service);
}

/* An answer that is still being sent holds its batch, and nothing else does. */
static void a_deleted_model_and_a_slow_reader(void **state) {
    (void)state;
    struct test_pending pending[2], gone;
    start(1, 0);
    size_t before = memory_at_rest();
    make("m", tile[0] ? "F32" : "F64");
    char *body = body_of("m", 1, 0, ROWS);
    struct test_request request = forward(body, TENSORS);
    struct test_answer alone = test_request(&service, &request);
    hold_threads();
    for (int i = 0; i < 2; i++) test_submit(&service, &pending[i], &request);
    test_submit(&service, &gone, &(struct test_request){.method = "DELETE", .path = "/models/m"});
    let_go();
    struct test_answer deleted = test_take(&gone), first = test_take(&pending[0]);
    assert_int_equal(deleted.status, 200);
    assert_int_equal(first.size, alone.size);
    assert_memory_equal(first.body, alone.body, alone.size);
    while (api_in_flight(service.api)) continue;
    assert_true(api_memory_in_use(service.api) > before);
    struct test_answer second = test_take(&pending[1]);
    assert_memory_equal(second.body, alone.body, alone.size);
    test_answer_free(&alone), test_answer_free(&deleted), test_answer_free(&first), test_answer_free(&second);
    free(body);
    test_service_stop(&service); /* which checks that no byte is reserved */
}

/* A budget that is too small for all: some get 503, and the rest are right. */
static void little_memory(void **state) {
    (void)state;
    static struct asked asked[REQUESTS];
    start(2, 3000000);
    make("m", tile[0] ? "F32" : "F64");
    ask_alone("m", asked);
    size_t before = memory_at_rest();
    int answered = 0;
    for (int round = 0; round < 10; round++) {
        hold_threads();
        for (int i = 0; i < REQUESTS; i++) submit(&asked[i]);
        let_go();
        for (int i = 0; i < REQUESTS; i++) {
            struct test_answer answer = test_take(&asked[i].pending);
            assert_true(answer.status == 200 || answer.status == 503);
            if (answer.status == 200) assert_memory_equal(answer.body, asked[i].alone.body, answer.size);
            answered += answer.status == 200;
            test_answer_free(&answer);
        }
    }
    assert_true(answered > 0);
    assert_int_equal(memory_at_rest(), before);
    forget(asked);
    test_service_stop(&service);
}

/* --- the setting --------------------------------------------------------------------------------------- */

#define SMALL "'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 1}]"

static void it_can_be_set_and_refused(void **state) {
    (void)state;
    start(0, 0);
    json_decref(test_ask(&service, 201, "POST /models", NULL, "{'name': 'm', " SMALL "}"));
    assert_int_equal(count("GET /models/m", "tile"), -1);
    json_decref(test_ask(&service, 422, "PATCH /models/m", NULL, "{'coalesce': 1}"));
    json_decref(test_ask(&service, 422, "POST /models", NULL, "{'name': 'n', 'coalesce': 'yes', " SMALL "}"));
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "{'coalesce': true}"));
    assert_int_equal(count("GET /models/m", "tile"), tile[0]);
    for (int i = 0; i < 2; i++)
        json_decref(
            test_ask(&service, 200, "POST /forward", NULL, "{'model': 'm', 'inputs': {'x': [[1, 2]]}%s}",
                     i ? ", 'retain': true" : "")); /* that is a backward's first half, not coalesced */
    assert_int_equal(count("GET /models/m", "requests"), 1);
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "{'coalesce': null}"));
    assert_int_equal(count("GET /models/m", "tile"), -1);
    /* Without running statistics, eval mode takes those of the batch. */
    json_t *coupled =
        test_ask(&service, 422, "POST /models", NULL,
                 "{'name': 'n', 'dtype': '%s', 'coalesce': true, 'inputs': {'x': {'shape': [2]}},"
                 " 'layers': [{'op': 'batch_norm', 'track_running_stats': false, 'name': 'bn'}]}",
                 tile[0] ? "F32" : "F64");
    assert_non_null(strstr(json_string_value(json_object_get(coupled, "detail")), "in \"bn\", rows depend"));
    json_decref(coupled);
    test_service_stop(&service);

    struct api_settings none = {.limits = api_default_limits};
    test_service_start(&service, &none, 0);
    json_decref(test_ask(&service, 201, "POST /models", NULL, "{'name': 'm', " SMALL "}"));
    static const char *const ways[] = {"POST /models", "PATCH /models/m"};
    for (int i = 0; i < 2; i++) {
        json_t *problem = test_ask(&service, 422, ways[i], NULL,
                                   i ? "{'coalesce': true}" : "{'name': 'n', 'coalesce': true, " SMALL "}");
        assert_string_equal(json_string_value(json_object_get(problem, "type")),
                            API_PROBLEM_TYPE "not-coalescable");
        assert_string_equal(json_string_value(json_object_get(problem, "pointer")), "/coalesce");
        json_decref(problem);
    }
    test_service_stop(&service);
}

/* --- all at once --------------------------------------------------------------------------------------- */

enum { CLIENTS = 8, ROUNDS = 150 };

struct client {
    pthread_t thread;
    int number, wrong;
};

/* Forwards while others update, switch the setting, and replace the model. A version never goes back. */
static void *hurry(void *arg) {
    struct client *client = arg;
    char *body = body_of("m", client->number, 0, 1 + client->number % 3);
    for (int i = 0; i < ROUNDS; i++) {
        struct test_request request = forward(body, i % 2 ? TENSORS : JSON);
        struct test_answer answer = test_request(&service, &request);
        client->wrong += answer.status != 200;
        test_answer_free(&answer);
        if (i % 10 == client->number) {
            struct test_request patch = {.method = "PATCH", .path = "/models/m", .content_type = JSON};
            patch.body = i % 20 < 10 ? "{\"coalesce\": false}" : "{\"coalesce\": true}";
            patch.size = strlen(patch.body);
            answer = test_request(&service, &patch);
            client->wrong += answer.status != 200;
            test_answer_free(&answer);
        }
        if (i % 5 == 0) {
            struct test_request put = {.method = "PUT",
                                       .path = "/models/m/parameters?partial=true",
                                       .content_type = JSON,
                                       .body = "{\"parameters\": {}}"};
            put.size = strlen(put.body);
            answer = test_request(&service, &put);
            client->wrong += answer.status != 200 && answer.status != 503;
            test_answer_free(&answer);
        }
    }
    free(body);
    return NULL;
}

static void many_threads(void **state) {
    (void)state;
    struct client clients[CLIENTS] = {0};
    start(4, 0);
    make("m", tile[0] ? "F32" : "F64");
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].number = i;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, hurry, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].wrong, 0);
    }
    test_service_stop(&service);
}

static int setup(void **state) {
    (void)state;
    nn_blas_init();
    tile[0] = nn_blas_tile(NN_F32);
    tile[1] = nn_blas_tile(NN_F64);
    return sem_init(&gate, 0, 0) || sem_init(&arrived, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bytes_in_company),
        cmocka_unit_test(the_same_numbers_in_any_batch),
        cmocka_unit_test(who_leaves_takes_nobody_along),
        cmocka_unit_test(an_error_is_its_own),
        cmocka_unit_test(one_version_a_batch),
        cmocka_unit_test(a_deleted_model_and_a_slow_reader),
        cmocka_unit_test(little_memory),
        cmocka_unit_test(it_can_be_set_and_refused),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
