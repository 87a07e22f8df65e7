/* recover.c - restores the service: from the newest whole checkpoint, each model's newest good snapshot, then the
 * journal's records behind them. See store.h for the files.
 *
 * Each damaged file gets a line in the log. An older snapshot, or the older checkpoint, serves as well if the journal
 * reaches back to it; of the two newest checkpoints it does. If something is lost all the same, the start is refused,
 * unless options.accept_loss. Then a checkpoint follows at once, so that the next start does not see the damage. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store_inside.h"

struct recovery {
    struct srv_store *store;
    struct api *api;
    struct nn_error *err;
    struct srv_checkpoint *whole[2]; /* newest first */
    uint64_t highest, clean;         /* the highest number in a file's name; the number of clean-N */
    uint64_t durable;                /* records up to this one are known to have been durable */
    uint64_t after;                  /* records behind this one are needed */
    bool read_only;
    bool worse; /* some state is damaged, or older than it was */
    bool lost;  /* some state is lost, and the loss is accepted */
    struct srv_journal_found found;
    void *keys;
    size_t keys_size;
};

/* Notes a loss: the start is refused, unless losses are accepted. */
static int lose(struct recovery *recovery, const struct nn_error *what) {
    recovery->worse = recovery->lost = true;
    if (!recovery->store->options.accept_loss) return nn_fail(recovery->err, NN_E_CORRUPT, "%s", what->text);
    srv_store_say(recovery->store, "lost: %s", what->text);
    return NN_OK;
}

/* --- checkpoints ------------------------------------------------------------------------------------------ */

static void note_name(void *arg, const char *name) {
    static const char *const numbered[] = {"checkpoint-", "keys-", "snapshot-"};
    struct recovery *recovery = arg;
    for (size_t i = 0; i < sizeof numbered / sizeof numbered[0]; i++) {
        uint64_t number = srv_name_number(name, numbered[i]);
        if (number > recovery->highest) recovery->highest = number;
    }
    uint64_t number = srv_name_number(name, "clean-");
    if (number > recovery->clean) recovery->clean = number;
}

struct search {
    uint64_t below, number;
};

static void note_next(void *arg, const char *name) {
    struct search *search = arg;
    uint64_t number = srv_name_number(name, "checkpoint-");
    if (number < search->below && number > search->number) search->number = number;
}

static int read_checkpoint(struct recovery *recovery, uint64_t number, struct srv_checkpoint **checkpoint,
                           struct nn_error *err) {
    char name[SRV_FILE_NAME];
    void *text = NULL;
    size_t size;
    srv_checkpoint_name(name, number);
    int code = srv_file_read(recovery->store->io, name, NULL, &text, &size, err);
    if (code) return code;
    *checkpoint = srv_checkpoint_parse(text, size, number, err);
    free(text);
    return (int)err->code;
}

/* Finds the two newest whole checkpoints. */
static int find_checkpoints(struct recovery *recovery) {
    const struct srv_io *io = recovery->store->io;
    struct nn_error damage = {0};
    int n = 0, code = io->list(io->self, note_name, recovery);
    struct search search = {.below = UINT64_MAX};
    while (!code && n < 2) {
        struct nn_error why = {0};
        search.number = 0;
        if ((code = io->list(io->self, note_next, &search)) || search.number == 0) break;
        search.below = search.number;
        if (read_checkpoint(recovery, search.number, &recovery->whole[n], &why) == NN_OK) {
            if (recovery->whole[n]->last > recovery->durable) recovery->durable = recovery->whole[n]->last;
            n++;
            continue;
        }
        if (why.code != NN_E_CORRUPT) return nn_fail(recovery->err, why.code, "%s", why.text);
        srv_store_say(recovery->store, "%s", why.text);
        nn_fail(&damage, why.code, "%s", why.text);
        recovery->worse = true;
    }
    if (code)
        return nn_fail(recovery->err, NN_E_STORE, "the directory cannot be listed: %s", strerror(-code));
    /* Without a checkpoint, going on would delete the snapshots. */
    if (n == 0 && damage.code) return nn_fail(recovery->err, NN_E_CORRUPT, "%s", damage.text);
    return NN_OK;
}

