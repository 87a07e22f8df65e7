/* data.c - see data.h. */
#include "data.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "world.h"

#define MOST_SEGMENT_BYTES (UINT64_C(64) << 20)
#define ATTEMPTS           3 /* to verify a directory to which a daemon may be writing */

static void log_line(const char *line) { srv_log_say("%s", line); }

/* The directory keeps the records of two checkpoints, each up to the journal's size; beside them a file that is not
 * full yet, and one that is not wholly forgotten. */
static uint64_t segment_bytes(uint64_t journal_size) {
    return journal_size / 4 < MOST_SEGMENT_BYTES ? journal_size / 4 : MOST_SEGMENT_BYTES;
}

struct names {
    char (*names)[API_MAX_MODEL_NAME + 1];
    size_t n, room;
};

static void note_name(void *arg, const char *name) {
    struct names *names = arg;
    if (names->n == names->room) {
        size_t room = names->room ? 2 * names->room : 16;
        void *more = reallocarray(names->names, room, sizeof *names->names);
        if (!more) return; /* fewer models are there than were recovered */
        names->names = more;
        names->room = room;
    }
    snprintf(names->names[names->n++], sizeof *names->names, "%s", name);
}

/* --- the daemon's ------------------------------------------------------------------------------------------ */

int srv_data_open(struct srv_data *data, const struct srv_settings *settings, struct nn_error *err) {
    *data = (struct srv_data){0};
    if (!settings->data) return NN_OK;
    struct srv_store_options options = {
        .segment_bytes = segment_bytes((uint64_t)settings->journal_size),
        .checkpoint_bytes = (uint64_t)settings->journal_size,
        .checkpoint_ms = settings->checkpoint_interval * 1000,
        .snapshots = (int)settings->snapshots,
        .other_numbers = settings->replay_other == 1,
        .accept_loss = settings->accept_loss == 1,
        .threads = true,
        .now_ms = srv_wall_ms,
        .log = log_line,
    };
    data->directory = srv_directory_open(settings->data, 0, err);
    if (data->directory) data->store = srv_store_new(srv_directory_io(data->directory), &options, err);
    return (int)err->code;
}

const struct api_store *srv_data_api(const struct srv_data *data) {
    return data->store ? srv_store_api(data->store) : NULL;
}

int srv_data_recover(struct srv_data *data, struct api *api, struct nn_error *err) {
    return data->store ? srv_store_recover(data->store, api, false, err) : NN_OK;
}

int srv_data_finish(struct srv_data *data, struct nn_error *err) {
    return data->store ? srv_store_finish(data->store, err) : NN_OK;
}

#define TOLD 100 /* models that get a line each */

void srv_data_tell_lost(const struct srv_data *data, struct api *api) {
    struct names names = {0};
    struct nn_error err = {0};
    size_t lost = 0;
    if (!data->store) return;
    srv_log_say("there is no last checkpoint: the next start is one as after a crash");
    if (api_models_stored(api, note_name, &names, &err))
        srv_log_say("what is lost cannot be told: %s", err.text);
    for (size_t i = 0; i < names.n; i++) {
        uint64_t version;
        int64_t durable;
        if (!api_model_lags(api, names.names[i], &version, &durable) || ++lost > TOLD) continue;
        srv_log_say("lost: %s is at version %llu, and stored as of %lld", names.names[i],
                    (unsigned long long)version, (long long)durable);
    }
    if (lost > TOLD) srv_log_say("lost: likewise of %zu models more", lost - TOLD);
    free(names.names);
}

void srv_data_close(struct srv_data *data) {
    srv_store_free(data->store);
    srv_directory_close(data->directory);
    *data = (struct srv_data){0};
}

/* --- gradd verify ------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static int print_models(struct api *api, FILE *out, struct nn_error *err) {
    struct names names = {0};
    int code = api_models_stored(api, note_name, &names, err);
    if (!code && names.n) qsort(names.names, names.n, sizeof *names.names, by_name);
    for (size_t i = 0; i < names.n && !code; i++) {
        struct api_snapshot *snapshot = api_snapshot_take(api, names.names[i], NULL, 0, err);
        code = (int)err->code;
        if (snapshot)
            fprintf(out, "%s: version %llu, as of record %llu\n", snapshot->model,
                    (unsigned long long)snapshot->version, (unsigned long long)snapshot->seq);
        api_snapshot_free(snapshot);
    }
    free(names.names);
    return code;
}

/* The store's lines go where verify prints. A process verifies once. */
static FILE *verify_out;
static void print_line(const char *line) { fprintf(verify_out, "%s\n", line); }

/* The limits of a daemon do not apply here. */
static struct api *open_service(const struct api_store *store, struct nn_error *err) {
    static char *const nothing[] = {NULL};
    struct srv_settings settings;
    enum srv_wish wish;
    struct api *api = NULL;
    if (srv_settings_load(&settings, 1, nothing, nothing, &wish, err) == NN_OK) {
        settings.memory = INT64_MAX / 4;
        settings.max_models = settings.max_keys = 10000000;
        api = srv_world_api(&settings, NULL, store, err);
    }
    srv_settings_fini(&settings);
    return api;
}

static bool verify_once(const struct srv_io *io, FILE *out, struct nn_error *err) {
    struct srv_store_options options = {
        .segment_bytes = MOST_SEGMENT_BYTES,
        .checkpoint_bytes = UINT64_MAX,
        .snapshots = 1,
        .accept_loss = true, /* to find all of the damage */
        .now_ms = srv_wall_ms,
        .log = print_line,
    };
    verify_out = out;
    struct srv_store *store = srv_store_new(io, &options, err);
    struct api *api = store ? open_service(srv_store_api(store), err) : NULL;
    bool good = false;
    if (api && srv_store_recover(store, api, true, err) == NN_OK && print_models(api, out, err) == NN_OK)
        good = !srv_store_damaged(store);
    srv_store_free(store);
    api_free(api);
    return good;
}

bool srv_data_verify(const char *path, FILE *out, struct nn_error *err) {
    struct srv_directory *directory = srv_directory_open(path, 1, err);
    bool good = false;
    /* A daemon may remove files while they are read: damage is looked at again. */
    for (int attempt = 1; directory && !good && attempt <= ATTEMPTS; attempt++) {
        char *text = NULL;
        size_t size = 0;
        FILE *told = open_memstream(&text, &size);
        if (!told) {
            nn_fail(err, NN_E_NOMEM, "no memory to verify %s", path);
            break;
        }
        *err = (struct nn_error){0};
        good = verify_once(srv_directory_io(directory), told, err);
        fclose(told);
        if (good && size == 0) fprintf(out, "nothing is stored in %s\n", path);
        if (good || attempt == ATTEMPTS) fputs(text, out);
        free(text);
    }
    srv_directory_close(directory);
    return good;
}
