/* guard.h - whether a request comes by a name that is ours, and not out of somebody else's web page.
 *
 * A page that a user looks at can make their browser call any address that it reaches. What the browser adds
 * tells: `Origin` is the page's site. Where the page's own name was made to lead here (DNS rebinding), the
 * browser takes both for one site, and `Host` is that name. */
#ifndef SRV_GUARD_H
#define SRV_GUARD_H

#include <stdbool.h>

#include "../../api/api.h"

/* All borrowed; NULL where there is nothing. Lists are separated by commas or blanks. */
struct srv_guard {
    const char *listen;  /* as in srv_listener_new: its host is ours */
    const char *hosts;   /* names that are ours too; "*": any is */
    const char *origins; /* sites whose pages may call: "https://example.org" */
};

/* NN_E_VALUE: an entry of a list could never match. */
int srv_guard_check(const struct srv_guard *guard, struct nn_error *err);

/* Whether these are the site of a page that may call. */
bool srv_guard_allows(const struct srv_guard *guard, const char *origin);

/* Why a request is to be refused, a sentence; NULL: no reason. The headers' values, NULL where absent. Any
 * address is ours, and localhost: to be led astray, a browser needs a name. */
const char *srv_guard_fault(const struct srv_guard *guard, const char *host, const char *origin);

#endif