/* Chooses the first whole checkpoint whose keys are good too: without its keys a change could be made twice. */
static int choose_checkpoint(struct recovery *recovery) {
    struct srv_store *store = recovery->store;
    struct nn_error damage = {0};
    int chosen = 0;
    for (; chosen < 2 && recovery->whole[chosen]; chosen++) {
        const struct srv_checkpoint *checkpoint = recovery->whole[chosen];
        char name[SRV_FILE_NAME];
        struct nn_error why = {0};
        if (checkpoint->keys_number == 0) break;
        srv_keys_name(name, checkpoint->keys_number);
        if (!srv_file_read(store->io, name, &checkpoint->keys, &recovery->keys, &recovery->keys_size, &why))
            break;
        if (why.code != NN_E_CORRUPT) return nn_fail(recovery->err, why.code, "%s", why.text);
        srv_store_say(store, "%s", why.text);
        nn_fail(&damage, why.code, "%s", why.text);
        recovery->worse = true;
    }
    if (chosen > 0 && (chosen == 2 || !recovery->whole[chosen])) {
        if (lose(recovery, &damage)) return NN_E_CORRUPT;
        chosen = 0;
    }
    store->newest = recovery->whole[chosen];
    store->older = chosen == 0 ? recovery->whole[1] : NULL;
    recovery->whole[chosen] = NULL;
    if (chosen == 0) recovery->whole[1] = NULL;
    recovery->after = store->newest ? store->newest->begin : 0;
    return NN_OK;
}

/* --- models ----------------------------------------------------------------------------------------------- */

struct load {
    struct api *api;
    uint64_t seq;
};

static int load(void *arg, struct api_source *source, struct nn_error *err) {
    const struct load *to = arg;
    return api_recover_model(to->api, source, to->seq, err);
}

static int load_snapshot(struct recovery *recovery, const struct srv_stored_model *model, int i, uint64_t seq,
                         struct nn_error *err) {
    const struct srv_stored *stored = &model->snapshots[i];
    struct load to = {recovery->api, seq};
    char name[SRV_FILE_NAME];
    srv_snapshot_name(name, model->name, stored->number);
    return srv_file_show(recovery->store->io, name, &stored->sum, load, &to, err);
}

/* True if the journal can have all records behind `seq`. */
static bool reaches_back(const struct recovery *recovery, uint64_t seq) {
    uint64_t first = srv_journal_first(recovery->store->journal);
    return seq >= recovery->durable || (first > 0 && first <= seq + 1);
}

/* True for a model that the older checkpoint does not have: it was made since, and the journal reaches back to that
 * checkpoint, so it has all of the model's life. */
static bool come_from_journal(struct recovery *recovery, const struct srv_stored_model *model) {
    const struct srv_checkpoint *older = recovery->store->older;
    uint64_t since = older ? older->begin : 0;
    if (srv_checkpoint_find(older, model->name) || !reaches_back(recovery, since)) return false;
    if (since < recovery->after) recovery->after = since;
    srv_store_say(recovery->store, "model \"%s\" comes from the journal alone", model->name);
    return true;
}

/* The i-th snapshot that may serve for a model: first those of the newest checkpoint, then those of the older one.
 * Returns the model that has it, and sets *i to its place there. NULL: there are no more. */
static const struct srv_stored_model *find_snapshot(const struct recovery *recovery,
                                                    const struct srv_stored_model *model, int *i) {
    if (*i < model->n) return model;
    const struct srv_stored_model *older = srv_checkpoint_find(recovery->store->older, model->name);
    *i -= model->n;
    return older && *i < older->n ? older : NULL;
}

static bool has_snapshot(const struct srv_stored_model *model, uint64_t number) {
    for (int i = 0; i < model->n; i++)
        if (model->snapshots[i].number == number) return true;
    return false;
}

