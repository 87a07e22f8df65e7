/* catalogue.h - what the tables of core say, for people and programs. */
#ifndef API_CATALOGUE_H
#define API_CATALOGUE_H

#include <jansson.h>

#include "../../core/nn.h"

/* {"operators": [...], "losses": [...], "optimizers": [...]}; NULL when memory is out. */
json_t *api_catalogue_json(void);

#endif
