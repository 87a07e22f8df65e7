/* coalesce.c - batches of eval forwards: their rows, and who computes them.
 *
 * A model has a list of batches that wait; requests join the last. Of one that is listed, the rows are
 * claimed under the registry's lock and written without it. It is closed when its computing begins; if some
 * rows are still being written then, the last who has written computes it. */
#include "coalesce.h"

#include "batch.h"
#include "../model/model.h"
#include "pass.h"
#include "../request/service.h"

/* --- whether ---------------------------------------------------------------------------------------- */

int api_coalesce_check(struct api_request *request, const struct nn_graph *graph,
                       const struct api_policy *policy) {
    struct nn_error *err = &request->err;
    if (!policy->coalesce) return NN_OK;
    if (!api_batch_tile(request->api, graph))
        nn_fail(err, NN_E_NOT_COALESCABLE,
                "on this machine a row's bits depend on the rows that are computed with it, in %s",
                nn_dtype_name(nn_graph_dtype(graph)));
    for (int i = 0; i < nn_graph_node_count(graph); i++) {
        struct nn_node_info node = nn_graph_node(graph, i);
        if (node.op && node.op->flags & NN_COUPLES_ROWS)
            nn_fail(err, NN_E_NOT_COALESCABLE, "in \"%s\", a %s, rows depend on the rows beside them",
                    node.name, node.op->name);
    }
    return err->code ? api_point(request, "coalesce", NULL) : NN_OK;
}

bool api_coalesces(struct api_request *request) {
    if (!request->model) return false;
    pthread_mutex_lock(&request->api->lock);
    bool coalesces = request->model->policy.coalesce;
    pthread_mutex_unlock(&request->api->lock);
    return coalesces;
}

json_t *api_coalesce_json(const struct api *api, const struct api_model *model,
                          const struct api_policy *policy) {
    if (!policy->coalesce) return json_null();
    return json_pack("{s:I, s:I, s:I}", "tile", (json_int_t)api_batch_tile(api, model->graph), "requests",
                     (json_int_t)model->coalesced, "batches", (json_int_t)model->batches);
}

/* --- computing --------------------------------------------------------------------------------------- */

static void answer(void *arg, size_t i) {
    const struct api_batch *batch = arg;
    struct api_request *request = batch->members[i];
    nn_params_unref(request->params);
    request->params = nn_params_ref(nn_run_params(batch->run));
    int code = api_pass_add_source(request);
    if (code == NN_OK) code = api_add(request, "seed", json_integer((json_int_t)request->seed));
    api_finish(request, code);
}

/* How many rows there are to be expected in all: those of this batch, and those that wait for its end. Counted
 * before it is answered, for who is answered may come again at once. */
static void count_company(struct api_batch *batch) {
    struct api_model *model = batch->model;
    pthread_mutex_lock(&batch->api->lock);
    model->company = batch->rows;
    for (const struct api_batch *b = model->first_batch; b; b = b->next) model->company += b->rows;
    pthread_mutex_unlock(&batch->api->lock);
}

/* A closed batch, all of whose rows are written: computes it and answers its members. */
static void compute(struct api_batch *batch) {
    struct api *api = batch->api;
    struct api_model *model = batch->model;
    const struct nn_parallel *par = api_parallel(api);
    size_t n = (size_t)batch->n_members;
    pthread_mutex_lock(&api->lock);
    struct nn_params *params = nn_params_ref(model->params);
    model->coalesced += n;
    model->batches += n > 0;
    pthread_mutex_unlock(&api->lock);
    api_batch_aim(batch, params);
    nn_params_unref(params);
    if (n) nn_run_forward(batch->run, par);
    if (batch->closed) count_company(batch); /* else it is nobody's but its only member's */
    if (par->run && n > 1)
        par->run(par->pool, n, answer, batch);
    else
        for (size_t i = 0; i < n; i++) answer(batch, i);
}

/* Takes a batch out of the list, whose first it is, and says whether its rows are written. If not, the last
 * who writes comes here again. */
