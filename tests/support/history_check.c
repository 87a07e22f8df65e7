/* history_check.c - what came out of a crash, held against the history. See history.h. */
#include "check.h"

#include <stdio.h>
#include <string.h>

#include "history_inside.h"

/* --- what was promised ------------------------------------------------------------------------------- */

enum durability { ABSENT, NONE, SNAPSHOT, JOURNAL };

static enum durability durability_of(const struct test_model_state *state) {
    if (!state->how) return ABSENT;
    if (strstr(state->how, "\"durability\":\"journal\"")) return JOURNAL;
    return strstr(state->how, "\"durability\":\"snapshot\"") ? SNAPSHOT : NONE;
}

static const struct test_model_state *state_after(const struct test_history *history, int step, int model) {
    static const struct test_model_state nothing = {0};
    return step < 0 ? &nothing : &history->taken[step].after[model];
}

static int model_of(int step) {
    for (int i = 0; i < TEST_MODELS; i++)
        if (strcmp(test_models[i], test_steps[step].model) == 0) return i;
    return -1;
}

/* As which the change was made: the stronger of before and after it. */
static enum durability durability_in(const struct test_history *history, int step, int model) {
    enum durability before = durability_of(state_after(history, step - 1, model)),
                    after = durability_of(state_after(history, step, model));
    return before > after ? before : after;
}

/* Which models there are, and how they learn. */
static bool is_of_registry(int step) {
    const char *request = test_steps[step].request;
    return test_step_is(step, "POST /models") || strncmp(request, "PATCH ", 6) == 0 ||
           (strncmp(request, "DELETE ", 7) == 0 && !strchr(request + 15, '/'));
}

/* Whether it was there for good when it was answered: written down. */
static bool is_written(const struct test_history *history, int step) {
    if (!test_step_sends(step) || strstr(test_steps[step].request, "/forward")) return false;
    if (history->taken[step].status >= 400) return false;
    enum durability durability = durability_in(history, step, model_of(step));
    return durability == JOURNAL || (durability == SNAPSHOT && is_of_registry(step));
}

/* Whether all snapshots up to it are durable when it is over. */
static bool is_checkpoint(const struct test_history *history, int step) {
    if (history->taken[step].status >= 400) return false;
    return test_step_is(step, "checkpoint") || test_step_is(step, "stop") ||
           (test_steps[step].body && strstr(test_steps[step].body, "'wait'"));
}

/* --- which step it is -------------------------------------------------------------------------------- */

struct found {
    const struct test_history *history;
    size_t n; /* operations before the crash */
    struct test_model_state now[TEST_MODELS];
    int source[TEST_MODELS]; /* the last step after which the numbers were those */
};

static int last_checkpoint(const struct found *found) {
    int last = -1;
    for (int i = 0; i < found->history->n && !found->history->older_will_do; i++)
        if (is_checkpoint(found->history, i) && found->history->taken[i].acked <= found->n) last = i;
    return last;
}

/* Numbers of a model that is stored by snapshots are those of the last checkpoint, or later; of a model that was
 * written down meanwhile, those of that time, or later. */
static int oldest_source(const struct found *found, int step, int model) {
    int oldest = last_checkpoint(found);
    for (int i = 0; i <= step; i++) {
        bool born = !state_after(found->history, i - 1, model)->how;
        if (born || durability_in(found->history, i, model) == JOURNAL) oldest = oldest > i ? oldest : i;
    }
    return oldest < step ? oldest : step;
}

static bool model_fits(struct found *found, int step, int model) {
    const struct test_model_state *then = state_after(found->history, step, model), *now = &found->now[model];
    enum durability durability = durability_of(then);
    found->source[model] = step;
    if (durability == ABSENT || durability == NONE) return !now->how;
    if (!now->how || strcmp(now->how, then->how) != 0) return false;
    int oldest = durability == JOURNAL ? step : oldest_source(found, step, model);
    for (int i = step; i >= oldest && state_after(found->history, i, model)->how; i--) {
        found->source[model] = i;
        if (strcmp(now->numbers, state_after(found->history, i, model)->numbers) == 0) return true;
    }
    return false;
}

static bool fits(struct found *found, int step) {
    for (int i = 0; i < TEST_MODELS; i++)
        if (!model_fits(found, step, i)) return false;
    return true;
}

