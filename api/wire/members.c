/* members.c - the table of members.def. */
#include "members.h"

#include <math.h>
#include <string.h>

const struct api_member api_members[API_MEMBERS] = {
#define API_MEMBER(name, kind, field, least, most, absent, words, prose)                                     \
    {#name, API_##kind, least, most, absent, words, prose},
#include "members.def"
#undef API_MEMBER
};

const struct api_member *api_member_find(const char *name, size_t length) {
    for (size_t i = 0; i < API_MEMBERS; i++)
        if (strlen(api_members[i].name) == length && memcmp(api_members[i].name, name, length) == 0)
            return &api_members[i];
    return NULL;
}
