/* world.h - the world outside of the API: clocks, entropy, compute threads. */
#ifndef SRV_WORLD_H
#define SRV_WORLD_H

#include "config.h"
#include "pool.h"

#define SRV_VERSION_TEXT "0.1.0"

int64_t srv_now_ms(void);  /* monotonic */
int64_t srv_wall_ms(void); /* milliseconds since 1970 */

/* A service with these settings. `pool` NULL: everything runs on the callers' threads. `store` NULL: nothing is stored.
 * Both must outlive the service. */
struct api *srv_world_api(const struct srv_settings *settings, struct srv_pool *pool,
                          const struct api_store *store, struct nn_error *err);

#endif