/* The last step of which everything is there. */
static int find_step(struct found *found, const char *what) {
    int low = -1, high = -1;
    char text[2][128];
    for (int i = 0; i < found->history->n; i++) {
        const struct test_taken *taken = &found->history->taken[i];
        if (is_written(found->history, i) && taken->acked <= found->n) low = i;
        if (taken->begun < found->n || taken->acked <= found->n) high = i;
    }
    for (int i = high; i >= low; i--)
        if (fits(found, i)) return i;
    for (int i = 0; i < TEST_MODELS; i++) {
        bool one = model_fits(found, high, i);
        for (int k = high - 1; k >= low && !one; k--) one = model_fits(found, k, i);
        print_error("%s: %s: %.300s %.2000s\n", test_models[i], one ? "as it was once" : "as it never was",
                    found->now[i].how ? found->now[i].how : "not there",
                    found->now[i].how ? found->now[i].numbers : "");
    }
    fail_msg("%s: not what was there after any step from \"%s\" to \"%s\"", what,
             low < 0 ? "none" : test_history_step(low, text[0]),
             high < 0 ? "none" : test_history_step(high, text[1]));
    return -1;
}

/* --- keys -------------------------------------------------------------------------------------------- */

enum there { LOST, THERE, EITHER };

static bool same_numbers(const struct test_model_state *a, const struct test_model_state *b) {
    return a->numbers && b->numbers && strcmp(a->numbers, b->numbers) == 0;
}

/* Whether the change of a step up to the last one is there: if it was not written down, it is if a snapshot has it. */
static enum there is_there(const struct found *found, int step, int last) {
    const struct test_history *history = found->history;
    int model = model_of(step);
    if (history->taken[step].status >= 400) return EITHER;
    if (is_written(history, step)) return THERE;
    if (durability_in(history, step, model) != SNAPSHOT) return LOST;
    if (history->older_will_do) return EITHER;
    bool saved = false;
    for (int i = step; i <= last; i++) {
        if (!state_after(history, i, model)->how) return EITHER; /* deleted since */
        if (history->taken[i].acked > found->n) continue;
        saved |= is_checkpoint(history, i);
        if (!test_step_is(i, "kill") && !test_step_is(i, "stop")) continue;
        saved |= same_numbers(state_after(history, i, model), state_after(history, i - 1, model));
        if (!saved) return LOST;
    }
    return saved || step <= found->source[model] ? THERE : LOST;
}

static bool replays(const struct test_history *history, struct test_stored *stored, int step, int *status) {
    char method[16];
    struct test_request request = test_step_request(step, method, history->taken[step].body);
    struct test_answer answer = test_stored_request(stored, &request);
    json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
    bool replayed = json_is_true(json_object_get(json, "replayed"));
    *status = answer.status;
    json_decref(json);
    test_answer_free(&answer);
    return replayed;
}

static void check_key(const struct test_history *history, struct test_stored *stored, int step, bool there,
                      const char *what) {
    int status = 0;
    char text[128];
    bool replayed = replays(history, stored, step, &status);
    if (replayed == there && (!replayed || status == history->taken[step].status)) return;
    fail_msg("%s: \"%s\", whose change is%s there, is%s replayed, with %d", what,
             test_history_step(step, text), there ? "" : " not", replayed ? "" : " not", status);
}

static uint64_t check_keys(const struct found *found, struct test_stored *stored, int last,
                           const char *what) {
    uint64_t lost = 0;
    for (int i = 0; i <= last; i++) {
        if (!test_steps[i].key) continue;
        enum there there = is_there(found, i, last);
        if (there == THERE) check_key(found->history, stored, i, true, what);
        if (there == LOST) lost |= UINT64_C(1) << i;
    }
    return lost;
}

/* --- the whole --------------------------------------------------------------------------------------- */

/* Whoever saw what is gone must be able to tell. */
static void check_incarnations(const struct found *found, int step, const char *what) {
    for (int i = 0; i < TEST_MODELS; i++) {
        if (!found->now[i].how) continue;
        for (int k = step + 1; k < found->history->n && found->history->taken[k].begun < found->n; k++) {
            const struct test_model_state *then = state_after(found->history, k, i);
            if (then->how && strcmp(then->numbers, found->now[i].numbers) != 0 &&
                strcmp(then->incarnation, found->now[i].incarnation) == 0)
                fail_msg("%s: %s has lost a version, and not its incarnation", what, test_models[i]);
        }
    }
}

struct test_prefix test_history_check(const struct test_history *history, size_t n,
                                      struct test_stored *stored, const char *what) {
    struct found found = {.history = history, .n = n};
    for (int i = 0; i < TEST_MODELS; i++) test_state_read(stored, test_models[i], &found.now[i]);
    int step = find_step(&found, what);
    check_incarnations(&found, step, what);
    struct test_prefix prefix = {step, check_keys(&found, stored, step, what)};
    for (int i = 0; i < TEST_MODELS; i++) test_state_free(&found.now[i]);
    return prefix;
}

/* --- and on ------------------------------------------------------------------------------------------ */

static int life_of(int step) {
    int life = 1;
    for (int i = 0; i < step; i++) life += test_step_is(i, "stop") || test_step_is(i, "kill");
    return life;
}

