/* registry.h - the models by name. */
#ifndef API_REGISTRY_H
#define API_REGISTRY_H

#include "model.h"

/* Sets request->model and request->params: the model of that name, and its current version. NN_E_NOT_FOUND. */
int api_model_find(struct api_request *request, const char *name);
/* The sizes of the model of that name. False: there is none. */
bool api_model_size(struct api *api, const char *name, struct api_model_size *size);
/* The sizes of request->model. */
struct api_model_size api_model_measured(struct api_request *request);
/* The name of the model of that birth, in `name`; "" if there is none. */
const char *api_model_name_of(struct api *api, const char *birth, char name[API_MAX_MODEL_NAME + 1]);
/* True if the model of this birth has a change: the change of record `seq`, or where `seq` is 0, the change number
 * `change` in the snapshot that it was read from. *there: the model exists. */
bool api_model_has(struct api *api, const char *birth, uint64_t change, uint64_t seq, bool *there);
/* Appends a description of each model to `list`, in the order of names. */
int api_models_list(struct api_request *request, json_t *list);
/* A tree behind the service's lock, the number of its items, and an upper bound of the bytes of an item's
 * description. */
struct api_registry {
    void *const *tree;
    const int *n;
    size_t described;
};
/* Appends a description of each item to `list`, in the tree's order. Items whose model the request's token does not see
 * are left out. `describe` is called with the lock held. */
int api_registry_list(struct api_request *request, const struct api_registry *registry,
                      const struct api_model *(*model_of)(const void *item),
                      json_t *(*describe)(struct api *api, const void *item), json_t *list);
void api_models_clear(struct api *api);

/* With the service's lock held: the model of a valid name, or NULL. */
struct api_model *api_registry_at(struct api *api, const char *name);
/* With the lock held: adds a model under a free name, and takes a reference. False: memory is out. */
bool api_registry_add(struct api *api, struct api_model *model);
/* With the lock held: takes a model out. Its reference becomes the caller's. */
void api_registry_take(struct api *api, struct api_model *model);
/* With the lock held: puts `next` in the place of the model of its name, and takes a reference. The old model's
 * reference becomes the caller's. */
void api_registry_swap(struct api *api, struct api_model *next);

#endif
