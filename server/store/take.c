/* take.c - takes a checkpoint: snapshots each model in its turn, writes the new files beside the old ones, and removes
 * the files that are no longer needed. See store.h for the files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_inside.h"

struct taking {
    struct srv_store *store;
    const struct srv_checkpoint *before; /* the newest checkpoint so far, or NULL */
    struct srv_checkpoint *next;
    struct api_snapshot *told; /* copies of the snapshots, without bytes, for api_snapshot_durable */
    size_t n_told, skipped;
    bool news, no_memory;
};

/* --- models ----------------------------------------------------------------------------------------------- */

static void note_model(void *arg, const char *name) {
    struct taking *taking = arg;
    if (!srv_checkpoint_add(taking->next, name)) taking->no_memory = true;
}

/* Sets the snapshots that a model keeps: `first`, and the older ones of the same birth. */
static int keep_snapshots(struct taking *taking, struct srv_stored_model *model,
                          const struct srv_stored_model *old, const struct srv_stored *first,
                          struct nn_error *err) {
    const int most = taking->store->options.snapshots;
    model->snapshots = calloc((size_t)most, sizeof *model->snapshots);
    if (!model->snapshots) return nn_fail(err, NN_E_NOMEM, "no memory for a checkpoint");
    model->snapshots[model->n++] = *first;
    for (int i = 0; old && i < old->n && model->n < most; i++)
        if (old->snapshots[i].number != first->number && strcmp(old->snapshots[i].birth, first->birth) == 0)
            model->snapshots[model->n++] = old->snapshots[i];
    return NN_OK;
}

static int write_snapshot(struct taking *taking, struct srv_stored_model *model,
                          const struct srv_stored_model *old, const struct api_snapshot *snapshot,
                          struct nn_error *err) {
    struct srv_stored stored = {
        .number = taking->next->number,
        .seq = snapshot->seq,
        .changes = snapshot->changes,
        .told = {snapshot->version, snapshot->time_ms},
    };
    snprintf(stored.birth, sizeof stored.birth, "%s", snapshot->birth);
    if (snapshot->unchanged && old) {
        stored = old->snapshots[0];
        stored.seq = snapshot->seq;
    } else {
        char name[SRV_FILE_NAME];
        srv_snapshot_name(name, model->name, stored.number);
        int code = srv_file_write(taking->store->io, name, snapshot->segments, snapshot->n_segments,
                                  &stored.sum, err);
        if (code) return code;
        taking->news = true;
    }
    return keep_snapshots(taking, model, old, &stored, err);
}

/* A model for which memory had no room keeps its last snapshot, and the journal from there on. */
static int skip_model(struct taking *taking, struct srv_stored_model *model,
                      const struct srv_stored_model *old, struct nn_error *err) {
    uint64_t since = taking->before ? taking->before->begin : 0;
    taking->skipped++;
    if (old) since = old->snapshots[0].seq;
    if (since < taking->next->begin) taking->next->begin = since;
    return old ? keep_snapshots(taking, model, old, &old->snapshots[0], err) : NN_OK;
}

static int take_model(struct taking *taking, struct srv_stored_model *model, struct nn_error *err) {
    struct srv_store *store = taking->store;
    const struct srv_stored_model *old = srv_checkpoint_find(taking->before, model->name);
    bool known = old && store->known;
    struct nn_error why = {0};
    struct api_snapshot *snapshot =
        api_snapshot_take(store->api, model->name, known ? old->snapshots[0].birth : NULL,
                          known ? old->snapshots[0].changes : 0, &why);
    if (!snapshot) {
        if (why.code == NN_E_NOT_FOUND) return NN_OK;
        if (why.code == NN_E_BUSY) return skip_model(taking, model, old, err);
        *err = why;
        return (int)err->code;
    }
    int code = write_snapshot(taking, model, old, snapshot, err);
    struct api_snapshot *told = &taking->told[taking->n_told++];
    *told = *snapshot;
    told->segments = NULL;
    told->n_segments = told->size = 0;
    api_snapshot_free(snapshot);
    return code;
}

