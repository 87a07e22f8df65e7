/* coalesce.c - batches of eval forwards: their rows, and the thread that computes them.
 *
 * A model has a list of batches that wait; requests join the last one. A request claims rows of a listed batch under
 * the registry's lock, and writes them without the lock. A batch is closed (it leaves the list) when its computing
 * should begin. If rows are still being written then, the thread that finishes the last of them computes the batch.
 *
 * A batch may first wait for a window of batch_window_us, if its model had more rows lately than it has now. */
#include "coalesce.h"

#include "../change/condition.h"
#include "../change/finish.h"
#include "../model/model.h"
#include "../request/service.h"
#include "batch.h"
#include "pass.h"

/* --- which models coalesce -------------------------------------------------------------------------- */

int api_coalesce_check(struct api_request *request, const struct nn_graph *graph,
                       const struct api_policy *policy) {
    struct nn_error *err = &request->err;
    if (!policy->coalesce) return NN_OK;
    if (!api_batch_tile(request->api, graph))
        nn_fail(err, NN_E_NOT_COALESCABLE,
                "on this machine a row's bits depend on the rows that are computed with it, in %s",
                nn_dtype_name(nn_graph_dtype(graph)));
    const char *coupled = nn_graph_couples_rows(graph, NN_EVAL);
    if (coupled)
        nn_fail(err, NN_E_NOT_COALESCABLE, "in \"%s\", rows depend on the rows beside them in eval mode too",
                coupled);
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
    int code = batch->given_up
                   ? api_give_up(request)
                   : api_check_conditions(request, request->model, nn_params_version(request->params));
    if (code == NN_OK) code = api_pass_add_source(request);
    if (code == NN_OK) code = api_add(request, "seed", json_integer((json_int_t)request->seed));
    api_finish(request, code);
}

/* A batch is unwanted only if none of its members is wanted. */
static bool is_unwanted(void *arg) {
    const struct api_batch *batch = arg;
    for (int i = 0; i < batch->n_members; i++)
        if (api_is_wanted(batch->members[i])) return false;
    return true;
}

/* Sets the number of rows to expect next time: those of this batch, and those that wait for its end. This must come
 * before the answers, because an answered client may send its next request at once, and would be counted twice. */
static void count_company(struct api_batch *batch) {
    struct api_model *model = batch->model;
    pthread_mutex_lock(&batch->api->lock);
    model->company = batch->rows;
    for (const struct api_batch *b = model->first_batch; b; b = b->next) model->company += b->rows;
    pthread_mutex_unlock(&batch->api->lock);
}

/* Computes a closed batch whose rows are all written, and answers its members. */
static void compute(struct api_batch *batch) {
    struct api *api = batch->api;
    struct api_model *model = batch->model;
    struct nn_parallel par = *api_parallel(api);
    par.given_up = is_unwanted;
    par.asked = batch;
    size_t n = (size_t)batch->n_members;
    pthread_mutex_lock(&api->lock);
    struct nn_params *params = nn_params_ref(model->params);
    model->coalesced += n;
    model->batches += n > 0;
    pthread_mutex_unlock(&api->lock);
    api_batch_aim(batch, params);
    nn_params_unref(params);
    if (n) batch->given_up = !nn_run_forward(batch->run, &par);
    if (batch->closed) count_company(batch); /* a batch that was never listed has one member */
    if (par.run && n > 1)
        par.run(par.pool, n, answer, batch);
    else
        for (size_t i = 0; i < n; i++) answer(batch, i);
}

/* Closes a batch, the first in its list, unless it is closed. True: all its rows are written, and the caller computes
 * it. False: the thread that finishes the last rows computes it. */
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

/* The batch that has gathered while `done` was computed. NULL: there is none, and nothing is computed now. */
static struct api_batch *next_batch(struct api_batch *done) {
    struct api *api = done->api;
    struct api_model *model = done->model;
    pthread_mutex_lock(&api->lock);
    struct api_batch *next = model->first_batch;
    model->batching = next != NULL;
    pthread_mutex_unlock(&api->lock);
    return next;
}

static uint64_t cost_of(const struct api_batch *batch, int64_t rows) {
    double cost = nn_cost_of(batch->model->size.work.forward, (double)rows);
    return cost < 1e18 ? (uint64_t)cost : UINT64_MAX;
}

static bool arrange(struct api_batch *batch, bool here);

/* With the lock held: true if more rows fit the first batch and are to be expected. */
static bool expects_more(const struct api_batch *batch) {
    return !batch->next && batch->rows < batch->room && batch->rows < batch->model->company;
}

/* Roughly the floating-point operations of a core in a microsecond. A batch that is computed in less time than the
 * window gains nothing by waiting. */
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

/* Called when the window is over. The batch may have begun before, because enough rows came. */
static void end_window(void *arg) {
    struct api_batch *batch = arg;
    pthread_mutex_lock(&batch->api->lock);
    bool begin = batch->waiting;
    batch->waiting = false;
    pthread_mutex_unlock(&batch->api->lock);
    if (begin) run_batches(batch);
    api_batch_unref(batch);
}

/* Lets a batch wait for its window, if that is worth it. True: a later call begins the batch. False: the caller
 * must. */
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

/* Queues the computing of a batch behind all requests that wait for a thread, so that those of this model still join
 * it. False: the queue is full. */
static bool queue(struct api_batch *batch) {
    const struct api_env *env = &batch->api->env;
    return env->execute && env->execute(env->self, run_batches, batch, cost_of(batch, batch->room));
}

/* Arranges that the model's first batch begins: when its window is over, or by the queue, unless `here` says that this
 * thread may compute. False: the caller must run the batch. */
static bool arrange(struct api_batch *batch, bool here) {
    return open_window(batch) || (!here && queue(batch));
}

/* --- joining ----------------------------------------------------------------------------------------- */

/* With the lock held: claims rows from *first on, with a reference. False: the batch is NULL or has no room. */
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

/* Claims rows in the model's last batch, or in a new one. */
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

/* Ends the writing of a request's rows; not `well`: they are zeros. The last writer of a closed batch has it computed,
 * and the first writer of a model's first batch has it begin. From then on a request that is well belongs to its batch,
 * and may be freed. `here`: no other request is in flight, so this thread may compute instead of the pool. */
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

/* Writes the inputs, and adds the outputs that the answer will show. */
static int fill(struct api_request *request, const struct nn_run_options *options, const bool *wanted,
                int64_t first) {
    struct nn_run *run = request->batch->run;
    if (api_pass_fill(request, run, first, options->rows) == NN_OK &&
        api_pass_add_outputs(request, run, first, options->rows, wanted) == NN_OK)
        return NN_OK;
    api_batch_clear(request->batch, first, first + options->rows);
    return (int)request->err.code;
}

/* True if the wanted values are exactly the model's outputs: only such requests share a batch. */
static bool is_usual(const struct nn_graph *graph, const bool *wanted) {
    int n = 0;
    for (int i = 0; i < nn_graph_value_count(graph); i++) n += wanted[i];
    for (int i = 0; i < nn_graph_output_count(graph); i++)
        if (!wanted[nn_graph_output(graph, i)]) return false;
    return n == nn_graph_output_count(graph);
}

/* Runs a batch that no other request can join. */
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

int64_t api_coalesce_rows(struct api_request *request, int64_t rows) {
    int64_t tile = api_batch_tile(request->api, api_pass_graph(request));
    return (rows + tile - 1) / tile * tile;
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
    nn_params_unref(request->params); /* the batch has a version of its own, perhaps a later one */
    request->params = NULL;
    settle(request, code == API_LATER, alone);
    return code;
}
