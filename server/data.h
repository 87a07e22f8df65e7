/* data.h - the store of a process, made from its settings; and `gradd verify`. */
#ifndef SRV_DATA_H
#define SRV_DATA_H

#include "config.h"
#include "store/store.h"

/* All NULL where the settings name no directory. */
struct srv_data {
    struct srv_directory *directory;
    struct srv_store *store;
};

/* Opens the directory, which no other process may have. NN_E_BUSY, NN_E_STORE, NN_E_NOMEM. */
int srv_data_open(struct srv_data *data, const struct srv_settings *settings, struct nn_error *err);
/* For api_env.store. NULL: there is no store. */
const struct api_store *srv_data_api(const struct srv_data *data);
/* srv_store_recover and srv_store_finish, if there is a store. */
int srv_data_recover(struct srv_data *data, struct api *api, struct nn_error *err);
int srv_data_finish(struct srv_data *data, struct nn_error *err);
/* In place of srv_data_finish, or after it has failed: logs a line for each model whose current version the next start
 * will not find. */
void srv_data_tell_lost(const struct srv_data *data, struct api *api);
void srv_data_close(struct srv_data *data);

/* Recovers the directory into a service of its own. Prints a line for each model, and the damage. Changes nothing.
 * True: all is good. False with `err` unset: the damage was printed. */
bool srv_data_verify(const char *path, FILE *out, struct nn_error *err);

#endif