/* Removes models without a snapshot: they were deleted while the checkpoint was taken. */
static void drop_empty(struct srv_checkpoint *checkpoint) {
    size_t n = 0;
    for (size_t i = 0; i < checkpoint->n_models; i++)
        if (checkpoint->models[i].n) checkpoint->models[n++] = checkpoint->models[i];
    checkpoint->n_models = n;
}

static int take_models(struct taking *taking, struct nn_error *err) {
    struct srv_checkpoint *next = taking->next;
    int code = api_models_stored(taking->store->api, note_model, taking, err);
    if (code) return code;
    if (taking->no_memory) return nn_fail(err, NN_E_NOMEM, "no memory for a checkpoint");
    taking->told = calloc(next->n_models + 1, sizeof *taking->told);
    if (!taking->told) return nn_fail(err, NN_E_NOMEM, "no memory for a checkpoint");
    srv_checkpoint_sort(next);
    for (size_t i = 0; i < next->n_models && !code; i++) code = take_model(taking, &next->models[i], err);
    drop_empty(next);
    if (!taking->before || next->n_models != taking->before->n_models) taking->news = true;
    return code;
}

static int take_keys(struct taking *taking, struct nn_error *err) {
    struct srv_checkpoint *next = taking->next;
    void *bytes = NULL;
    size_t size = 0;
    int code = api_keys_save(taking->store->api, &bytes, &size, err);
    if (!code && size > 0) {
        char name[SRV_FILE_NAME];
        srv_keys_name(name, next->number);
        struct api_segment segment = {bytes, size};
        code = srv_file_write(taking->store->io, name, &segment, 1, &next->keys, err);
        if (!code) next->keys_number = next->number;
    }
    free(bytes);
    return code;
}

/* --- the whole -------------------------------------------------------------------------------------------- */

static int write_checkpoint(struct taking *taking, struct nn_error *err) {
    struct srv_store *store = taking->store;
    size_t size = 0;
    char *text = srv_checkpoint_format(taking->next, store->fingerprint, &size);
    if (!text) return nn_fail(err, NN_E_NOMEM, "no memory for a checkpoint");
    char name[SRV_FILE_NAME];
    struct srv_file_sum sum;
    srv_checkpoint_name(name, taking->next->number);
    int code = srv_file_sync_names(store->io, err);
    if (!code) code = srv_file_write(store->io, name, &(struct api_segment){text, size}, 1, &sum, err);
    if (!code) code = srv_file_sync_names(store->io, err);
    free(text);
    return code;
}

static void publish(struct taking *taking) {
    struct srv_store *store = taking->store;
    pthread_mutex_lock(&store->mutex);
    struct srv_checkpoint *gone = store->older;
    store->older = store->newest;
    store->newest = taking->next;
    store->checkpoints++;
    store->checkpoint_ms = (uint64_t)store->options.now_ms();
    pthread_mutex_unlock(&store->mutex);
    taking->next = NULL;
    srv_checkpoint_free(gone);
    /* A skipped model has a snapshot of an earlier checkpoint. */
    if (taking->skipped == 0) store->known = true;
}

/* Makes the records that the snapshots contain durable first: a checkpoint promises them. */
static int take_all(struct taking *taking, bool wanted, struct nn_error *err) {
    struct srv_store *store = taking->store;
    int code = take_models(taking, err);
    if (code) return code;
    /* Records that came during the last checkpoint count too: a start would read them. */
    bool records = !taking->before || taking->before->begin != srv_journal_last(store->journal);
    if (!wanted && !records && !taking->news) return NN_OK;
    if ((code = take_keys(taking, err))) return code;
    taking->next->last = srv_journal_last(store->journal);
    if ((code = srv_journal_wait(store->journal, taking->next->last, err))) return code;
    if ((code = write_checkpoint(taking, err))) return code;
    publish(taking);
    for (size_t i = 0; i < taking->n_told; i++) api_snapshot_durable(store->api, &taking->told[i]);
    return NN_OK;
}

