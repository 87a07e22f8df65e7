/* config.h - the settings of config.def, out of flags, then the environment, then a file, then defaults. */
#ifndef SRV_CONFIG_H
#define SRV_CONFIG_H

#include <stdint.h>
#include <stdio.h>

#include "../api/api.h"

enum srv_log { SRV_LOG_OFF, SRV_LOG_REQUESTS }; /* in the order of the row's words */

#define SRV_TYPE_TEXT    char *
#define SRV_TYPE_SECRET  char *
#define SRV_TYPE_COUNT   int64_t
#define SRV_TYPE_MODE    int64_t
#define SRV_TYPE_BYTES   int64_t
#define SRV_TYPE_SECONDS int64_t
#define SRV_TYPE_WORK    int64_t
#define SRV_TYPE_CHOICE  int64_t

/* Texts are owned. NULL: not given, and without a default. */
struct srv_settings {
#define SRV_SETTING(name, kind, by_default, least, most, unit, text) SRV_TYPE_##kind name;
#include "config.def"
#undef SRV_SETTING
};

enum srv_wish { SRV_RUN, SRV_HELP, SRV_VERSION };

/* Sets `settings`. `environment` is a NULL-terminated array of NAME=value. *wish is what the flags ask for; if it is
 * not SRV_RUN, only defaults are set. NN_E_UNKNOWN_MEMBER, NN_E_VALUE, NN_E_NOT_FOUND (a file), NN_E_NOMEM; the text
 * names the source of the fault. srv_settings_fini must be called even then. */
int srv_settings_load(struct srv_settings *settings, int argc, char *const *argv, char *const *environment,
                      enum srv_wish *wish, struct nn_error *err);
void srv_settings_fini(struct srv_settings *settings);

/* Prints the text of --help. */
void srv_settings_help(FILE *out);

#endif