static int load_model(struct recovery *recovery, const struct srv_stored_model *model) {
    struct nn_error damage = {0};
    const struct srv_stored_model *from;
    for (int n = 0, i = 0; (from = find_snapshot(recovery, model, &i)); i = ++n) {
        uint64_t seq = from->snapshots[i].seq;
        struct nn_error why = {0};
        bool whole = n == 0 || reaches_back(recovery, seq);
        if (from != model && (!whole || has_snapshot(model, from->snapshots[i].number))) continue;
        /* The model stays as the snapshot has it: the records that are left do not follow on it. */
        if (!whole && lose(recovery, &damage)) return NN_E_CORRUPT;
        if (load_snapshot(recovery, from, i, seq, &why) == NN_OK &&
            (whole || api_recover_stay(recovery->api, model->name, &why) == NN_OK)) {
            if (whole && seq < recovery->after) recovery->after = seq;
            if (n > 0)
                srv_store_say(recovery->store,
                              "model \"%s\" comes from an older snapshot, of version %" PRIu64, model->name,
                              from->snapshots[i].told.version);
            return NN_OK;
        }
        if (why.code != NN_E_CORRUPT) return nn_fail(recovery->err, why.code, "%s", why.text);
        srv_store_say(recovery->store, "%s", why.text);
        nn_fail(&damage, NN_E_CORRUPT, "%s", why.text);
        recovery->worse = true;
    }
    if (come_from_journal(recovery, model)) return NN_OK;
    if (lose(recovery, &damage)) return NN_E_CORRUPT;
    return api_recover_gone(recovery->api, model->snapshots[0].birth, recovery->err);
}

/* --- records ---------------------------------------------------------------------------------------------- */

#define HISTORY_ENDS (-1)

static int refuse_foreign(struct recovery *recovery, const struct srv_record *record) {
    struct nn_error why = {0};
    nn_fail(&why, NN_E_CORRUPT,
            "%s: records from %" PRIu64
            " on were written by another build or on another machine, and may not "
            "lead to the same numbers here (--replay-other yes replays them)",
            record->file, record->seq);
    srv_store_say(recovery->store, "%s was written under \"%s\"; here it is \"%s\"", record->file,
                  record->fingerprint, recovery->store->fingerprint);
    return lose(recovery, &why) ? (int)recovery->err->code : HISTORY_ENDS;
}

static int replay_record(void *arg, const struct srv_record *record, struct nn_error *err) {
    struct recovery *recovery = arg;
    const struct srv_store *store = recovery->store;
    struct nn_error why = {0};
    bool foreign = strcmp(record->fingerprint, store->fingerprint) != 0, wanted = true;
    bool refused = foreign && !store->options.other_numbers;
    unsigned known = foreign ? API_FOREIGN : 0;
    if (store->newest && record->seq <= store->newest->last) known |= API_MAY_BE_GONE;
    int code = NN_OK;
    if (refused)
        code =
            api_recover_wants(recovery->api, record->seq, record->bytes, record->size, known, &wanted, &why);
    if (!code && refused && wanted) return refuse_foreign(recovery, record);
    if (!code && wanted)
        code = api_recover_record(recovery->api, record->seq, record->bytes, record->size, known, &why);
    if (!code) return NN_OK;
    if (code != NN_E_CORRUPT) {
        *err = why;
        return code;
    }
    char *what = api_record_describe(record->bytes, record->size);
    struct nn_error where = {0};
    nn_fail(&where, NN_E_CORRUPT, "%s at byte %" PRIu64 ", record %" PRIu64 " (%s): %s", record->file,
            record->offset, record->seq, what ? what : "", why.text);
    free(what);
    /* This model stays as it is; others go on. */
    return lose(recovery, &where);
}

static int pass_record(void *arg, const struct srv_record *record, struct nn_error *err) {
    (void)arg, (void)record, (void)err;
    return NN_OK;
}