int srv_store_take(struct srv_store *store, bool wanted, struct nn_error *err) {
    pthread_mutex_lock(&store->taking);
    struct taking taking = {
        .store = store, .before = store->newest, .next = calloc(1, sizeof(struct srv_checkpoint))};
    int code = taking.next ? NN_OK : nn_fail(err, NN_E_NOMEM, "no memory for a checkpoint");
    if (!code) {
        atomic_store(&store->bytes, 0);
        taking.next->number = ++store->number;
        taking.next->begin = srv_journal_last(store->journal);
        code = take_all(&taking, wanted, err);
    }
    struct nn_error untidy = {0};
    if (srv_store_tidy(store, &untidy)) srv_store_say(store, "%s", untidy.text);
    if (!code && taking.skipped)
        code =
            nn_fail(err, NN_E_BUSY, "%zu models are not in the checkpoint: there is no memory for them now",
                    taking.skipped);
    srv_checkpoint_free(taking.next);
    free(taking.told);
    pthread_mutex_unlock(&store->taking);
    return code;
}

/* --- what nobody needs ------------------------------------------------------------------------------------ */

struct tidying {
    const struct srv_store *store;
    char (*names)[SRV_FILE_NAME];
    size_t n, room;
    bool no_memory;
};

static bool names_snapshot(const struct srv_checkpoint *checkpoint, const char *name, uint64_t number) {
    const size_t before = sizeof "snapshot-" - 1;
    char model[SRV_FILE_NAME];
    snprintf(model, sizeof model, "%.*s", (int)(strlen(name) - before - 21), name + before);
    const struct srv_stored_model *stored = srv_checkpoint_find(checkpoint, model);
    for (int i = 0; stored && i < stored->n; i++)
        if (stored->snapshots[i].number == number) return true;
    return false;
}

static bool is_named(const struct srv_checkpoint *checkpoint, const char *name) {
    uint64_t number;
    if (!checkpoint) return false;
    if ((number = srv_name_number(name, "checkpoint-"))) return number == checkpoint->number;
    if ((number = srv_name_number(name, "keys-"))) return number == checkpoint->keys_number;
    if ((number = srv_name_number(name, "snapshot-"))) return names_snapshot(checkpoint, name, number);
    return false;
}

static void note_orphan(void *arg, const char *name) {
    struct tidying *tidying = arg;
    static const char *const ours[] = {"checkpoint-", "keys-", "snapshot-", "clean-"};
    size_t length = strlen(name);
    bool beside = length > 0 && name[length - 1] == '~', one_of_ours = false;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        one_of_ours |=
            beside ? strncmp(name, ours[i], strlen(ours[i])) == 0 : srv_name_number(name, ours[i]) > 0;
    if (!one_of_ours || length >= SRV_FILE_NAME || is_named(tidying->store->newest, name) ||
        is_named(tidying->store->older, name))
        return;
    if (tidying->n == tidying->room) {
        size_t room = tidying->room ? 2 * tidying->room : 16;
        char(*names)[SRV_FILE_NAME] = reallocarray(tidying->names, room, sizeof *names);
        if (!names) {
            tidying->no_memory = true;
            return;
        }
        tidying->names = names;
        tidying->room = room;
    }
    snprintf(tidying->names[tidying->n++], SRV_FILE_NAME, "%s", name);
}

int srv_store_tidy(struct srv_store *store, struct nn_error *err) {
    struct tidying tidying = {.store = store};
    const struct srv_io *io = store->io;
    int code = io->list(io->self, note_orphan, &tidying);
    if (code) nn_fail(err, NN_E_STORE, "the directory cannot be listed: %s", strerror(-code));
    if (tidying.no_memory) nn_fail(err, NN_E_NOMEM, "no memory to look for files that nobody needs");
    for (size_t i = 0; i < tidying.n; i++)
        if ((code = io->remove(io->self, tidying.names[i])))
            nn_fail(err, NN_E_STORE, "%s cannot be removed: %s", tidying.names[i], strerror(-code));
    if (tidying.n > 0) (void)srv_file_sync_names(io, err);
    free(tidying.names);
    if (store->older) srv_journal_forget(store->journal, store->older->begin);
    return (int)err->code;
}
