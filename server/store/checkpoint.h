/* checkpoint.h - a checkpoint: the files that make up the whole state as of some record.
 *
 * The file checkpoint-N, with N counting checkpoints, is lines of text:
 *
 *   gradd-checkpoint 1
 *   fingerprint TEXT                       of the daemon that took it
 *   begin SEQ                              records behind this one are needed
 *   last SEQ                               the journal's last durable record at that time
 *   keys N SIZE SUM                        keys-N; absent where there are no keys
 *   model NAME                             and its snapshots, newest first:
 *   snapshot N SEQ VERSION TIME BIRTH CHANGES SIZE SUM
 *   sum SUM                                of all lines before
 *
 * A snapshot is in the file snapshot-NAME-N, where N is the checkpoint for which it was taken. It contains all records
 * of its model up to SEQ. Sums are XXH3-64 in hexadecimal; all other numbers are decimal. */
#ifndef SRV_CHECKPOINT_H
#define SRV_CHECKPOINT_H

#include "../../api/store.h"
#include "files.h"

struct srv_stored {
    uint64_t number, seq, changes;
    struct api_stored told;
    char birth[17]; /* "-" in the text if it is empty */
    struct srv_file_sum sum;
};

struct srv_stored_model {
    char name[API_MAX_MODEL_NAME + 1];
    int n;
    struct srv_stored *snapshots; /* newest first */
};

struct srv_checkpoint {
    uint64_t number, begin, last;
    uint64_t keys_number; /* 0: none */
    struct srv_file_sum keys;
    size_t n_models, room;
    struct srv_stored_model *models; /* sorted by name, once all are added */
};

void srv_checkpoint_free(struct srv_checkpoint *checkpoint);
/* Adds a model without snapshots. NULL: memory is out. */
struct srv_stored_model *srv_checkpoint_add(struct srv_checkpoint *checkpoint, const char *name);
void srv_checkpoint_sort(struct srv_checkpoint *checkpoint);
/* The model of that name, or NULL. `checkpoint` may be NULL. */
const struct srv_stored_model *srv_checkpoint_find(const struct srv_checkpoint *checkpoint, const char *name);

/* The text of the file, malloc'ed. NULL: memory is out. */
char *srv_checkpoint_format(const struct srv_checkpoint *checkpoint, const char *fingerprint, size_t *size);
/* Parses a text, which ends in a NUL and is cut up. NN_E_CORRUPT, NN_E_STORE (a later format), NN_E_NOMEM. */
struct srv_checkpoint *srv_checkpoint_parse(char *text, size_t size, uint64_t number, struct nn_error *err);

#define SRV_FILE_NAME 128
void srv_checkpoint_name(char name[SRV_FILE_NAME], uint64_t number);
void srv_keys_name(char name[SRV_FILE_NAME], uint64_t number);
void srv_clean_name(char name[SRV_FILE_NAME], uint64_t number);
void srv_snapshot_name(char name[SRV_FILE_NAME], const char *model, uint64_t number);
/* The number at the end of a name that begins with `prefix`. 0: it is no such name. */
uint64_t srv_name_number(const char *name, const char *prefix);

#endif
