/* effect.h - remembers the changes and answers of requests with an Idempotency-Key.
 *
 * A key belongs to the first request that bears it. While that request is in flight, another with the same key is
 * refused. When it has succeeded, a repetition changes nothing and gets the same status and scalar members again, until
 * the key expires. An error has changed nothing, and frees the key. */
#ifndef API_EFFECT_H
#define API_EFFECT_H

#include "../request/request.h"

struct api_effect;
struct api_model;

/* Called before the handler. *replayed: the answer is that of the first request. NN_E_VALUE (no valid key),
 * NN_E_IN_FLIGHT, NN_E_KEY_REUSED, NN_E_BUSY (the table is full), NN_E_NOMEM. */
int api_effect_begin(struct api_request *request, bool *replayed);
/* Called before the change: keeps the answer's scalar members. NN_E_NOMEM, NN_E_BUSY. */
int api_effect_note(struct api_request *request);
/* In a turn, just before the change is made: notes the change's number and its record (0: none), for this request and
 * its followers. */
void api_effects_commit(struct api_request *request, const struct api_model *model, uint64_t seq);
/* In the same turn: takes api_effects_commit back, because the change was not made. */
void api_effects_revoke(struct api_request *request);
/* The keys of a request and its followers, as a record holds them. NULL: memory is out. */
json_t *api_effects_json(const struct api_request *request);
/* The keys of the model's changes that are in no record, with their ages. NULL: memory is out. */
json_t *api_effects_unrecorded(struct api *api, const struct api_model *model);
/* The member "lived" of a new record: see ../wire/record.h. NULL: memory is out. */
json_t *api_effects_time(struct api *api);
/* While recovering: moves the clock of keys to the time of the next record, its "lived". NULL: the record has none, as
 * in format 0. */
void api_effects_pass(struct api *api, const json_t *time);
/* While recovering: remembers the keys in record `seq`, of a change of that model, unless they have expired.
 * NN_E_CORRUPT, NN_E_NOMEM. */
int api_effects_recover(struct api *api, const json_t *keys, const char *model, const char *birth,
                        uint64_t seq, struct nn_error *err);
/* Recovery is over: from now on keys age by the process's clock. */
void api_effects_recovered(struct api *api);
/* Called when the request ends: success keeps what was noted, failure frees the key. */
void api_effect_end(struct api_request *request, bool succeeded);
/* The change was made, but the checkpoint that the request and its followers waited for failed: keeps what was noted,
 * with the version that is durable. */
void api_effects_keep(struct api_request *request);
/* Forgets the keys that have expired. */
void api_effects_expire(struct api *api);
void api_effects_clear(struct api *api);

#endif