/* Whether the step leads to the same once more: it depends on nothing that a crash takes away. */
static bool is_repeatable(const struct test_history *history, int step) {
    const char *body = test_steps[step].body;
    int model = model_of(step);
    return is_written(history, step) && durability_of(state_after(history, step - 1, model)) != SNAPSHOT &&
           !(test_steps[step].flags & TEST_INSIDE) &&
           durability_in(history, step, model_of(step)) == JOURNAL &&
           !strstr(test_steps[step].request, "restore") &&
           !(body && (strstr(body, "$c") || strstr(body, "'from'")));
}

static void take_next(const struct test_history *history, int step, struct test_stored *stored,
                      const char *what) {
    char method[16], text[128];
    struct test_model_state now;
    char *body = test_step_body(stored, step, "");
    struct test_request request = test_step_request(step, method, body);
    test_step_seed(stored, step, life_of(step));
    struct test_answer answer = test_stored_request(stored, &request);
    free(body);
    if (answer.status != history->taken[step].status || strstr(answer.body, "\"replayed\""))
        fail_msg("%s: then \"%s\": %d %s", what, test_history_step(step, text), answer.status, answer.body);
    test_answer_free(&answer);
    int model = model_of(step);
    const struct test_model_state *then = state_after(history, step, model);
    test_state_read(stored, test_models[model], &now);
    if (!now.how != !then->how || (now.how && strcmp(now.how, then->how) != 0) ||
        (now.how && strcmp(now.numbers, then->numbers) != 0))
        fail_msg("%s: then \"%s\" leads elsewhere: %.2000s", what, test_history_step(step, text),
                 now.how ? now.numbers : "nothing");
    test_state_free(&now);
}

static void check_same(const struct test_model_state *before, struct test_stored *stored, const char *what) {
    for (int i = 0; i < TEST_MODELS; i++) {
        struct test_model_state now;
        bool stays = durability_of(&before[i]) >= SNAPSHOT;
        test_state_read(stored, test_models[i], &now);
        if (!now.how == stays || (stays && strcmp(now.how, before[i].how) != 0) ||
            (stays && strcmp(now.numbers, before[i].numbers) != 0))
            fail_msg("%s: %s is another one after a clean stop", what, test_models[i]);
        if (stays && strcmp(now.incarnation, before[i].incarnation) != 0)
            fail_msg("%s: %s has another incarnation after a clean stop", what, test_models[i]);
        test_state_free(&now);
    }
}

void test_history_go_on(const struct test_history *history, const struct test_prefix *prefix,
                        struct test_disk *disk, struct test_stored *stored, const char *what) {
    struct test_model_state before[TEST_MODELS];
    struct nn_error err = {0};
    for (int next = prefix->step + 1; next < history->n; next++) {
        if (!test_step_sends(next)) continue;
        if (is_repeatable(history, next)) take_next(history, next, stored, what);
        break;
    }
    for (int i = 0; i < history->n; i++)
        if (prefix->lost >> i & 1) check_key(history, stored, i, false, what);
    for (int i = 0; i < TEST_MODELS; i++) test_state_read(stored, test_models[i], &before[i]);
    test_ok(test_stored_finish(stored, &err), &err, "%s: a clean stop", what);
    test_stored_stop(stored);
    assert_int_equal(test_disk_open_files(disk), 0);
    test_ok(test_stored_start(stored, disk, 90, NULL, &err), &err, "%s: a clean start", what);
    check_same(before, stored, what);
    for (int i = 0; i < TEST_MODELS; i++) test_state_free(&before[i]);
    test_stored_stop(stored);
}

enum test_crashes test_crashes(void) {
    const char *asked = getenv("GRADD_TEST_CRASHES");
    if (!asked) return TEST_CRASHES_SOME;
    if (strcmp(asked, "all") == 0) return TEST_CRASHES_ALL;
    if (strcmp(asked, "few") != 0) fail_msg("GRADD_TEST_CRASHES is few or all, and not %s", asked);
    return TEST_CRASHES_FEW;
}

void test_history_kill_and_crash(const struct test_history *history, size_t n, const char *what) {
    char image[256];
    struct test_stored stored;
    struct nn_error err = {0};
    struct test_disk *disk = test_disk_prefix(history->disk, n);
    test_ok(test_stored_start(&stored, disk, 80, NULL, &err), &err, "%s", what);
    struct test_prefix found = test_history_check(history, n, &stored, what);
    test_stored_stop(&stored);
    size_t then = test_disk_operations(disk);
    struct test_disk *crashed = test_disk_image(disk, then, test_disk_images(disk, then) > 1, image);
    char *both = test_format("%s, and then a crash, %s", what, image);
    test_ok(test_stored_start(&stored, crashed, 80, NULL, &err), &err, "%s", both);
    struct test_prefix again = test_history_check(history, n, &stored, both);
    if (again.step < found.step) fail_msg("%s: step %d was there, and is not", both, found.step);
    test_history_go_on(history, &again, crashed, &stored, both);
    test_disk_free(crashed);
    test_disk_free(disk);
    free(both);
}
