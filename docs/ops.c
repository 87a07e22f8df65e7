/* ops.c - prints docs/ops.md, which is what the operators' tables say of themselves: see `make docs`. */
#include <stdio.h>
#include <stdlib.h>

#include "../api/api.h"

int main(void) {
    char *page = api_ops_markdown();
    if (!page || fputs(page, stdout) == EOF || fflush(stdout) == EOF) {
        perror("docs/ops");
        free(page);
        return EXIT_FAILURE;
    }
    free(page);
    return EXIT_SUCCESS;
}
