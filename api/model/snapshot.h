/* snapshot.h - a model as a safetensors file, and back.
 *
 * Parameters bear their plain names, as in a state_dict. Beside them stand the optimizer's state as
 * optimizer/SLOT.PARAMETER and the accumulation buffer as accumulated/PARAMETER, of which no parameter can have the
 * name. The one member of __metadata__, "gradd", is JSON:
 *
 *   name, birth, incarnation, version, changes, time, specification, stopped (a parameter's name)
 *   steps, fresh (of the optimizer: slots that await their first step)
 *   sum: scale, count, oldest (of the buffer; absent when it is empty)
 *   staleness (applied gradients, by bucket)
 *
 * The data lie in the order parameters, slot after slot, buffer: so a model is read as they come. */
#ifndef API_SNAPSHOT_H
#define API_SNAPSHOT_H

#include "model.h"
#include "../store.h"

/* In a turn, or of a model that is the caller's alone. NULL: NN_E_BUSY, NN_E_NOMEM. */
struct api_snapshot *api_snapshot_make(struct api_request *request, struct api_model *model);
/* The model that a snapshot shows, held once. NULL: NN_E_CORRUPT, NN_E_BUSY, NN_E_NOMEM, or the source's error. */
struct api_model *api_snapshot_read(struct api_request *request, struct api_source *source);

#endif
