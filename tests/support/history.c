/* history.c - the history as it happens. See history.h; what is checked is in history_check.c. */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "history_inside.h"

enum { GROUPED = TEST_GROUPED, INSIDE = TEST_INSIDE, DURING = TEST_DURING };
#define TEST_STEP(request, model, flags, key, body) {request, model, flags, key, body},
const struct test_step test_steps[] = {
#include "history.def"
};
enum { STEPS = sizeof test_steps / sizeof test_steps[0] };
_Static_assert(STEPS <= TEST_STEPS, "more steps than there is room for");

const char *const test_models[TEST_MODELS] = {"a", "s", "n", "t"};

int test_history_steps(void) { return STEPS; }

const char *test_history_step(int step, char text[128]) {
    const struct test_step *it = &test_steps[step];
    snprintf(text, 128, "%d: %s %s %s", step, it->request, it->model, it->key ? it->key : "");
    return text;
}

bool test_step_is(int step, const char *request) { return strcmp(test_steps[step].request, request) == 0; }

bool test_step_sends(int step) { return strchr(test_steps[step].request, ' ') != NULL; }

/* --- the state --------------------------------------------------------------------------------------- */

static char *dump_take(json_t *json) {
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(json);
    assert_non_null(text);
    return text;
}

/* Numbers are printed so that they read back, so that equal text is equal bytes. */
void test_state_read(struct test_stored *stored, const char *model, struct test_model_state *state) {
    static const char *const parts[] = {"", "/parameters", "/optimizer", "/gradients"};
    static const char *const moments[] = {"incarnation", "durable_version", "snapshots", "specification"};
    json_t *all = json_array();
    *state = (struct test_model_state){0};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char request[128];
        snprintf(request, sizeof request, "GET /models/%s%s", model, parts[i]);
        json_t *part = test_call(&stored->service, 0, request, NULL);
        if (i == 0 && !json_object_get(part, "specification")) {
            json_decref(part);
            json_decref(all);
            return;
        }
        if (i == 0) {
            state->how = dump_take(json_deep_copy(json_object_get(part, "specification")));
            snprintf(state->incarnation, sizeof state->incarnation, "%s",
                     json_string_value(json_object_get(part, "incarnation")));
        }
        for (size_t k = 0; k < sizeof moments / sizeof moments[0]; k++) json_object_del(part, moments[k]);
        json_array_append_new(all, part);
    }
    state->numbers = dump_take(all);
}

void test_state_free(struct test_model_state *state) {
    free(state->how);
    free(state->numbers);
    *state = (struct test_model_state){0};
}

static void read_all(struct test_stored *stored, struct test_taken *taken) {
    for (int i = 0; i < TEST_MODELS; i++) {
        test_state_free(&taken->after[i]);
        test_state_read(stored, test_models[i], &taken->after[i]);
    }
}

/* --- requests ---------------------------------------------------------------------------------------- */

struct past {
    struct test_history *history;
    struct test_stored stored;
    struct test_pending pending[TEST_STEPS];
    int first_open; /* step that is not answered yet */
    int life, next; /* starts so far; the step within another's */
    char context[64];
    const struct test_fault *fault; /* NULL: nothing fails */
    bool failed;                    /* something has */
};

/* A member of a model's description, as text. */
static void member(struct test_stored *stored, const char *model, const char *name, char text[64]) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", model);
    json_t *json = test_call(&stored->service, 0, request, NULL), *value = json_object_get(json, name);
    if (json_is_string(value))
        snprintf(text, 64, "%s", json_string_value(value));
    else
        snprintf(text, 64, "%lld", (long long)json_integer_value(value));
    json_decref(json);
}

char *test_step_body(struct test_stored *stored, int step, const char *context) {
    const struct test_step *it = &test_steps[step];
    char value[64];
    char *text = malloc(4096), *to = text;
    if (!it->body || !text) return free(text), NULL;
    for (const char *from = it->body; *from; from++) {
        assert_true(to - text < 4000);
        *to++ = *from == '\'' ? '"' : *from;
        if (*from != '$') continue;
        to--;
        from++;
        if (*from == 'c') snprintf(value, sizeof value, "%s", context);
        if (*from != 'c') member(stored, it->model, *from == 'i' ? "incarnation" : "version", value);
        to += snprintf(to, 64, "%s", value);
    }
    *to = '\0';
    return text;
}

