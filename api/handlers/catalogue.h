/* catalogue.h - core's tables of operators, losses and optimizers, as JSON. ../api.h declares them as Markdown. */
#ifndef API_CATALOGUE_H
#define API_CATALOGUE_H

#include <jansson.h>

#include "../../core/nn.h"

/* {"operators": [...], "losses": [...], "optimizers": [...]}. NULL: memory is out. */
json_t *api_catalogue_json(void);

#endif
