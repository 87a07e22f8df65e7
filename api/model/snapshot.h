/* snapshot.h - a model as a safetensors file, and back.
 *
 * Parameters have their plain names, as in a state_dict. The optimizer's state is named optimizer/SLOT.PARAMETER, and
 * the accumulation buffer accumulated/PARAMETER, for the parameters that a contribution named; no parameter can have
 * such a name. The one member of __metadata__, "gradd", is JSON:
 *
 *   format (API_FORMAT)
 *   name, birth, incarnation, version, changes, time, specification, stopped (a parameter's name)
 *   steps, fresh (of the optimizer: see state.h)
 *   sum: scale, count, oldest (of the buffer; absent when it is empty)
 *   staleness (applied gradients, by bucket)
 *
 * In format 0, `steps` is a number, `fresh` has true or false for each slot, and the buffer has all parameters.
 *
 * The data are in the order in which a reader needs them: parameters, slot after slot, buffer. */
#ifndef API_SNAPSHOT_H
#define API_SNAPSHOT_H

#include "../store.h"
#include "model.h"

/* Takes a snapshot: in a turn, or of a model that nobody else has. NULL: NN_E_BUSY, NN_E_NOMEM. */
struct api_snapshot *api_snapshot_make(struct api_request *request, struct api_model *model);
/* A snapshot without bytes, of a model that has not changed since its last snapshot. NULL: NN_E_NOMEM. */
struct api_snapshot *api_snapshot_unchanged(struct api_request *request, const struct api_model *model);
/* Reads a model out of a snapshot, with one reference. NULL: NN_E_CORRUPT, NN_E_STORE (a later format), NN_E_BUSY,
 * NN_E_NOMEM, or the source's error. */
struct api_model *api_snapshot_read(struct api_request *request, struct api_source *source);

#endif
