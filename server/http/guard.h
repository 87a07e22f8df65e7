/* guard.h - checks that a request uses one of the service's own names, and does not come from another site's page.
 *
 * A page can make the browser of its reader call any address that the browser reaches. Two headers of the browser give
 * such calls away. `Origin` is the site of the page. If the page's own name was made to lead here (DNS rebinding), the
 * browser takes both for one site, but then `Host` is the page's name. */
#ifndef SRV_GUARD_H
#define SRV_GUARD_H

#include <stdbool.h>

#include "../../api/api.h"

/* All borrowed; NULL where nothing is set. Lists are separated by commas or blanks. */
struct srv_guard {
    const char *listen;  /* as for srv_listener_new: its host is an own name */
    const char *hosts;   /* further own names; "*": any name is */
    const char *origins; /* sites whose pages may call: "https://example.org" */
};

/* NN_E_VALUE: an entry of a list can never match. */
int srv_guard_check(const struct srv_guard *guard, struct nn_error *err);

/* True if pages of this site may call. */
bool srv_guard_allows(const struct srv_guard *guard, const char *origin);

/* Why the request must be refused, as a sentence; NULL: it need not. `host` and `origin` are the values of the headers,
 * NULL where absent. Every address, and localhost, is an own name: only a name can mislead a browser. */
const char *srv_guard_fault(const struct srv_guard *guard, const char *host, const char *origin);

#endif