struct test_request test_step_request(int step, char method[16], const char *body) {
    const struct test_step *it = &test_steps[step];
    snprintf(method, 16, "%.*s", (int)strcspn(it->request, " "), it->request);
    return (struct test_request){.method = method,
                                 .path = strchr(it->request, ' ') + 1,
                                 .idempotency_key = it->key,
                                 .body = body,
                                 .size = body ? strlen(body) : 0};
}

/* Random numbers depend on the step and the start alone. */
void test_step_seed(struct test_stored *stored, int step, int life) {
    atomic_store(&stored->service.drawn,
                 1000000 * (unsigned long long)life + 1000 * (unsigned long long)(step + 1));
}

static void send(struct past *past, int step) {
    struct test_taken *taken = &past->history->taken[step];
    char method[16];
    taken->begun = test_disk_operations(past->history->disk);
    taken->body = test_step_body(&past->stored, step, past->context);
    struct test_request request = test_step_request(step, method, taken->body);
    test_step_seed(&past->stored, step, past->life);
    test_submit(&past->stored.service, &past->pending[step], &request);
}

static void send_next(struct test_stored *stored) {
    struct past *past = stored->arg;
    send(past, past->next);
}

/* Whether this is how a store that fails is told of: changes are refused, and have changed nothing, unless it says that
 * they were made. What builds on a refused one is refused for its own reasons. */
static void check_refusal(const struct past *past, int step, const struct test_answer *answer) {
    const struct test_taken *taken = &past->history->taken[step];
    char what[128];
    bool by_store = answer->status == 503, told = by_store && strstr(answer->body, "the change was made");
    if (!past->failed || answer->status < 400 || (answer->status > 499 && !by_store))
        fail_msg("%s: %d: %s", test_history_step(step, what), answer->status, answer->body);
    const struct test_step *it = &test_steps[step];
    if (!by_store || told || step == 0 || it->flags || test_steps[step - 1].flags ||
        strstr(it->body ? it->body : "", "'wait'"))
        return;
    for (int i = 0; i < TEST_MODELS; i++) {
        const struct test_model_state *now = &taken->after[i], *then = &(taken - 1)->after[i];
        if (!now->how != !then->how || (now->how && strcmp(now->numbers, then->numbers) != 0))
            fail_msg("%s: refused, and %s has changed: %s", test_history_step(step, what), test_models[i],
                     answer->body);
    }
}

static void take_answer(struct past *past, int step) {
    struct test_taken *taken = &past->history->taken[step];
    struct test_answer answer = test_take(&past->pending[step]);
    taken->status = answer.status;
    taken->acked = test_disk_operations(past->history->disk);
    past->failed |= past->fault && test_disk_failed(past->history->disk);
    if (answer.status >= 400 || !answer.status) check_refusal(past, step, &answer);
    json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
    const char *context = json_string_value(json_object_get(json, "context"));
    if (context) snprintf(past->context, sizeof past->context, "%s", context);
    json_decref(json);
    test_answer_free(&answer);
}

/* While a checkpoint is taken. */
static void send_during(void *arg, const char *name) {
    struct past *past = arg;
    int step = past->next;
    if (strncmp(name, "snapshot-", 9) != 0 || step >= past->history->n || !(test_steps[step].flags & DURING))
        return;
    past->next++;
    send(past, step);
    read_all(&past->stored, &past->history->taken[step]);
}

static void repair(struct past *past) { past->failed |= test_disk_work(past->history->disk); }

/* One that fails has taken nothing from the next. */
static void start(struct past *past) {
    struct nn_error err = {0};
    int life = past->life++;
    if (past->fault && test_stored_start(&past->stored, past->history->disk, life, NULL, &err) == NN_OK)
        return;
    if (past->fault) {
        assert_true(err.code == NN_E_STORE);
        repair(past);
        err = (struct nn_error){0};
    }
    test_ok(test_stored_start(&past->stored, past->history->disk, life, NULL, &err), &err, "a start");
}

/* Of the steps up to this one, in their order; behind one for which there is no room on the disk they wait. */
static void take_answers(struct past *past, int step) {
    for (; past->first_open <= step; past->first_open++) {
        if (!test_step_sends(past->first_open)) continue;
        if (!atomic_load(&past->pending[past->first_open].done)) return;
        take_answer(past, past->first_open);
    }
}

