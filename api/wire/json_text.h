/* json_text.h - jansson's values as text, with numbers printed like those of tensors: 0.2 as 0.2. */
#ifndef API_JSON_TEXT_H
#define API_JSON_TEXT_H

#include <jansson.h>

#include "tensor.h"

void api_text_json(struct api_text *text, const json_t *value);
/* Bytes that it adds at most. */
size_t api_json_text_bound(const json_t *value);
/* As a string of its own; malloc'ed, NULL when memory is out. */
char *api_json_text(const json_t *value);

#endif