static bool close_batch(struct api_batch *batch) {
    struct api *api = batch->api;
    pthread_mutex_lock(&api->lock);
    if (!batch->closed) {
        batch->closed = true;
        batch->model->first_batch = batch->next;
    }
    bool written = batch->filling == 0;
    pthread_mutex_unlock(&api->lock);
    return written;
}

/* The batch that gathered meanwhile, or NULL: then the model is idle again. */
static struct api_batch *next_batch(struct api_batch *done) {
    struct api *api = done->api;
    struct api_model *model = done->model;
    pthread_mutex_lock(&api->lock);
    struct api_batch *next = model->first_batch;
    model->batching = next != NULL;
    pthread_mutex_unlock(&api->lock);
    return next;
}

/* Of so many rows, in floating-point operations: two for each weight. */
static uint64_t cost_of(const struct api_batch *batch, int64_t rows) {
    return (uint64_t)rows * nn_graph_param_bytes(batch->model->graph) / 2;
}

static bool arrange(struct api_batch *batch, bool here);

/* With the lock held: whether more rows can join the model's first batch, and are to be expected. */
static bool expects_more(const struct api_batch *batch) {
    return !batch->next && batch->rows < batch->room && batch->rows < batch->model->company;
}

/* Roughly what a microsecond of one core brings. A batch that is done sooner than the window would be over
 * gains nothing by waiting. */
#define OPERATIONS_A_US UINT64_C(100000)

static bool is_worth_waiting(const struct api_batch *batch, int64_t window_us) {
    return cost_of(batch, batch->model->company) > (uint64_t)window_us * OPERATIONS_A_US;
}

static void run_batches(void *arg) {
    struct api_batch *batch = arg;
    while (batch && close_batch(batch)) {
        compute(batch);
        struct api_batch *next = next_batch(batch);
        api_batch_unref(batch);
        batch = next && !arrange(next, false) ? next : NULL;
    }
}

/* The window is over; unless enough have come before, and the batch has begun. */
static void end_window(void *arg) {
    struct api_batch *batch = arg;
    pthread_mutex_lock(&batch->api->lock);
    bool begin = batch->waiting;
    batch->waiting = false;
    pthread_mutex_unlock(&batch->api->lock);
    if (begin) run_batches(batch);
    api_batch_unref(batch);
}

/* Has the batch wait for the window's end. */
static bool open_window(struct api_batch *batch) {
    struct api *api = batch->api;
    int64_t window_us = api->settings.limits.batch_window_us;
    if (!window_us || !api->env.execute_after) return false;
    pthread_mutex_lock(&api->lock);
    bool waits = batch->waiting = expects_more(batch) && is_worth_waiting(batch, window_us);
    if (waits) atomic_fetch_add(&batch->refs, 1);
    pthread_mutex_unlock(&api->lock);
    if (!waits) return false;
    if (api->env.execute_after(api->env.self, window_us, end_window, batch, cost_of(batch, batch->room)))
        return true;
    pthread_mutex_lock(&api->lock);
    bool begun = !batch->waiting;
    batch->waiting = false;
    pthread_mutex_unlock(&api->lock);
    api_batch_unref(batch);
    return begun;
}

/* Behind all requests that wait for a thread already: those of them that are for this model join it. */
static bool queue(struct api_batch *batch) {
    const struct api_env *env = &batch->api->env;
    return env->execute && env->execute(env->self, run_batches, batch, cost_of(batch, batch->room));
}

/* Has the model's first batch begin, now or when its window is over. False: the caller is to run it. */
static bool arrange(struct api_batch *batch, bool here) {
    return open_window(batch) || (!here && queue(batch));
}

/* --- joining ----------------------------------------------------------------------------------------- */

/* With the lock held. */
static bool claim(struct api_request *request, struct api_batch *batch, int64_t rows, int64_t *first) {
    if (!batch || batch->room - batch->rows < rows) return false;
    *first = batch->rows;
    batch->rows += rows;
    batch->filling++;
    atomic_fetch_add(&batch->refs, 1);
    request->batch = batch;
    return true;
}

