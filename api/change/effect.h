/* effect.h - what the Idempotency-Keys of changing requests have done.
 *
 * A key belongs to the first request that bears it. While that is in flight, another of the same key is told
 * so; when it has succeeded, a repetition has no effect and gets the same status and scalar members again,
 * for as long as the window is. An error changed nothing and frees the key. */
#ifndef API_EFFECT_H
#define API_EFFECT_H

#include "../request/request.h"

struct api_effect;
struct api_model;

/* Before a handler runs. `*replayed`: the answer is there already. NN_E_VALUE (not a key), NN_E_IN_FLIGHT,
 * NN_E_KEY_REUSED, NN_E_BUSY (the table is full), NN_E_NOMEM. */
int api_effect_begin(struct api_request *request, bool *replayed);
/* Before the change: writes down the answer's scalar members. NN_E_NOMEM, NN_E_BUSY. */
int api_effect_note(struct api_request *request);
/* In a turn, when the change is about to be made: which of the model's it is, and of which record (0: none), for this
 * request and those that follow it. */
void api_effects_commit(struct api_request *request, const struct api_model *model, uint64_t seq);
/* Still in the turn: it was not made. */
void api_effects_revoke(struct api_request *request);
/* What the keys of a request and of those that follow it stand for, as a record holds it; NULL when memory is out. */
json_t *api_effects_json(const struct api_request *request);
/* Likewise those of the model's changes that are in no record; with the times of their own. */
json_t *api_effects_unrecorded(struct api *api, const struct api_model *model);
/* Remembers what a record of that number and time holds, unless it has expired by now. NN_E_NOMEM. */
int api_effects_recover(struct api *api, const json_t *keys, const char *birth, uint64_t seq, int64_t time_ms,
                        struct nn_error *err);
/* At the end: keeps what was noted, or frees the key. */
void api_effect_end(struct api_request *request, bool succeeded);
/* Of a request, and those that follow it, whose change was made, but which fail as no checkpoint came that they waited
 * for: keeps what was noted, with the version that is durable instead. */
void api_effects_keep(struct api_request *request);
/* Forgets those whose time is up. */
void api_effects_expire(struct api *api);
void api_effects_clear(struct api *api);

#endif
