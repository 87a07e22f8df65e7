/* place.h - a directory of a store on the real disk, some of whose calls can be made to fail. Nothing is synced: nobody
 * pulls the plug there, and a disk would take minutes for all that tests write. */
#ifndef TEST_PLACE_H
#define TEST_PLACE_H

#include <stdatomic.h>

#include "../../server/store/io.h"

struct place {
    char path[64];
    struct srv_directory *directory;
    struct srv_io io; /* the directory's, or what is put in its place */
    const struct srv_io *real;
    atomic_int fail_reserve, fail_write, fail_sync; /* errno, or 0 */
};

void place_init(struct place *place);
/* Removes it, and all that is in it. */
void place_fini(struct place *place);

#endif