static void append(struct api_model *model, struct api_batch *batch) {
    if (model->first_batch)
        model->last_batch->next = batch;
    else
        model->first_batch = batch;
    model->last_batch = batch;
}

/* Rows in the model's last batch, or in a new one. */
static int join(struct api_request *request, const struct nn_run_options *options, const bool *wanted,
                int64_t *first) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    pthread_mutex_lock(&api->lock);
    bool joined = model->first_batch && claim(request, model->last_batch, options->rows, first);
    bool company = model->batching || model->company > options->rows;
    pthread_mutex_unlock(&api->lock);
    if (joined) return NN_OK;
    struct api_batch *batch = api_batch_new(request, options, wanted, company || api_in_flight(api) > 1);
    if (!batch) return (int)request->err.code;
    pthread_mutex_lock(&api->lock);
    append(model, batch);
    claim(request, batch, options->rows, first);
    pthread_mutex_unlock(&api->lock);
    return NN_OK;
}

/* The request's rows are written, or it failed: then they are zeros. From here on, one that was well is
 * its batch's, and may be gone. `here`: nobody else is on the way. */
static void settle(struct api_request *request, bool well, bool here) {
    struct api *api = request->api;
    struct api_batch *batch = request->batch;
    struct api_model *model = batch->model;
    pthread_mutex_lock(&api->lock);
    if (well) batch->members[batch->n_members++] = request;
    bool last = --batch->filling == 0 && batch->closed;
    bool enough = batch->waiting && !expects_more(batch);
    bool begin = !batch->closed && !model->batching;
    if (enough) batch->waiting = false;
    if (begin) batch = model->first_batch;
    model->batching |= begin;
    pthread_mutex_unlock(&api->lock);
    bool arranged = last || enough ? queue(batch) : !begin || arrange(batch, here);
    if (!arranged) run_batches(batch);
}

/* All in its place: inputs, and what the answer will show of the outputs. */
static int fill(struct api_request *request, const struct nn_run_options *options, const bool *wanted,
                int64_t first) {
    struct nn_run *run = request->batch->run;
    if (api_pass_fill(request, run, first, options->rows) == NN_OK &&
        api_pass_add_outputs(request, run, first, options->rows, wanted) == NN_OK)
        return NN_OK;
    api_batch_clear(request->batch, first, first + options->rows);
    return (int)request->err.code;
}

/* Whether exactly the model's outputs are wanted: only such requests share a batch. */
static bool is_usual(const struct nn_graph *graph, const bool *wanted) {
    int n = 0;
    for (int i = 0; i < nn_graph_node_count(graph); i++) n += wanted[i];
    for (int i = 0; i < nn_graph_output_count(graph); i++)
        if (!wanted[nn_graph_output(graph, i)]) return false;
    return n == nn_graph_output_count(graph);
}

/* In a batch that no other joins, computed here. */
static int run_alone(struct api_request *request, const struct nn_run_options *options, const bool *wanted) {
    struct api_batch *batch = api_batch_new(request, options, wanted, false);
    if (!batch) return (int)request->err.code;
    request->batch = batch;
    batch->rows = options->rows;
    if (fill(request, options, wanted, 0)) return (int)request->err.code;
    atomic_fetch_add(&batch->refs, 1);
    batch->members[batch->n_members++] = request;
    compute(batch);
    api_batch_unref(batch);
    return API_LATER;
}

int api_coalesce_forward(struct api_request *request, const struct nn_run_options *options,
                         const bool *wanted) {
    struct nn_graph *graph = api_pass_graph(request);
    bool alone = api_in_flight(request->api) == 1;
    int64_t first = 0;
    request->seed = options->seed;
    if (options->rows > request->api->settings.limits.batch_max || !is_usual(graph, wanted))
        return run_alone(request, options, wanted);
    if (join(request, options, wanted, &first)) return (int)request->err.code;
    int code = fill(request, options, wanted, first);
    if (code == NN_OK) code = API_LATER;
    nn_params_unref(request->params); /* the batch has its own, perhaps a later one */
    request->params = NULL;
    settle(request, code == API_LATER, alone);
    return code;
}
