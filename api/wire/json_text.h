/* json_text.h - writes jansson's values as text, with the printer of tensors' numbers, which writes 0.2 as 0.2. */
#ifndef API_JSON_TEXT_H
#define API_JSON_TEXT_H

#include <jansson.h>

#include "tensor.h"

void api_text_json(struct api_text *text, const json_t *value);
/* An upper bound of the bytes that api_text_json adds for a value. */
size_t api_json_text_bound(const json_t *value);
/* The value as a malloc'ed string. NULL: memory is out. */
char *api_json_text(const json_t *value);

#endif
