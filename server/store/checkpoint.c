/* checkpoint.c - see checkpoint.h. */
#include "checkpoint.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* --- names ------------------------------------------------------------------------------------------------ */

void srv_checkpoint_name(char name[SRV_FILE_NAME], uint64_t number) {
    snprintf(name, SRV_FILE_NAME, "checkpoint-%020" PRIu64, number);
}

void srv_keys_name(char name[SRV_FILE_NAME], uint64_t number) {
    snprintf(name, SRV_FILE_NAME, "keys-%020" PRIu64, number);
}

void srv_clean_name(char name[SRV_FILE_NAME], uint64_t number) {
    snprintf(name, SRV_FILE_NAME, "clean-%020" PRIu64, number);
}

void srv_snapshot_name(char name[SRV_FILE_NAME], const char *model, uint64_t number) {
    snprintf(name, SRV_FILE_NAME, "snapshot-%s-%020" PRIu64, model, number);
}

uint64_t srv_name_number(const char *name, const char *prefix) {
    size_t length = strlen(name), before = strlen(prefix);
    if (length < before + 20 || strncmp(name, prefix, before) != 0) return 0;
    const char *digits = name + length - 20;
    return digits[-1] == '-' && strspn(digits, "0123456789") == 20 ? strtoull(digits, NULL, 10) : 0;
}

/* --- models ----------------------------------------------------------------------------------------------- */

void srv_checkpoint_free(struct srv_checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (size_t i = 0; i < checkpoint->n_models; i++) free(checkpoint->models[i].snapshots);
    free(checkpoint->models);
    free(checkpoint);
}

struct srv_stored_model *srv_checkpoint_add(struct srv_checkpoint *checkpoint, const char *name) {
    if (checkpoint->n_models == checkpoint->room) {
        size_t room = checkpoint->room ? 2 * checkpoint->room : 16;
        struct srv_stored_model *models = reallocarray(checkpoint->models, room, sizeof *models);
        if (!models) return NULL;
        checkpoint->models = models;
        checkpoint->room = room;
    }
    struct srv_stored_model *model = &checkpoint->models[checkpoint->n_models++];
    *model = (struct srv_stored_model){0};
    snprintf(model->name, sizeof model->name, "%s", name);
    return model;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct srv_stored_model *)a)->name, ((const struct srv_stored_model *)b)->name);
}

void srv_checkpoint_sort(struct srv_checkpoint *checkpoint) {
    if (checkpoint->n_models)
        qsort(checkpoint->models, checkpoint->n_models, sizeof *checkpoint->models, by_name);
}

const struct srv_stored_model *srv_checkpoint_find(const struct srv_checkpoint *checkpoint,
                                                   const char *name) {
    struct srv_stored_model key = {0};
    if (!checkpoint || checkpoint->n_models == 0) return NULL;
    snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, checkpoint->models, checkpoint->n_models, sizeof key, by_name);
}

/* --- the text --------------------------------------------------------------------------------------------- */

static void put_model(FILE *out, const struct srv_stored_model *model) {
    fprintf(out, "model %s\n", model->name);
    for (int i = 0; i < model->n; i++) {
        const struct srv_stored *stored = &model->snapshots[i];
        fprintf(out,
                "snapshot %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %s %" PRIu64 " %" PRIu64
                " %016" PRIx64 "\n",
                stored->number, stored->seq, stored->told.version, stored->told.time_ms,
                *stored->birth ? stored->birth : "-", stored->changes, stored->sum.size, stored->sum.sum);
    }
}

char *srv_checkpoint_format(const struct srv_checkpoint *checkpoint, const char *fingerprint, size_t *size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out) return NULL;
    fprintf(out, "gradd-checkpoint 1\nfingerprint %s\nbegin %" PRIu64 "\nlast %" PRIu64 "\n", fingerprint,
            checkpoint->begin, checkpoint->last);
    if (checkpoint->keys_number)
        fprintf(out, "keys %" PRIu64 " %" PRIu64 " %016" PRIx64 "\n", checkpoint->keys_number,
                checkpoint->keys.size, checkpoint->keys.sum);
    for (size_t i = 0; i < checkpoint->n_models; i++) put_model(out, &checkpoint->models[i]);
    bool failed = fflush(out) != 0;
    if (!failed) fprintf(out, "sum %016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, *size));
    failed |= ferror(out) != 0;
    if (fclose(out) == 0 && !failed) return text;
    free(text);
    return NULL;
}

/* Splits the words off a line. */
struct words {
    char *at;
    bool bad;
};

static const char *take_word(struct words *words) {
    char *word = words->at + strspn(words->at, " ");
    size_t length = strcspn(word, " ");
    if (length == 0) words->bad = true;
    words->at = word + length;
    if (*words->at) *words->at++ = '\0';
    return word;
}

