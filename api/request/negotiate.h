/* negotiate.h - reads the encodings in a head: Content-Type, Accept and Content-Encoding (RFC 9110, sections 8.3, 8.4
 * and 12.5). */
#ifndef API_NEGOTIATE_H
#define API_NEGOTIATE_H

#include "../wire/document.h"

/* The encoding that a Content-Type names; its parameters are ignored. False: the type is unknown. */
bool api_encoding_of_type(const char *type, enum api_encoding *encoding);
/* Sets *encoding to the encoding that an Accept (NULL: absent) gives the greater weight; with equal weights, to the one
 * whose range comes first; with the same range, *encoding stays. False: none is allowed. */
bool api_encoding_accepted(const char *accept, enum api_encoding *encoding);
/* True if a Content-Encoding (NULL: absent) leaves the body as it is: every coding in it is "identity". */
bool api_coding_is_identity(const char *codings);

#endif