static int replay(struct recovery *recovery) {
    struct srv_store *store = recovery->store;
    struct nn_error why = {0};
    if (srv_journal_settle(store->journal, recovery->after, recovery->durable, recovery->read_only,
                           recovery->err))
        return (int)recovery->err->code;
    int code = srv_journal_read(store->journal, recovery->after, recovery->durable, replay_record, recovery,
                                &recovery->found, &why);
    if (code == HISTORY_ENDS) { /* lost records keep their numbers: a start must not find them again */
        struct srv_journal_found rest;
        code = srv_journal_read(store->journal, recovery->found.last, recovery->durable, pass_record, NULL,
                                &rest, &why);
        recovery->found.highest = rest.highest;
    }
    if (code == NN_OK) return NN_OK;
    if (recovery->err->code) return (int)recovery->err->code;
    if (code == NN_E_CORRUPT) return lose(recovery, &why);
    *recovery->err = why;
    return code;
}

/* --- the whole -------------------------------------------------------------------------------------------- */

static int load_all(struct recovery *recovery) {
    struct srv_store *store = recovery->store;
    int code;
    if ((code = find_checkpoints(recovery)) || (code = choose_checkpoint(recovery))) return code;
    store->number = recovery->highest;
    for (size_t i = 0; store->newest && i < store->newest->n_models; i++)
        if ((code = load_model(recovery, &store->newest->models[i]))) return code;
    return replay(recovery);
}

/* The last number that must not be given again. */
static uint64_t last_number(const struct recovery *recovery) {
    uint64_t last = recovery->lost ? recovery->found.highest : recovery->found.last;
    return last > recovery->durable ? last : recovery->durable;
}

static void tell(const struct recovery *recovery, bool clean) {
    const struct srv_store *store = recovery->store;
    if (!store->newest && recovery->found.records == 0) return;
    srv_store_say(store,
                  "recovered from checkpoint %" PRIu64 ": models: %zu, records behind it: %" PRIu64 "%s%s",
                  store->newest ? store->newest->number : 0, store->newest ? store->newest->n_models : 0,
                  recovery->found.records, clean ? "; the stop was clean" : "",
                  recovery->found.torn ? "; the journal's end is torn: a write that was cut off, or one that "
                                         "went bad since, which nothing tells"
                                       : "");
}

/* Removes the files that nobody needs, and lets changes come. */
static int open_for_changes(struct recovery *recovery) {
    struct srv_store *store = recovery->store;
    struct nn_error *err = recovery->err;
    int code = srv_journal_begin(store->journal, last_number(recovery), false, err);
    if (!code && recovery->lost) code = srv_store_take(store, true, err);
    if (!code && recovery->lost) code = srv_journal_release(store->journal, err);
    /* Tidying also deletes clean-N, before any change makes it false. */
    if (!code) code = srv_store_tidy(store, err);
    if (!code && store->options.threads) code = srv_store_start(store, recovery->found.records > 0, err);
    return code;
}

int srv_store_recover(struct srv_store *store, struct api *api, bool read_only, struct nn_error *err) {
    struct recovery recovery = {.store = store, .api = api, .err = err, .read_only = read_only};
    store->api = api;
    api_recover_begin(api);
    int code = load_all(&recovery);
    if (!code && recovery.keys)
        code = api_recover_keys(api, recovery.keys, recovery.keys_size, recovery.found.last, err);
    /* A torn end may be older than a clean stop: its file is kept as long as the files before it. */
    bool clean = !recovery.worse && recovery.found.records == 0 &&
                 (store->newest ? recovery.clean == store->newest->number
                                : recovery.highest == 0 && !recovery.found.torn);
    if (!code) code = api_recover_end(api, clean, err);
    if (!code) tell(&recovery, clean);
    store->damaged = recovery.worse;
    store->known = clean;
    if (!code && read_only) code = srv_journal_begin(store->journal, last_number(&recovery), true, err);
    if (!code && !read_only) code = open_for_changes(&recovery);
    free(recovery.keys);
    for (int i = 0; i < 2; i++) srv_checkpoint_free(recovery.whole[i]);
    return code;
}
