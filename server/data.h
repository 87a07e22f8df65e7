/* data.h - the store of a process, from its settings; and `gradd verify`. */
#ifndef SRV_DATA_H
#define SRV_DATA_H

#include "config.h"
#include "store/store.h"

/* Empty where the settings name no directory. */
struct srv_data {
    struct srv_directory *directory;
    struct srv_store *store;
};

/* Opens the directory, which no other process may have. NN_E_BUSY, NN_E_STORE, NN_E_NOMEM. */
int srv_data_open(struct srv_data *data, const struct srv_settings *settings, struct nn_error *err);
/* What api_env.store is to be. */
const struct api_store *srv_data_api(const struct srv_data *data);
/* srv_store_recover and srv_store_finish, where there is a store. */
int srv_data_recover(struct srv_data *data, struct api *api, struct nn_error *err);
int srv_data_finish(struct srv_data *data, struct nn_error *err);
void srv_data_close(struct srv_data *data);

/* Recovers the directory into a service of its own and prints what is there, a line for each model, and what is
 * damaged; nothing is changed. Whether all is good; false with `err` unset: what is not has been printed. */
bool srv_data_verify(const char *path, FILE *out, struct nn_error *err);

#endif