static uint64_t take_number(struct words *words, int base) {
    const char *word = take_word(words);
    char *end;
    errno = 0;
    unsigned long long number = strtoull(word, &end, base);
    if (errno || *end || !isxdigit((unsigned char)*word)) words->bad = true;
    return number;
}

static struct srv_file_sum take_sum(struct words *words) {
    uint64_t size = take_number(words, 10);
    return (struct srv_file_sum){size, take_number(words, 16)};
}

static bool read_snapshot(struct srv_checkpoint *checkpoint, struct words *words, bool *no_memory) {
    if (checkpoint->n_models == 0) return false;
    struct srv_stored_model *model = &checkpoint->models[checkpoint->n_models - 1];
    struct srv_stored *snapshots = reallocarray(model->snapshots, (size_t)model->n + 1, sizeof *snapshots);
    if (!snapshots) {
        *no_memory = true;
        return false;
    }
    model->snapshots = snapshots;
    struct srv_stored *stored = &snapshots[model->n++];
    *stored = (struct srv_stored){0};
    stored->number = take_number(words, 10);
    stored->seq = take_number(words, 10);
    stored->told.version = take_number(words, 10);
    stored->told.time_ms = (int64_t)take_number(words, 10);
    const char *birth = take_word(words);
    snprintf(stored->birth, sizeof stored->birth, "%s", strcmp(birth, "-") == 0 ? "" : birth);
    stored->changes = take_number(words, 10);
    stored->sum = take_sum(words);
    return true;
}

/* Reads a line by its first word. Unknown words are a later version's. */
static bool read_line(struct srv_checkpoint *checkpoint, char *line, bool *no_memory) {
    struct words words = {.at = line};
    const char *first = take_word(&words);
    bool known = true;
    if (strcmp(first, "begin") == 0) {
        checkpoint->begin = take_number(&words, 10);
    } else if (strcmp(first, "last") == 0) {
        checkpoint->last = take_number(&words, 10);
    } else if (strcmp(first, "keys") == 0) {
        checkpoint->keys_number = take_number(&words, 10);
        checkpoint->keys = take_sum(&words);
    } else if (strcmp(first, "model") == 0) {
        const char *name = take_word(&words);
        known = strlen(name) <= API_MAX_MODEL_NAME;
        if (known && !srv_checkpoint_add(checkpoint, name)) *no_memory = true;
    } else if (strcmp(first, "snapshot") == 0) {
        known = read_snapshot(checkpoint, &words, no_memory);
    } else {
        known = strcmp(first, "fingerprint") == 0;
    }
    return known && !words.bad;
}

/* Checks that the last line has the sum of the lines before it, and cuts it off. */
static bool check_sum(char *text, size_t size) {
    const size_t line = sizeof "sum 0123456789abcdef\n" - 1;
    char expected[32];
    if (size < line || strlen(text) != size) return false;
    snprintf(expected, sizeof expected, "sum %016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, size - line));
    if (strcmp(text + size - line, expected) != 0) return false;
    text[size - line] = '\0';
    return true;
}

/* A later release's checkpoint is no damage, and an older one must not replace it. */
static bool is_newer(const char *text, const char *name, struct nn_error *err) {
    static const char title[] = "gradd-checkpoint ";
    bool titled = strncmp(text, title, sizeof title - 1) == 0;
    unsigned long format = titled ? strtoul(text + sizeof title - 1, NULL, 10) : 0;
    if (format <= 1) return false;
    nn_fail(err, NN_E_STORE, "%s is of format %lu: a later release wrote it, and this one knows 1", name,
            format);
    return true;
}

struct srv_checkpoint *srv_checkpoint_parse(char *text, size_t size, uint64_t number, struct nn_error *err) {
    static const char title[] = "gradd-checkpoint 1\n";
    bool no_memory = false;
    char name[SRV_FILE_NAME];
    srv_checkpoint_name(name, number);
    bool good = check_sum(text, size);
    if (good && is_newer(text, name, err)) return NULL;
    good = good && strncmp(text, title, sizeof title - 1) == 0;
    struct srv_checkpoint *checkpoint = good ? calloc(1, sizeof *checkpoint) : NULL;
    if (good && !checkpoint) no_memory = true;
    for (char *line = text + sizeof title - 1, *next; good && !no_memory && *line; line = next) {
        next = strchrnul(line, '\n');
        if (*next) *next++ = '\0';
        good = read_line(checkpoint, line, &no_memory);
    }
    if (good && !no_memory) {
        checkpoint->number = number;
        srv_checkpoint_sort(checkpoint);
        return checkpoint;
    }
    srv_checkpoint_free(checkpoint);
    if (no_memory)
        nn_fail(err, NN_E_NOMEM, "no memory for %s", name);
    else
        nn_fail(err, NN_E_CORRUPT, "%s is damaged: its text is not what it was", name);
    return NULL;
}