/* Whoever waits still is answered, that it could not be written down. */
static void stop(struct past *past, int step) {
    srv_store_free(past->stored.store);
    take_answers(past, step - 1);
    test_service_stop(&past->stored.service);
}

/* What is no request. */
static void act(struct past *past, int step) {
    struct test_taken *taken = &past->history->taken[step];
    struct nn_error err = {0};
    char what[128];
    taken->begun = test_disk_operations(past->history->disk);
    int code = test_step_is(step, "checkpoint") ? srv_store_checkpoint(past->stored.store, &err)
               : test_step_is(step, "stop")     ? test_stored_finish(&past->stored, &err)
                                                : NN_OK;
    taken->acked = test_disk_operations(past->history->disk);
    taken->status = code ? 503 : 0;
    past->failed |= past->fault && test_disk_failed(past->history->disk);
    if (!past->failed) test_ok(code, &err, "%s", test_history_step(step, what));
    if (past->fault && (past->fault->error == ENOSPC || !test_step_is(step, "checkpoint"))) repair(past);
    if (test_step_is(step, "checkpoint")) return;
    stop(past, step);
    start(past);
}

/* A step, and those that are sent within it; the last of them. */
static int take_step(struct past *past, int step) {
    struct test_history *history = past->history;
    bool nests = !past->fault && step + 1 < history->n && test_steps[step + 1].flags & INSIDE;
    past->next = step + 1;
    past->stored.arg = past;
    past->stored.once = nests ? send_next : NULL;
    if (test_step_sends(step)) {
        send(past, step);
        read_all(&past->stored, &history->taken[step + nests]);
        return step + nests;
    }
    read_all(&past->stored, &history->taken[step]);
    test_disk_on_create(history->disk, send_during, past);
    act(past, step);
    test_disk_on_create(history->disk, NULL, NULL);
    if (past->next == step + 1)
        read_all(&past->stored, &history->taken[step]); /* a start may change something */
    return past->next - 1;
}

/* The first steps, as many as that. */
static bool run(struct test_history *history, int steps, const struct test_fault *fault) {
    struct past past = {.history = history, .fault = fault};
    char text[128];
    history->disk = test_disk_new();
    history->n = steps;
    if (fault) test_disk_fail(history->disk, fault->kind, fault->n, fault->error, fault->all);
    start(&past);
    for (int i = 0; i < steps; i++) {
        i = take_step(&past, i);
        if (!fault && i + 1 < steps && test_steps[i + 1].flags & DURING)
            fail_msg("a checkpoint has not enough snapshots for what is to be done meanwhile");
        if (test_steps[i].flags & GROUPED) continue;
        bool waits = test_step_sends(i) && !test_stored_settles(&past.stored, &past.pending[i]);
        if (waits && (!fault || fault->error != ENOSPC))
            fail_msg("%s is never answered", test_history_step(i, text));
        take_answers(&past, i);
    }
    repair(&past);
    if (past.first_open < steps) test_stored_settle(&past.stored, &past.pending[past.first_open]);
    take_answers(&past, steps - 1);
    assert_int_equal(past.first_open, steps);
    stop(&past, steps);
    assert_int_equal(test_disk_open_files(history->disk), 0);
    return past.failed;
}

void test_history_make(struct test_history *history) {
    memset(history, 0, sizeof *history);
    run(history, STEPS, NULL);
    for (int i = 0; i + 1 < STEPS; i++) {
        if (!(test_steps[i + 1].flags & INSIDE)) continue;
        struct test_history alone = {0}; /* what was there before the one within it */
        run(&alone, i + 1, NULL);
        memcpy(history->taken[i].after, alone.taken[i].after, sizeof alone.taken[i].after);
        memset(alone.taken[i].after, 0, sizeof alone.taken[i].after);
        test_history_free(&alone);
    }
}

bool test_history_make_failing(struct test_history *history, const struct test_fault *fault) {
    memset(history, 0, sizeof *history);
    return run(history, STEPS, fault);
}

void test_history_free(struct test_history *history) {
    for (int i = 0; i < history->n; i++) {
        free(history->taken[i].body);
        for (int k = 0; k < TEST_MODELS; k++) test_state_free(&history->taken[i].after[k]);
    }
    test_disk_free(history->disk);
    memset(history, 0, sizeof *history);
}
