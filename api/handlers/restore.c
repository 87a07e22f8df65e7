/* restore.c - POST /models/{m}/restore: replaces a model by a snapshot of it, with its optimizer and its buffer. */
#include <string.h>

#include "../change/commit.h"
#include "../change/registration.h"
#include "../change/round.h"
#include "../change/turns.h"
#include "../model/registry.h"
#include "../model/snapshot.h"
#include "../request/service.h"

/* Puts the snapshot's model in the place of the present one. It gets a new incarnation, because versions that clients
 * have seen will come again. The durability stays as it was. */
static int turn_restore(struct api_request *request) {
    struct api_model *old = request->model, *model = request->restored;
    const char *durability = api_durability_name(old->policy.durability);
    model->policy.durability = old->policy.durability;
    model->changes = old->changes;
    request->makes = true;
    request->made = nn_params_version(model->params);
    if (json_object_set_new(model->spec->json, "durability", json_string(durability)))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (api_model_draw_incarnation(request, model) || api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)request->made)))
        return (int)request->err.code;
    model->changes++;
    struct api_snapshot *state = api_snapshot_make(request, model);
    model->changes--;
    if (!state || api_commit_state_take(request, model, state)) return (int)request->err.code;
    api_round_fail(request->api, old, NN_E_STALE, "the model was restored while the round waited");
    api_model_replace(request, model);
    return NN_OK;
}

static int take(void *arg, struct api_source *source, struct nn_error *err) {
    struct api_request *request = arg;
    if ((request->restored = api_snapshot_read(request, source))) return NN_OK;
    *err = request->err; /* the store may try another snapshot */
    request->err = (struct nn_error){0};
    return (int)err->code;
}

int api_post_restore(struct api_request *request) {
    const struct api_store *store = request->api->env.store;
    struct nn_error why = {0};
    if (api_model_find(request, request->name)) return (int)request->err.code;
    if (!store)
        return nn_fail(&request->err, NN_E_NOT_FOUND,
                       "there are no snapshots: the service was started "
                       "without --data");
    const char *birth = request->model->birth;
    if (store->read(store->self, request->name, birth, request->ask.version, take, request, &why)) {
        request->err = why;
        return (int)why.code;
    }
    if (strcmp(request->restored->birth, birth) != 0)
        return nn_fail(&request->err, NN_E_CORRUPT, "the snapshot is of another model");
    nn_params_unref(request->params); /* the current version is not needed */
    request->params = NULL;
    return api_model_turn(request, turn_restore);
}
